-- include key.lua

-- Writes an owner, unless there is one that it may not be taken from. The owner, if it is another one.
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= request.owner and owner ~= request.takenFrom then return owner end
redis.call('SET', KEYS[1], request.owner, 'PX', request.keptMs)
return false
