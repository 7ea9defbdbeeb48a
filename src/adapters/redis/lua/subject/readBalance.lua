-- include subject.lua

-- What is used of a period, what is left of grants, how many slots are taken.
local used = redis.call('HGET', base .. 'period:' .. digits(request.periodStart), 'used')
local granted = redis.call('HGET', account, 'granted')
return { used or '0', granted or '0', slots() }
