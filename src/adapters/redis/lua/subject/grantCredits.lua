-- include credits.lua

-- What is left of grants with this one; nil when that could not be counted.
local granted = tonumber(redis.call('HGET', account, 'granted') or '0')
if granted + request.microcredits > request.limit then return false end
redis.call('HINCRBY', account, 'granted', request.microcredits)
redis.call('RPUSH', base .. 'grants', digits(now) .. ' ' .. digits(request.microcredits))
keepAccount()
return redis.call('HGET', account, 'granted')
