-- include key.lua

-- Counts one in a window (ms) that begins with its first. 0: it was counted. Else how long there is no room (ms).
if tonumber(redis.call('GET', KEYS[1]) or '0') >= request.limit then
  return math.max(1, redis.call('PTTL', KEYS[1]))
end
if redis.call('INCR', KEYS[1]) == 1 then redis.call('PEXPIRE', KEYS[1], request.windowMs) end
return 0
