-- include subject.lua

-- The delivery of a task: URL, attempts, when it is due; nothing when there is none.
local it = read(request.number)
if not it or it.task ~= request.task then return {} end
local url, attempts = unpack(redis.call('HMGET', it.key, 'url', 'attempts'))
if not url then return {} end
return { url, attempts, redis.call('ZSCORE', deliveries, it.number) }
