-- include key.lua

-- It is of no use from then on, as if it had never been. 0: there is no such token.
redis.call('ZREM', KEYS[1], request.id)
return redis.call('DEL', beside('t:' .. request.id))
