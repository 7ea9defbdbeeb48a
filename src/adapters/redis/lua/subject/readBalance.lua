-- include subject.lua

-- What is used of a period, what is left of grants, how many tasks are unfinished.
local used = redis.call('HGET', base .. 'period:' .. digits(request.periodStart), 'used')
local granted = redis.call('HGET', account, 'granted')
return { used or '0', granted or '0', redis.call('ZCARD', open) }
