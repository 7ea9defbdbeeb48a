/**
 * Scripts of tokens. All tokens stand in one slot: there are as many as people, and each is asked for once a second at
 * most. KEYS[1] is the list of their ids, by the numbers that they were given; a token is a hash beside it.
 */
export const tokenScripts = {
  /** ARGV: an id, how long it is kept (ms), fields and values. */
  createToken: `
local key = beside('t:' .. ARGV[1])
for index = 3, #ARGV, 2 do redis.call('HSET', key, ARGV[index], ARGV[index + 1]) end
redis.call('PEXPIRE', key, ARGV[2])
return redis.call('ZADD', KEYS[1], redis.call('INCR', beside('count')), ARGV[1])`,

  /** ARGV: the number that the latest must be below ('inf' for all), how many at the most. A number, a hash, and so on. */
  listTokens: `
local found, before = {}, ARGV[1]
while #found < tonumber(ARGV[2]) * 2 do
  local lacking = ARGV[2] - #found / 2
  local range = redis.call('ZREVRANGEBYSCORE', KEYS[1], '(' .. before, '-inf', 'WITHSCORES', 'LIMIT', 0, lacking)
  if #range == 0 then break end
  for index = 1, #range, 2 do
    before = range[index + 1]
    local token = redis.call('HGETALL', beside('t:' .. range[index]))
    if #token == 0 then redis.call('ZREM', KEYS[1], range[index])
    else
      table.insert(found, before)
      table.insert(found, token)
    end
  end
end
return found`,

  /** ARGV: an id, a hash, when it is issued, until when the one before is good (Unix ms). The token. */
  rotateToken: `
local key = beside('t:' .. ARGV[1])
local it = redis.call('HMGET', key, 'hash', 'issuedAt', 'isInvitation', 'revokedAt', 'expiresAt')
if it[3] ~= '0' or it[4] or tonumber(it[5]) <= tonumber(ARGV[3]) then return false end
redis.call('HSET', key, 'previousHash', it[1], 'previousIssuedAt', it[2], 'previousUntil', ARGV[4])
redis.call('HSET', key, 'hash', ARGV[2], 'issuedAt', ARGV[3])
return redis.call('HGETALL', key)`,

  /** ARGV: an id, the hash of its invitation, a new one, when it is issued (Unix ms), how long it is kept after its end (ms). */
  acceptInvitation: `
local key = beside('t:' .. ARGV[1])
local it = redis.call('HMGET', key, 'hash', 'isInvitation', 'revokedAt', 'expiresAt', 'ttlMs')
if it[1] ~= ARGV[2] or it[2] ~= '1' or it[3] or tonumber(it[4]) <= tonumber(ARGV[4]) then return false end
local expiresAt = string.format('%.0f', tonumber(ARGV[4]) + tonumber(it[5]))
redis.call('HSET', key, 'isInvitation', '0', 'hash', ARGV[3], 'issuedAt', ARGV[4], 'expiresAt', expiresAt)
redis.call('PEXPIRE', key, string.format('%.0f', tonumber(it[5]) + tonumber(ARGV[5])))
return redis.call('HGETALL', key)`,

  /** ARGV: an id, the instant (Unix ms). */
  revokeToken: `
local key = beside('t:' .. ARGV[1])
if redis.call('EXISTS', key) == 0 then return 0 end
redis.call('HSETNX', key, 'revokedAt', ARGV[2])
return 1`,

  /** ARGV: an id, the instant, not if it was used after this one (Unix ms). */
  useToken: `
local key = beside('t:' .. ARGV[1])
if redis.call('EXISTS', key) == 0 or tonumber(redis.call('HGET', key, 'usedAt') or '0') > tonumber(ARGV[3]) then return 0 end
redis.call('HSET', key, 'usedAt', ARGV[2])
return 1`
} as const
