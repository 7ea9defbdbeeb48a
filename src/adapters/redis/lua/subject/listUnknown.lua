-- include lists.lua

-- From a lowest number on, as Redis writes the end of a range, the oldest first.
trim(unknown, 100)
return rows(redis.call('ZRANGEBYSCORE', unknown, request.from, '+inf', 'LIMIT', 0, request.limit))
