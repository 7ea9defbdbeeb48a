-- include holds.lua

-- Holds whose subjects are to be asked about them, so many at the most of each kind.
local found = redis.call('ZRANGEBYSCORE', open, '-inf', request.now, 'LIMIT', 0, request.limit)
for _, name in ipairs(redis.call('ZRANGEBYSCORE', idle, '-inf', request.now, 'LIMIT', 0, request.limit)) do
  table.insert(found, name)
end
return found
