/** Scripts of the deliveries of a subject. */
export const deliveryScripts = {
  /** ARGV[5]: how many at the most. How many deliveries there are, and those that are due: task id, answer, URL, attempts, when. */
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

  /** ARGV[5..6]: a reservation's number, its task id. URL, attempts, when it is due; nothing when there is no delivery. */
  deliveryOf: `
local it = read(ARGV[5])
if not it or it.task ~= ARGV[6] then return {} end
local url, attempts = unpack(redis.call('HMGET', it.key, 'url', 'attempts'))
if not url then return {} end
return { url, attempts, redis.call('ZSCORE', deliveries, it.number) }`,

  /** ARGV[5..8]: a reservation's number, its task id, the attempt as a line, when the next one is due (Unix ms, '' for never). */
  noteAttempt: `
local it = read(ARGV[5])
if not it or it.task ~= ARGV[6] then return 0 end
redis.call('HSET', it.key, 'attempts', (redis.call('HGET', it.key, 'attempts') or '') .. ARGV[7] .. '\\n')
if ARGV[8] == '' then redis.call('ZREM', deliveries, it.number)
else redis.call('ZADD', deliveries, 'XX', ARGV[8], it.number) end
return 1`
} as const
