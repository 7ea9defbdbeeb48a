import { idempotencyMs } from '../../domain/ledger/idempotency.ts'

/** How long the sums of a day are kept, ms. */
const usageMs = 400 * 86_400_000
/** Keys outlive what stands in them by this, ms: what counts are the instants in them, for the clocks of servers differ. */
export const slackMs = 3_600_000
/** How long a key is kept whose content lasts so long, ms. */
export function keptFor (lastsMs: number): number {
  return Math.max(0, lastsMs) + slackMs
}

/** Overstayed reservations that a new one clears away, before it is said that there is no room. */
const sweptByReserve = 20

/**
 * What all scripts of a subject have in common. Each is one atomic step in the subject's slot.
 *
 * KEYS[1] is the account, whose name begins with what all keys of the subject begin with:
 *
 * account         granted: what is left of grants, seq: the last number, period: the latest one, missed*: see `sweep`
 * grants          the grants, one after the other
 * period:<start>  used, refunds
 * r:<number>      a reservation
 * open            the numbers of unfinished ones, by their lease
 * list            the numbers of those that are or were claimed or unknown
 * unknown         the numbers of those that are unknown and still charged
 * deliveries      the numbers of those whose end is to be delivered, by when that is due: inf while the task runs
 * idem:<key>      an idempotency key: its reservation's number, and the answer
 * usage:<day>     sums, by what and model
 * session:<id>    uses and credits that a session with limits of its own has taken
 *
 * ARGV[1..4]: now (Unix ms); for how long the subject's own keys are kept, what has ended is kept, and a period is kept
 * when a later one has begun (ms). Redis gets every number as a text of digits: Lua prints long ones as 1e+15.
 */
const common = `
local account, now, keepMs, retentionMs, supersededMs = KEYS[1], tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3]), ARGV[4]
local base = string.sub(account, 1, -8)
local open, list, unknown, deliveries = base .. 'open', base .. 'list', base .. 'unknown', base .. 'deliveries'

local function digits (number) return string.format('%.0f', number) end

local fields = { 'stage', 'model', 'task', 'period', 'fromPeriod', 'fromGrants', 'cost', 'refundable', 'refunded', 'day', 'idem', 'session', 'ended' }

-- A reservation that is there and not past its retention.
local function read (number)
  local it = { number = number, key = base .. 'r:' .. number }
  local values = redis.call('HMGET', it.key, unpack(fields))
  for index, name in ipairs(fields) do it[name] = values[index] end
  if not it.stage or (it.ended and tonumber(it.ended) + retentionMs <= now) then return nil end
  return it
end

local function add (key, field, change)
  if tonumber(change) ~= 0 then redis.call('HINCRBY', key, field, change) end
end

local function keepAccount ()
  -- What an operator gave does not end by itself.
  if tonumber(redis.call('HGET', account, 'granted') or '0') > 0 then redis.call('PERSIST', account)
  else redis.call('PEXPIRE', account, keepMs) end
end

-- The uses that go back beside the credits: none of a task that has failed.
local function giveBack (it, uses)
  local period = base .. 'period:' .. it.period
  if redis.call('EXISTS', period) == 1 then add(period, 'used', '-' .. it.fromPeriod) end
  add(account, 'granted', it.fromGrants)
  keepAccount()
  local session = base .. 'session:' .. (it.session or '')
  if redis.call('EXISTS', session) == 0 then return end
  add(session, 'credits', '-' .. it.cost)
  add(session, 'uses', '-' .. uses)
end

local function tally (it, what, change)
  local usage = base .. 'usage:' .. it.day
  add(usage, what .. ':' .. it.model, change)
  redis.call('PEXPIRE', usage, ${usageMs})
end

local function enlist (it)
  if redis.call('ZADD', list, it.number, it.number) == 0 then return end
  redis.call('PEXPIRE', list, keepMs)
  tally(it, 'tasks', '1')
  tally(it, 'microcredits', it.cost)
end

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

local function earlier (idem, fingerprint)
  local key = base .. 'idem:' .. idem
  local seen = redis.call('HMGET', key, 'fingerprint', 'createdAt', 'number', 'status', 'type', 'body')
  if not seen[1] or tonumber(seen[2]) + ${idempotencyMs} <= now then return nil end
  if seen[1] ~= fingerprint then return { 'mismatch' } end
  if seen[4] then return { 'answered', seen[4], seen[5], seen[6] } end
  local stage = redis.call('HGET', base .. 'r:' .. seen[3], 'stage')
  if stage == 'reserved' or stage == 'sent' then return { 'pending' } end
  return { 'unknown' } -- a task whose answer was not kept may have been accepted all the same
end

local function free (it)
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
  redis.call('HSET', it.key, 'stage', 'unknown', 'ended', digits(now))
  endRow(it)
  enlist(it)
  tally(it, 'unknown', '1')
  -- One that was let go, claimed late all the same, and has overstayed is not charged any more.
  if it.refunded then return end
  redis.call('ZADD', unknown, it.number, it.number)
  redis.call('PEXPIRE', unknown, keepMs)
end

local function find (it)
  redis.call('ZREM', unknown, it.number)
  redis.call('HDEL', it.key, 'ended')
  redis.call('PERSIST', it.key)
  tally(it, 'unknown', '-1')
end

local function claim (it, task, lease)
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

-- Takes the oldest numbers off a list whose reservations are past their retention.
local function trim (numbers, most)
  for _, number in ipairs(redis.call('ZRANGE', numbers, 0, most - 1)) do
    if read(number) then return end
    redis.call('ZREM', numbers, number)
    redis.call('DEL', base .. 'r:' .. number)
  end
end

-- What a list shows of each; of one that is past its retention the number alone.
local function rows (numbers)
  local found = {}
  for _, number in ipairs(numbers) do
    local it = read(number)
    table.insert(found, it and { number, unpack(redis.call('HMGET', it.key,
      'stage', 'operation', 'model', 'cost', 'created', 'task', 'state', 'refunded', 'ended')) } or { number })
  end
  return found
end
`

