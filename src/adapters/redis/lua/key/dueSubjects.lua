-- include key.lua

-- Subjects that are due, so many at the most: a name, when it was used, and so on.
local due, found = beside('due'), {}
for _, name in ipairs(redis.call('ZRANGEBYSCORE', due, '-inf', request.now, 'LIMIT', 0, request.limit)) do
  table.insert(found, name)
  table.insert(found, redis.call('ZSCORE', beside('used'), name) or '0')
end
return found
