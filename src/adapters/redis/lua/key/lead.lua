-- include key.lua

-- 1: this replica leads, for a while (ms). 0: another one does.
local leader = redis.call('GET', KEYS[1])
if leader and leader ~= request.replica then return 0 end
redis.call('SET', KEYS[1], request.replica, 'PX', request.leaseMs)
return 1
