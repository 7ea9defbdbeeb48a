import { idempotencyMs } from '../../../domain/ledger.ts'
import { endsKeptMs } from '../../../domain/records.ts'
import { forgetSlackMs } from '../../../domain/session.ts'
import { slackMs } from '../keys.ts'

/** Overstayed reservations that a new one clears away, before it is said that there is no room. */
const sweptByReserve = 20

/**
 * The script that makes a reservation. ARGV[5..9]: when its period began (Unix ms), what it costs and what a period
 * has (microcredits, '' for no limit), how many may be unfinished, when it overstays (Unix ms). ARGV[10..14]:
 * operation,
 * model, the key's id, 1 if it is refunded when it fails, the day. ARGV[15..18]: where its end is delivered, its
 * idempotency
 * key and fingerprint ('' for none), and since when such keys count. ARGV[19..23], if it has no such key: as in
 * `takeRepeat`,
 * else '' each. ARGV[24..27], if its session has limits of its own: the session's id, the most uses and microcredits
 * ('' for no limit), how long they are kept (ms).
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

/** Lua that takes a reservation from one stage to the next. */
export const stageFunctions = `
local function free (it)
  forgetRepeat(it)
  giveBack(it, 1)
  redis.call('ZREM', open, it.number)
  redis.call('ZREM', deliveries, it.number)
  redis.call('DEL', it.key)
end

local function endRow (it)
  redis.call('ZREM', open, it.number)
  redis.call('PEXPIRE', it.key, digits(retentionMs + ${slackMs}))
end

local function lose (it)
  if it.print and it.stage == 'sent' then remindFrom(it) else forgetRepeat(it) end
  redis.call('HSET', it.key, 'stage', 'unknown', 'ended', digits(now))
  endRow(it)
  enlist(it)
  -- One that was let go, claimed late all the same, and has overstayed is not charged any more.
  if it.refunded then return end
  tally(it, 'unknown', '1')
  redis.call('ZADD', unknown, it.number, it.number)
  redis.call('PEXPIRE', unknown, keepMs)
end

local function find (it)
  redis.call('ZREM', unknown, it.number)
  redis.call('HDEL', it.key, 'ended')
  redis.call('PERSIST', it.key)
  if not it.refunded then tally(it, 'unknown', '-1') end
end

local function claim (it, task, lease)
  if it.print then
    redis.call('HSET', it.key, 'claimed', digits(now))
    if it.stage == 'unknown' or redis.call('HEXISTS', it.key, 'gone') == 1 then remindFrom(it) end
  end
  if it.stage == 'unknown' then find(it) end
  redis.call('HSET', it.key, 'stage', 'claimed', 'task', task)
  redis.call('ZADD', open, lease, it.number)
  enlist(it)
  keepAccount()
  it.stage, it.task = 'claimed', task
end

local function sweep (most)
  local released, lost = 0, 0
  for _, number in ipairs(redis.call('ZRANGEBYSCORE', open, '-inf', digits(now), 'LIMIT', 0, most)) do
    local it = read(number)
    if not it then
      redis.call('ZREM', open, number)
    elseif it.stage == 'reserved' then
      freeIdem(it)
      free(it)
      released = released + 1
    else
      lose(it)
      lost = lost + 1
    end
  end
  return released, lost
end
`

/**
 * Scripts of a reservation's life after it was made. ARGV[5] is its number, but for `sweep`. What they
 * answer: 1, it was done; 0, not from the stage that it is in.
 */
