-- include key.lua

-- Takes a subject off the lists, unless it was used since an instant (Unix ms).
if tonumber(redis.call('ZSCORE', beside('used'), request.name) or 'inf') > request.usedBy then return 0 end
redis.call('ZREM', beside('used'), request.name)
redis.call('ZREM', beside('due'), request.name)
return redis.call('ZREM', KEYS[1], request.name)
