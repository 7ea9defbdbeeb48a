-- include holds.lua

-- An account as it is at one instant: its holds with what each has taken, one after the other; the names of those that
-- run; and what is used of `request.windows`, in their order.
local used = {}
for _, window in ipairs(request.windows) do table.insert(used, redis.call('GET', usedKey(window))) end
return { redis.call('HGETALL', taken), redis.call('ZRANGE', open, 0, -1), used }
