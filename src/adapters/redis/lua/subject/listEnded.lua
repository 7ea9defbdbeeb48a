-- include subject.lua

-- Task ids and when each has ended, in the order of `ends`, after this task that has ended then (Unix ms).
local since, skipped = request.endedAt, 0
for index, task in ipairs(redis.call('ZRANGEBYSCORE', ends, since, since)) do
  if task == request.task then skipped = index end
end
return redis.call('ZRANGEBYSCORE', ends, since, '+inf', 'WITHSCORES', 'LIMIT', skipped, request.limit)
