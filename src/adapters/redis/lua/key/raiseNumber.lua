-- include key.lua

-- Writes a number in the place of a smaller one. It is kept for as long as either.
local known = redis.call('GET', KEYS[1])
if known and tonumber(known) > request.number then return 0 end
local keptMs = math.max(request.keptMs, redis.call('PTTL', KEYS[1]))
redis.call('SET', KEYS[1], request.number, 'PX', keptMs)
return 1