const subjectScripts = {
  reserve: `
local period, cost, limit, slots, lease = ARGV[5], tonumber(ARGV[6]), ARGV[7], tonumber(ARGV[8]), ARGV[9]
local operation, model, key, refundable, day, deliverTo, idem, fingerprint = unpack(ARGV, 10)
local session, mostUses, mostCredits, lastsMs = unpack(ARGV, 18)
-- Whom sweep would have told is told at its next turn.
local released, lost = sweep(${sweptByReserve})
add(account, 'missedReleased', digits(released))
add(account, 'missedUnknown', digits(lost))
trim(list, 5)

if idem ~= '' then
  local seen = earlier(idem, fingerprint)
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
  redis.call('PEXPIRE', idemKey, ${idempotencyMs + slackMs})
end
return { 'granted', number }`,

  send: `
local it = read(ARGV[5])
if not it or (it.stage ~= 'reserved' and it.stage ~= 'sent') then return 0 end
redis.call('HSET', it.key, 'stage', 'sent', 'key', ARGV[6])
if ARGV[8] ~= '' then redis.call('HSETNX', it.key, 'callback', ARGV[8]) end
redis.call('ZADD', open, ARGV[7], it.number)
return 1`,

  claim: `
local it = read(ARGV[5])
local task = ARGV[6]
if not it or (it.task and it.task ~= task) then return 0 end
if not it.task then
  if it.stage ~= 'sent' and it.stage ~= 'unknown' then return 0 end
  claim(it, task, ARGV[7])
end
keepAnswer(it, ARGV[8], ARGV[9], ARGV[10])
return 1`,

  /** Whether the owner of a task id is its owner, or may still become it. */
  mayClaim: `
local it = read(ARGV[5])
if not it or (it.task and it.task ~= ARGV[6]) then return 0 end
return 1`,

  release: `
local it = read(ARGV[5])
if not it or (it.stage ~= 'reserved' and it.stage ~= 'sent') then return 0 end
if ARGV[6] == '' then freeIdem(it) else keepAnswer(it, ARGV[6], ARGV[7], ARGV[8]) end
free(it)
return 1`,

  lose: `
local it = read(ARGV[5])
if not it or it.stage ~= 'sent' then return 0 end
lose(it)
return 1`,

  settle: `
local it = read(ARGV[5])
local task, state, mostRefunds = ARGV[6], ARGV[7], tonumber(ARGV[9])
if not it or (it.task and it.task ~= task) or it.stage == 'settled' or it.stage == 'reserved' then return 0 end
-- Its owner was written, and then whoever was about to claim it died.
if not it.task then claim(it, task, digits(now)) end
if it.stage == 'unknown' then find(it) end
redis.call('HSET', it.key, 'stage', 'settled', 'ended', digits(now), 'state', state, 'answer', ARGV[8])
endRow(it)
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

  letGo: `
local it = read(ARGV[5])
if not it or it.stage ~= 'unknown' or it.refunded then return 0 end
giveBack(it, 1)
redis.call('HSET', it.key, 'refunded', '1')
redis.call('ZREM', unknown, it.number)
tally(it, 'microcredits', '-' .. it.cost)
freeIdem(it)
return 1`,

  sweep: `
local released, lost = sweep(tonumber(ARGV[5]))
local missed = redis.call('HMGET', account, 'missedReleased', 'missedUnknown')
if missed[1] or missed[2] then redis.call('HDEL', account, 'missedReleased', 'missedUnknown') end
local _, first = unpack(redis.call('ZRANGE', open, 0, 0, 'WITHSCORES'))
return { released + tonumber(missed[1] or '0'), lost + tonumber(missed[2] or '0'), first or '' }`,

  dueDeliveries: `
-- Of those that never became due nobody else takes off the ones that are gone.
for _, number in ipairs(redis.call('ZRANGEBYSCORE', deliveries, '+inf', '+inf', 'LIMIT', 0, 20)) do
  if not read(number) then redis.call('ZREM', deliveries, number) end
end
local found = {}
for _, number in ipairs(redis.call('ZRANGEBYSCORE', deliveries, '-inf', digits(now), 'LIMIT', 0, ARGV[5])) do
  local it = read(number)
  if it then
    local answer, url, attempts = unpack(redis.call('HMGET', it.key, 'answer', 'url', 'attempts'))
    table.insert(found, { it.task, answer, url, attempts, redis.call('ZSCORE', deliveries, number) })
  else
    redis.call('ZREM', deliveries, number)
  end
end
return { redis.call('ZCARD', deliveries), found }`,

  deliveryOf: `
local it = read(ARGV[5])
if not it or it.task ~= ARGV[6] then return {} end
local url, attempts = unpack(redis.call('HMGET', it.key, 'url', 'attempts'))
if not url then return {} end
return { url, attempts, redis.call('ZSCORE', deliveries, it.number) }`,

  noteAttempt: `
local it = read(ARGV[5])
if not it or it.task ~= ARGV[6] then return 0 end
redis.call('HSET', it.key, 'attempts', (redis.call('HGET', it.key, 'attempts') or '') .. ARGV[7] .. '\\n')
if ARGV[8] == '' then redis.call('ZREM', deliveries, it.number)
else redis.call('ZADD', deliveries, 'XX', ARGV[8], it.number) end
return 1`,

  tidy: `
trim(list, 100)
trim(unknown, 100)
return redis.call('ZCARD', open) + redis.call('ZCARD', unknown)`,

  earlier: 'return earlier(ARGV[5], ARGV[6]) or {}',

  balance: `
return { redis.call('HGET', base .. 'period:' .. ARGV[5], 'used') or '0', redis.call('HGET', account, 'granted') or '0',
  redis.call('ZCARD', open) }`,

  spent: `
return { redis.call('HGET', base .. 'session:' .. ARGV[5], 'uses') or '0',
  redis.call('HGET', base .. 'session:' .. ARGV[5], 'credits') or '0' }`,

  grant: `
redis.call('HINCRBY', account, 'granted', ARGV[5])
redis.call('RPUSH', base .. 'grants', digits(now) .. ' ' .. ARGV[5])
keepAccount()
return redis.call('HGET', account, 'granted')`,

  unfinished: `
local numbers, found = redis.call('ZRANGE', open, 0, -1), {}
table.sort(numbers, function (one, other) return tonumber(one) < tonumber(other) end)
for _, number in ipairs(numbers) do
  if #found >= tonumber(ARGV[7]) then break end
  if tonumber(number) > tonumber(ARGV[5]) then
    local row = redis.call('HMGET', base .. 'r:' .. number, 'stage', 'created', 'operation', 'model', 'key', 'cost', 'task')
    if row[1] == 'claimed' and tonumber(row[2]) <= tonumber(ARGV[6]) then table.insert(found, { number, unpack(row) }) end
  end
end
return found`,

  list: "return rows(redis.call('ZREVRANGEBYSCORE', list, ARGV[5], '-inf', 'LIMIT', 0, ARGV[6]))",

  listUnknown: `
trim(unknown, 100)
return rows(redis.call('ZRANGEBYSCORE', unknown, ARGV[5], '+inf', 'LIMIT', 0, ARGV[6]))`
} as const

export type SubjectScript = keyof typeof subjectScripts

export const subjectLua = Object.fromEntries(
  Object.entries(subjectScripts).map(([name, lua]) => [name, common + lua])) as Readonly<Record<SubjectScript, string>>
