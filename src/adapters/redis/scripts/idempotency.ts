/** Lua that finds, frees and answers idempotency keys. */
export const idempotencyFunctions = `
-- The idempotency key of a reservation, unless it is another's by now.
local function idemOf (it)
  if not it.idem then return nil end
  local key = base .. 'idem:' .. it.idem
  if redis.call('HGET', key, 'number') ~= it.number then return nil end
  return key
end

local function freeIdem (it)
  local key = idemOf(it)
  if key then redis.call('DEL', key) end
end

-- The first answer stays.
local function keepAnswer (it, status, contentType, body)
  local key = status ~= '' and idemOf(it)
  if key and redis.call('HSETNX', key, 'status', status) == 1 then
    redis.call('HSET', key, 'type', contentType, 'body', body)
  end
end

-- since: the oldest one that counts was made after this instant (Unix ms), by a clock that is not put ahead.
local function earlier (idem, fingerprint, since)
  local key = base .. 'idem:' .. idem
  local seen = redis.call('HMGET', key, 'fingerprint', 'createdAt', 'number', 'status', 'type', 'body')
  if not seen[1] or tonumber(seen[2]) <= tonumber(since) then return nil end
  if seen[1] ~= fingerprint then return { 'mismatch' } end
  if seen[4] then return { 'answered', seen[4], seen[5], seen[6] } end
  local row = redis.call('HMGET', base .. 'r:' .. seen[3], 'stage', 'task')
  if row[1] == 'reserved' or row[1] == 'sent' then return { 'pending' } end
  if row[2] then return { 'task', row[2] } end
  return { 'unknown' }
end
`

/** The script of idempotency keys; those of the ledger write them. */
export const idempotencyScripts = {
  /** ARGV[5..7]: a key, a fingerprint, and since when it counts. What `Earlier` says, as its kind and the answer as status, type and body; or nothing. */
  earlier: 'return earlier(ARGV[5], ARGV[6], ARGV[7]) or {}'
} as const
