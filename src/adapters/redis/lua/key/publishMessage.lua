-- include key.lua

-- KEYS[1] is a channel.
return redis.call('PUBLISH', KEYS[1], body)
