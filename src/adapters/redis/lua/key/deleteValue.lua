-- include key.lua

-- Deletes a key that has this value.
if redis.call('GET', KEYS[1]) ~= request.value then return 0 end
return redis.call('DEL', KEYS[1])
