-- include key.lua

-- All tokens stand in one slot: there are as many as people, and each is asked for once a second at most. KEYS[1] is
-- the list of their ids, by the numbers that they were given; a token is a hash beside it.
local token = beside('t:' .. request.id)
for field, value in pairs(request.token) do redis.call('HSET', token, field, value) end
redis.call('PEXPIRE', token, request.keptMs)
return redis.call('ZADD', KEYS[1], redis.call('INCR', beside('count')), request.id)
