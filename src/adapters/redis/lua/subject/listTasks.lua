-- include lists.lua

-- From a highest number on, as Redis writes the end of a range, the newest first.
return rows(redis.call('ZREVRANGEBYSCORE', list, request.from, '-inf', 'LIMIT', 0, request.limit))
