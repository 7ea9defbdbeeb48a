-- What hitRate.lua answers, without counting.
local count = redis.call('GET', KEYS[1])
if not count then return { 0, 0 } end
return { tonumber(count), math.max(0, redis.call('PTTL', KEYS[1])) }
