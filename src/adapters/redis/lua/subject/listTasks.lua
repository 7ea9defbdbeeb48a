-- include lists.lua

-- From a highest number on down to a lowest, as Redis writes the ends of a range, the newest first.
return rows(redis.call('ZREVRANGEBYSCORE', list, request.from, request.above, 'LIMIT', 0, request.limit))
