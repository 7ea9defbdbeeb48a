-- include stages.lua

-- Its owner gives a task up that runs: its slot is free. { 'abandoned', since when }; { 'ended' }: it takes no slot;
-- { 'limited', and when the subject may again }. Instants are Unix ms.
local abandons, hourMs = base .. 'abandons', 3600000
local it = read(request.number)
if not it or (it.task and it.task ~= request.task) then return { 'ended' } end
-- Its owner was written, and then the replica that was about to claim it died.
if it.stage == 'sent' then claim(it, request.task, request.overstaysAt) end
if it.stage ~= 'claimed' then return { 'ended' } end
if it.abandoned then return { 'abandoned', it.abandoned } end
redis.call('ZREMRANGEBYSCORE', abandons, '-inf', now - hourMs)
local nth = redis.call('ZREVRANGE', abandons, request.mostPerHour - 1, request.mostPerHour - 1, 'WITHSCORES')[2]
if nth then return { 'limited', digits(tonumber(nth) + hourMs) } end
redis.call('HSET', it.key, 'abandoned', now)
redis.call('SADD', abandoned, it.number)
redis.call('ZADD', abandons, now, it.number)
expire(abandons, hourMs + terms.slackMs)
return { 'abandoned', digits(now) }
