-- include subject.lua

-- How many deliveries there are, and those that are due, so many at the most: task id, answer, URL, attempts, when.

-- Of those that never became due nobody else takes off the ones that are gone.
for _, number in ipairs(redis.call('ZRANGEBYSCORE', deliveries, '+inf', '+inf', 'LIMIT', 0, 20)) do
  if not read(number) then redis.call('ZREM', deliveries, number) end
end
local found = {}
for _, number in ipairs(redis.call('ZRANGEBYSCORE', deliveries, '-inf', now, 'LIMIT', 0, request.limit)) do
  local it = read(number)
  if it then
    local answer, url, attempts = unpack(redis.call('HMGET', it.key, 'answer', 'url', 'attempts'))
    table.insert(found, { it.task, answer, url, attempts, redis.call('ZSCORE', deliveries, number) })
  else
    redis.call('ZREM', deliveries, number)
  end
end
return { redis.call('ZCARD', deliveries), found }
