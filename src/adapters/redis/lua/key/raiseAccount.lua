-- include holds.lua

-- Gives an account more: for a time, or for good. All that it has of that kind now; nil when it could not be counted.
local given = request.given
if given.endsAt then return giveExtra(extras, request.now, given) end
local granted = beside('granted')
if tonumber(redis.call('GET', granted) or '0') + given.microcredits > given.limit then return false end
redis.call('INCRBY', granted, given.microcredits)
return redis.call('GET', granted)
