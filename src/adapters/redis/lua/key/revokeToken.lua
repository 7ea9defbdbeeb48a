-- include key.lua

-- The first instant (Unix ms) stays. 0: there is no such token.
local token = beside('t:' .. request.id)
if redis.call('EXISTS', token) == 0 then return 0 end
redis.call('HSETNX', token, 'revokedAt', request.at)
return 1
