-- include holds.lua

-- How many unfinished reservations have a hold; of a window, if one is named, what is used and by what it is raised.
if not request.window then return { redis.call('ZCARD', open) } end
local used = redis.call('GET', usedKey(request.window)) or '0'
return { redis.call('ZCARD', open), used, digits(raised(request.isPrepaid)) }
