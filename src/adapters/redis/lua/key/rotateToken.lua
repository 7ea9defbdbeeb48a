-- include key.lua

-- Gives a token a new secret; the one before is good for a while (Unix ms). The token; nil if it can not have one.
local token = beside('t:' .. request.id)
local hash, issuedAt, isInvitation, revokedAt, expiresAt = unpack(redis.call('HMGET', token,
  'hash', 'issuedAt', 'isInvitation', 'revokedAt', 'expiresAt'))
if isInvitation ~= '0' or revokedAt or tonumber(expiresAt) <= request.issuedAt then return false end
redis.call('HSET', token, 'previousHash', hash, 'previousIssuedAt', issuedAt,
  'previousUntil', request.previousUntil)
redis.call('HSET', token, 'hash', request.hash, 'issuedAt', request.issuedAt)
return redis.call('HGETALL', token)
