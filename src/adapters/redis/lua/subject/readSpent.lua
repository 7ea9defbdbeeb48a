-- include subject.lua

-- The uses and credits that a session with limits of its own has taken.
local uses, credits = unpack(redis.call('HMGET', base .. 'session:' .. request.sessionId, 'uses', 'credits'))
return { uses or '0', credits or '0' }
