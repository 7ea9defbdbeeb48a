-- include key.lua

-- Notes when a token was used, unless it was used after another instant (Unix ms).
local token = beside('t:' .. request.id)
if redis.call('EXISTS', token) == 0 then return 0 end
if tonumber(redis.call('HGET', token, 'usedAt') or '0') > request.unlessAfter then return 0 end
redis.call('HSET', token, 'usedAt', request.at)
return 1
