-- include stages.lua

-- An operator releases one that is unknown. 1: it was done. 0: it is not unknown, or not charged any more.
local it = read(request.number)
if not it or it.stage ~= 'unknown' or it.refunded then return 0 end
giveBack(it, 1)
redis.call('HSET', it.key, 'refunded', '1')
redis.call('ZREM', unknown, it.number)
addUsage(it, 'unknown', '-1')
addUsage(it, 'microcredits', '-' .. it.cost)
freeIdempotencyKey(it)
forgetRepeat(it)
owe(it, 'closed', 0)
return answered(1)
