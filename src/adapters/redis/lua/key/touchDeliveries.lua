-- include key.lua

-- Notes that a subject may have deliveries. See redisDeliveries in records.ts.
redis.call('ZADD', KEYS[1], request.now, request.name)
return redis.call('PEXPIRE', KEYS[1], request.keptMs)