export const stageScripts = {
  /** ARGV[6..8]: a key's id, when it overstays (Unix ms), the hash of a callback's secret or ''. */
  send: `
local it = read(ARGV[5])
if not it or (it.stage ~= 'reserved' and it.stage ~= 'sent') then return 0 end
redis.call('HSET', it.key, 'stage', 'sent', 'key', ARGV[6])
if ARGV[8] ~= '' then redis.call('HSETNX', it.key, 'callback', ARGV[8]) end
redis.call('ZADD', open, ARGV[7], it.number)
return 1`,

  /** ARGV[6..10]: a task id, when it overstays (Unix ms), and its answer as status, type and body, or '' thrice. */
  claim: `
local it = read(ARGV[5])
local task = ARGV[6]
if not it or (it.task and it.task ~= task) then return 0 end
if not it.task then
  if it.stage ~= 'sent' and it.stage ~= 'unknown' then return 0 end
  claim(it, task, ARGV[7])
end
keepAnswer(it, ARGV[8], ARGV[9], ARGV[10])
keepReplay(it, ARGV[8], ARGV[9], ARGV[10])
return done()`,

  /** ARGV[6]: a task id. Whether its owner is its owner, or may still become it. */
  mayClaim: `
local it = read(ARGV[5])
if not it or (it.task and it.task ~= ARGV[6]) then return 0 end
return 1`,

  /** ARGV[6..8]: an answer, as in `claim`. */
  release: `
local it = read(ARGV[5])
if not it or (it.stage ~= 'reserved' and it.stage ~= 'sent') then return 0 end
if ARGV[6] == '' then freeIdem(it) else keepAnswer(it, ARGV[6], ARGV[7], ARGV[8]) end
free(it)
return 1`,

  /** Its outcome is unknown. */
  lose: `
local it = read(ARGV[5])
if not it or it.stage ~= 'sent' then return 0 end
lose(it)
return done()`,

  /** ARGV[6]: a task id. Nobody can find out how it ends. */
  giveUp: `
local it = read(ARGV[5])
if not it or it.stage ~= 'claimed' or it.task ~= ARGV[6] then return 0 end
lose(it)
return 1`,

  /** ARGV[6..9]: a task id, how it ended, the answer that says so, how many refunds a period has. */
  settle: `
local it = read(ARGV[5])
local task, state, mostRefunds = ARGV[6], ARGV[7], tonumber(ARGV[9])
if not it or (it.task and it.task ~= task) or it.stage == 'settled' or it.stage == 'reserved' then return 0 end
-- Its owner was written, and then whoever was about to claim it died.
if not it.task then claim(it, task, digits(now)) end
if it.stage == 'unknown' then find(it) end
redis.call('HSET', it.key, 'stage', 'settled', 'ended', digits(now), 'state', state, 'answer', ARGV[8])
endRow(it)
redis.call('ZADD', ends, digits(now), task)
redis.call('ZREMRANGEBYSCORE', ends, '-inf', digits(now - ${endsKeptMs}))
redis.call('PEXPIRE', ends, ${endsKeptMs + slackMs})
redis.call('ZADD', deliveries, 'XX', digits(now), it.number)
tally(it, state == 'success' and 'succeeded' or 'failed', '1')
if state ~= 'failed' or it.refundable ~= '1' or it.refunded then return 1 end
local period = base .. 'period:' .. it.period
if tonumber(redis.call('HGET', period, 'refunds') or '0') >= mostRefunds then return 1 end
if redis.call('EXISTS', period) == 1 then redis.call('HINCRBY', period, 'refunds', '1') end
giveBack(it, 0)
redis.call('HSET', it.key, 'refunded', '1')
tally(it, 'microcredits', '-' .. it.cost)
return 1`,

  /** An operator lets one go that is unknown. */
  letGo: `
local it = read(ARGV[5])
if not it or it.stage ~= 'unknown' or it.refunded then return 0 end
giveBack(it, 1)
redis.call('HSET', it.key, 'refunded', '1')
redis.call('ZREM', unknown, it.number)
tally(it, 'unknown', '-1')
tally(it, 'microcredits', '-' .. it.cost)
freeIdem(it)
forgetRepeat(it)
return 1`,

  /**
   * ARGV[5]: how many at the most. Reservations released, those lost, when the next overstays (Unix ms, '' for never).
   */
  sweep: `
local released, lost = sweep(tonumber(ARGV[5]))
local missed = redis.call('HMGET', account, 'missedReleased', 'missedUnknown')
if missed[1] or missed[2] then redis.call('HDEL', account, 'missedReleased', 'missedUnknown') end
local _, first = unpack(redis.call('ZRANGE', open, 0, 0, 'WITHSCORES'))
return { released + tonumber(missed[1] or '0'), lost + tonumber(missed[2] or '0'), first or '' }`
} as const
