/** Scripts of the deliveries of a subject. */
export const deliveryScripts = {
  /**
   * ARGV[5]: how many at the most. How many deliveries there are, and those that are due: task id, answer, URL,
   * attempts, when.
   */
  dueDeliveries: `
-- Of those that never became due nobody else takes off the ones that are gone.
for _, number in ipairs(redis.call('ZRANGEBYSCORE', deliveries, '+inf', '+inf', 'LIMIT', 0, 20)) do
  if not read(number) then redis.call('ZREM', deliveries, number) end
end
local found = {}
for _, number in ipairs(redis.call('ZRANGEBYSCORE', deliveries, '-inf', digits(now), 'LIMIT', 0, ARGV[5])) do
  local it = read(number)
  if it then
    local answer, url, attempts = unpack(redis.call('HMGET', it.key, 'answer', 'url', 'attempts'))
    table.insert(found, { it.task, answer, url, attempts, redis.call('ZSCORE', deliveries, number) })
  else
    redis.call('ZREM', deliveries, number)
  end
end
return { redis.call('ZCARD', deliveries), found }`,

  /**
   * ARGV[5..6]: a reservation's number, its task id. URL, attempts, when it is due; nothing when there is no delivery.
   */
  deliveryOf: `
local it = read(ARGV[5])
if not it or it.task ~= ARGV[6] then return {} end
local url, attempts = unpack(redis.call('HMGET', it.key, 'url', 'attempts'))
if not url then return {} end
return { url, attempts, redis.call('ZSCORE', deliveries, it.number) }`,

  /**
   * ARGV[5..8]: a reservation's number, its task id, the attempt as a line, when the next one is due (Unix ms, '' for
   * never).
   */
  noteAttempt: `
local it = read(ARGV[5])
if not it or it.task ~= ARGV[6] then return 0 end
redis.call('HSET', it.key, 'attempts', (redis.call('HGET', it.key, 'attempts') or '') .. ARGV[7] .. '\\n')
if ARGV[8] == '' then redis.call('ZREM', deliveries, it.number)
else redis.call('ZADD', deliveries, 'XX', ARGV[8], it.number) end
return 1`
} as const

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

  /**
   * ARGV: the number that the latest must be below ('inf' for all), how many at the most. A number, a hash, and so on.
   */
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

  /**
   * ARGV: an id, the hash of its invitation, a new one, when it is issued (Unix ms), how long it is kept after its end
   * (ms).
   */
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

/**
 * Scripts of status turns. KEYS[1] is a hash: freeAt, asker while somebody asks, newsAt, and the last answer as status,
 * type
 * and body. What counts are the instants in it, by the clocks of the replicas.
 */
export const turnScripts = {
  /**
   * ARGV: now (Unix ms), the interval (ms), 1 when there is news, who asks, when its turn ends (Unix ms), how long that
   * is
   * kept (ms). `false`: it is the asker's turn. Otherwise how long it is not (ms, 0 while somebody asks), and the last
   * answer.
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
   * ARGV: who has asked, when the next may (Unix ms), how long that is kept (ms), and the answer as status, type and
   * body, or
   * nothing. Not if the turn is somebody else's by now.
   */
  endTurn: `
if redis.call('EXISTS', KEYS[1]) == 1 and redis.call('HGET', KEYS[1], 'asker') ~= ARGV[1] then return 0 end
if not ARGV[4] then return redis.call('DEL', KEYS[1]) end
redis.call('HDEL', KEYS[1], 'asker')
redis.call('HSET', KEYS[1], 'freeAt', ARGV[2], 'status', ARGV[4], 'type', ARGV[5], 'body', ARGV[6])
return redis.call('PEXPIRE', KEYS[1], ARGV[3])`
} as const
