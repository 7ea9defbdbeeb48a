-- include key.lua

-- Takes a subject off the list of those that may have deliveries, unless it was touched after this instant (Unix ms).
if tonumber(redis.call('ZSCORE', KEYS[1], request.name) or 'inf') ~= request.touchedAt then return 0 end
return redis.call('ZREM', KEYS[1], request.name)
