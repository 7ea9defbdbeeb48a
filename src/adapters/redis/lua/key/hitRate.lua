-- include key.lua

-- Counts one in a window (ms) that begins with its first. How many were counted, and when the window ends (in ms).
local count = redis.call('INCR', KEYS[1])
if count == 1 then redis.call('PEXPIRE', KEYS[1], request.windowMs) end
return { count, math.max(0, redis.call('PTTL', KEYS[1])) }
