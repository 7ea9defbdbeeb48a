-- include subject.lua

-- Adds an attempt, a line, to the delivery of a task, and says when the next one is due; never without nextAt.
local it = read(request.number)
if not it or it.task ~= request.task then return 0 end
local attempts = redis.call('HGET', it.key, 'attempts') or ''
redis.call('HSET', it.key, 'attempts', attempts .. request.attempt .. '\n')
if request.nextAt then
  redis.call('ZADD', deliveries, 'XX', request.nextAt, it.number)
else
  redis.call('ZREM', deliveries, it.number)
end
return 1
