-- include key.lua

-- Makes a token of an invitation. The token; nil if it is no such invitation, or none any more.
local token = beside('t:' .. request.id)
local hash, isInvitation, revokedAt, expiresAt, ttlMs = unpack(redis.call('HMGET', token,
  'hash', 'isInvitation', 'revokedAt', 'expiresAt', 'ttlMs'))
if hash ~= request.invitation or isInvitation ~= '1' or revokedAt then return false end
if tonumber(expiresAt) <= request.issuedAt then return false end
redis.call('HSET', token, 'isInvitation', '0', 'hash', request.hash, 'issuedAt', request.issuedAt,
  'expiresAt', request.issuedAt + tonumber(ttlMs))
redis.call('PEXPIRE', token, tonumber(ttlMs) + request.keptAfterMs)
return redis.call('HGETALL', token)
