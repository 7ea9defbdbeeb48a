-- include subject.lua

-- It is about to be sent. 1: it was done. 0: not from the stage that it is in.
local it = read(request.number)
if not it or (it.stage ~= 'reserved' and it.stage ~= 'sent') then return 0 end
redis.call('HSET', it.key, 'stage', 'sent', 'key', request.keyId)
if request.callbackHash then redis.call('HSETNX', it.key, 'callback', request.callbackHash) end
redis.call('ZADD', open, request.overstaysAt, it.number)
return 1
