-- include key.lua

-- Notes when a subject is due again (Unix ms); never without dueAt. Not if it was used meanwhile.
if tonumber(redis.call('ZSCORE', beside('used'), request.name) or '0') ~= request.usedAt then return 0 end
if not request.dueAt then return redis.call('ZREM', beside('due'), request.name) end
redis.call('ZADD', beside('due'), request.dueAt, request.name)
return 1
