-- include key.lua

-- Subjects that were not used since an instant (Unix ms), so many at the most.
return redis.call('ZRANGEBYSCORE', beside('used'), '-inf', request.usedBy, 'LIMIT', 0, request.limit)
