import { idempotencyMs } from '../../../domain/ledger/idempotency.ts'
import { forgetSlackMs } from '../../../domain/sessions/session.ts'
import { slackMs } from '../key-lifetimes.ts'

/** Overstayed reservations that a new one clears away, before it is said that there is no room. */
const sweptByReserve = 20

/**
 * The script that makes a reservation. ARGV[5..9]: when its period began (Unix ms), what it costs and what a period
 * has (microcredits, '' for no limit), how many may be unfinished, when it overstays (Unix ms). ARGV[10..14]: operation,
 * model, the key's id, 1 if it is refunded when it fails, the day. ARGV[15..18]: where its end is delivered, its idempotency
 * key and fingerprint ('' for none), and since when such keys count. ARGV[19..23], if it has no such key: as in `takeRepeat`,
 * else '' each. ARGV[24..27], if its session has limits of its own: the session's id, the most uses and microcredits ('' for no limit), how long they are kept (ms).
 * What it answers: `granted` and the number, `novelty` and what
 * `earlier` has found, or what it lacks.
 */
export const reservationScripts = {
  reserve: `
local period, cost, limit, slots, lease = ARGV[5], tonumber(ARGV[6]), ARGV[7], tonumber(ARGV[8]), ARGV[9]
local operation, model, key, refundable, day, deliverTo, idem, fingerprint, since = unpack(ARGV, 10)
local print, call, start, alive, dead = unpack(ARGV, 19)
local session, mostUses, mostCredits, lastsMs = unpack(ARGV, 24)
-- Whom sweep would have told is told at its next turn.
local released, lost = sweep(${sweptByReserve})
add(account, 'missedReleased', digits(released))
add(account, 'missedUnknown', digits(lost))
trim(list, 5)

if idem ~= '' then
  local seen = earlier(idem, fingerprint, since)
  if seen then return { 'novelty', unpack(seen) } end
elseif print ~= '' then
  local seen = repeated(print, call, start, alive, dead)
  if seen then return { 'novelty', unpack(seen) } end
end
if redis.call('ZCARD', open) >= slots then return { 'slot' } end
local sessionKey = session and base .. 'session:' .. session
if session then
  local spent = redis.call('HMGET', sessionKey, 'uses', 'credits')
  if mostUses ~= '' and tonumber(spent[1] or '0') + 1 > tonumber(mostUses) then return { 'uses' } end
  if mostCredits ~= '' and tonumber(spent[2] or '0') + cost > tonumber(mostCredits) then return { 'credits' } end
end
local periodKey = base .. 'period:' .. period
local fromPeriod = cost
if limit ~= '' then
  local used = tonumber(redis.call('HGET', periodKey, 'used') or '0')
  fromPeriod = math.min(cost, math.max(0, tonumber(limit) - used))
end
local fromGrants = cost - fromPeriod
local known = redis.call('HMGET', account, 'granted', 'seq', 'period')
if fromGrants > tonumber(known[1] or '0') then return { 'credits' } end

-- Not below the time, so that an account that was forgotten gives no number twice.
local number = digits(math.max(tonumber(known[2] or '0') + 1, now))
redis.call('HSET', account, 'seq', number)
add(account, 'granted', '-' .. digits(fromGrants))
redis.call('HINCRBY', periodKey, 'used', digits(fromPeriod))
redis.call('PEXPIRE', periodKey, keepMs)
local latest = known[3]
if not latest or tonumber(latest) < tonumber(period) then
  redis.call('HSET', account, 'period', period)
  -- Only what is still unfinished gives anything back to it.
  if latest then redis.call('PEXPIRE', base .. 'period:' .. latest, supersededMs) end
end
keepAccount()
local row = base .. 'r:' .. number
redis.call('HSET', row, 'stage', 'reserved', 'operation', operation, 'model', model, 'key', key, 'cost', digits(cost),
  'fromPeriod', digits(fromPeriod), 'fromGrants', digits(fromGrants), 'period', period, 'refundable', refundable,
  'day', day, 'created', digits(now))
redis.call('ZADD', open, lease, number)
if deliverTo ~= '' then
  redis.call('HSET', row, 'url', deliverTo)
  redis.call('ZADD', deliveries, '+inf', number)
  redis.call('PEXPIRE', deliveries, keepMs)
end
if print ~= '' then
  redis.call('HSET', row, 'print', print, 'start', start)
  redis.call('ZADD', base .. 'alike:' .. print, number, number)
  redis.call('PEXPIRE', base .. 'alike:' .. print, ${slackMs})
end
if session then
  redis.call('HSET', row, 'session', session)
  redis.call('HINCRBY', sessionKey, 'uses', '1')
  redis.call('HINCRBY', sessionKey, 'credits', digits(cost))
  redis.call('PEXPIRE', sessionKey, lastsMs)
end
if idem ~= '' then
  redis.call('HSET', row, 'idem', idem)
  local idemKey = base .. 'idem:' .. idem
  redis.call('DEL', idemKey)
  redis.call('HSET', idemKey, 'fingerprint', fingerprint, 'createdAt', digits(now), 'number', number)
  redis.call('PEXPIRE', idemKey, ${idempotencyMs + forgetSlackMs + slackMs})
end
return { 'granted', number }`
} as const
