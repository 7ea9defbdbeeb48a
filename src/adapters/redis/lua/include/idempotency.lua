-- include subject.lua

-- These find, free and answer idempotency keys.

-- The key that a reservation's idempotency key stands in, unless that is another's by now.
local function idempotencyKeyOf (it)
  if not it.idem then return nil end
  local key = base .. 'idem:' .. it.idem
  if redis.call('HGET', key, 'number') ~= it.number then return nil end
  return key
end

local function freeIdempotencyKey (it)
  local key = idempotencyKeyOf(it)
  if key then redis.call('DEL', key) end
end

-- The first answer stays.
local function keepAnswer (it, answer)
  local key = answer and idempotencyKeyOf(it)
  if key and redis.call('HSETNX', key, 'status', answer.status) == 1 then
    redis.call('HSET', key, 'type', answer.contentType, 'body', body)
  end
end

-- What the first submit with this key has come to, as its kind and what goes with it; nil if there is none.
-- idempotency: key, fingerprint, and since (Unix ms): a key counts that was made after this instant.
local function findEarlier (idempotency)
  local key = base .. 'idem:' .. idempotency.key
  local seen = redis.call('HMGET', key, 'fingerprint', 'createdAt', 'number', 'status', 'type', 'body')
  local fingerprint, createdAt, number, status, contentType, answer = unpack(seen)
  if not fingerprint or tonumber(createdAt) <= idempotency.since then return nil end
  if fingerprint ~= idempotency.fingerprint then return { 'mismatch' } end
  if status then return { 'answered', status, contentType, answer } end
  local stage, task = unpack(redis.call('HMGET', base .. 'r:' .. number, 'stage', 'task'))
  if stage == 'reserved' or stage == 'sent' then return { 'pending' } end
  if task then return { 'task', task } end
  return { 'unknown' }
end
