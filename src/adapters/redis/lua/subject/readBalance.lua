-- include subject.lua
-- include extras.lua

-- What is used of a period, what is left of grants, how many slots are taken, and what a period is raised by now.
local used = redis.call('HGET', base .. 'period:' .. digits(request.periodStart), 'used')
local granted = redis.call('HGET', account, 'granted')
return { used or '0', granted or '0', slots(), digits(raisedBy(base .. 'extras', now)) }
