-- include key.lua

-- Acquires the lease to ask for the status of a task. KEYS[1] is a hash: freeAt, asker while a replica asks, newsAt,
-- and the last answer as status, type and body. What counts are the instants in it, by the clocks of the replicas.
--
-- nil: it is the asker's. Otherwise for how long it is not (ms, 0 while another one asks), and the last answer.

-- Clocks differ by no more than this, ms.
local clockSlackMs = 60000

local now, intervalMs = request.now, request.intervalMs
local freeAt, asker, newsAt, status, contentType, answer = unpack(redis.call('HMGET', KEYS[1],
  'freeAt', 'asker', 'newsAt', 'status', 'type', 'body'))
freeAt, newsAt = freeAt and tonumber(freeAt), newsAt and tonumber(newsAt)
local longestMs = asker and request.endsAt - now or intervalMs
-- What is further off than a lease and a difference of clocks was set before somebody put a clock back.
local isFree = not freeAt or freeAt <= now or freeAt > now + longestMs + clockSlackMs
local mayHaveNews = not newsAt or newsAt + intervalMs <= now or newsAt > now + clockSlackMs
local isUrgent = request.hasNews and not asker and mayHaveNews
if not isFree and not isUrgent then
  return { asker and 0 or math.min(freeAt - now, longestMs), status, contentType, answer }
end
redis.call('HSET', KEYS[1], 'asker', request.asker, 'freeAt', request.endsAt)
if request.hasNews then redis.call('HSET', KEYS[1], 'newsAt', now) end
redis.call('PEXPIRE', KEYS[1], request.keptMs)
return false
