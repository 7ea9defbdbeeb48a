/**
 * Scripts of status turns. KEYS[1] is a hash: freeAt, asker while somebody asks, newsAt, and the last answer as status, type
 * and body. What counts are the instants in it, by the clocks of the replicas.
 */
export const turnScripts = {
  /**
   * ARGV: now (Unix ms), the interval (ms), 1 when there is news, who asks, when its turn ends (Unix ms), how long that is
   * kept (ms). `false`: it is the asker's turn. Otherwise how long it is not (ms, 0 while somebody asks), and the last answer.
   */
  takeTurn: `
local it = redis.call('HMGET', KEYS[1], 'freeAt', 'asker', 'newsAt', 'status', 'type', 'body')
local now, hasNews = tonumber(ARGV[1]), ARGV[3] == '1'
local longest = it[2] and tonumber(ARGV[5]) - now or tonumber(ARGV[2])
-- What is further off than a turn and a difference of clocks was set before somebody put a clock back.
local free = not it[1] or tonumber(it[1]) <= now or tonumber(it[1]) > now + longest + 60000
local isUrgent = hasNews and not it[2] and (not it[3] or tonumber(it[3]) + tonumber(ARGV[2]) <= now or tonumber(it[3]) > now + 60000)
if not free and not isUrgent then
  return { it[2] and 0 or math.min(tonumber(it[1]) - now, longest), it[4], it[5], it[6] }
end
redis.call('HSET', KEYS[1], 'asker', ARGV[4], 'freeAt', ARGV[5])
if hasNews then redis.call('HSET', KEYS[1], 'newsAt', ARGV[1]) end
redis.call('PEXPIRE', KEYS[1], ARGV[6])
return false`,

  /**
   * ARGV: who has asked, when the next may (Unix ms), how long that is kept (ms), and the answer as status, type and body, or
   * nothing. Not if the turn is somebody else's by now.
   */
  endTurn: `
if redis.call('EXISTS', KEYS[1]) == 1 and redis.call('HGET', KEYS[1], 'asker') ~= ARGV[1] then return 0 end
if not ARGV[4] then return redis.call('DEL', KEYS[1]) end
redis.call('HDEL', KEYS[1], 'asker')
redis.call('HSET', KEYS[1], 'freeAt', ARGV[2], 'status', ARGV[4], 'type', ARGV[5], 'body', ARGV[6])
return redis.call('PEXPIRE', KEYS[1], ARGV[3])`
} as const
