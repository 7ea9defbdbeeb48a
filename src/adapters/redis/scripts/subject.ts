import { deliveryScripts } from './records.ts'
import { repeatedFunctions, repeatFunctions, repeatScripts } from './repeats.ts'
import { reservationScripts, stageFunctions, stageScripts } from './reservations.ts'

/** How long the sums of a day are kept, ms. */
const usageMs = 400 * 86_400_000

/** Lua by which a reservation's credits and uses go back, and its day's sums are kept. */
export const creditFunctions = `
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
`

/** Scripts of what a subject may spend, and has spent. */
export const creditScripts = {
  /**
   * ARGV[5]: when a period began (Unix ms). What is used of it, what is left of grants, how many tasks are unfinished.
   */
  balance: `
return { redis.call('HGET', base .. 'period:' .. ARGV[5], 'used') or '0', redis.call('HGET', account, 'granted') or '0',
  redis.call('ZCARD', open) }`,

  /** ARGV[5]: the id of a session with limits of its own. Its uses and credits. */
  spent: `
return { redis.call('HGET', base .. 'session:' .. ARGV[5], 'uses') or '0',
  redis.call('HGET', base .. 'session:' .. ARGV[5], 'credits') or '0' }`,

  /** ARGV[5]: microcredits. What is left of grants with them; nil when that could not be counted. */
  grant: `
if tonumber(redis.call('HGET', account, 'granted') or '0') + tonumber(ARGV[5]) > ${Number.MAX_SAFE_INTEGER} then return false end
redis.call('HINCRBY', account, 'granted', ARGV[5])
redis.call('RPUSH', base .. 'grants', digits(now) .. ' ' .. ARGV[5])
keepAccount()
return redis.call('HGET', account, 'granted')`
} as const

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
  /**
   * ARGV[5..7]: a key, a fingerprint, and since when it counts. What `Earlier` says, as its kind and the answer as
   * status, type and body; or nothing.
   */
  earlier: 'return earlier(ARGV[5], ARGV[6], ARGV[7]) or {}'
} as const

/** Lua of the lists that a subject's reservations stand in. */
export const listFunctions = `
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

/** Scripts that walk over the reservations of a subject. A row is a number, and what stands in it. */
export const listScripts = {
  /**
   * ARGV[5..7]: the number that they come after, the latest time that they were made at (Unix ms), how many at the
   * most.
   */
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

  /** ARGV[5..6]: the highest number, as Redis writes the end of a range, how many at the most. The newest first. */
  list: "return rows(redis.call('ZREVRANGEBYSCORE', list, ARGV[5], '-inf', 'LIMIT', 0, ARGV[6]))",

  /**
   * ARGV[5..7]: a time (Unix ms), a task id, how many at the most. Task ids and when each has ended, in the order of
   * `ends`.
   */
  endsAfter: `
local skipped = 0
for index, task in ipairs(redis.call('ZRANGEBYSCORE', ends, ARGV[5], ARGV[5])) do
  if task == ARGV[6] then skipped = index end
end
return redis.call('ZRANGEBYSCORE', ends, ARGV[5], '+inf', 'WITHSCORES', 'LIMIT', skipped, ARGV[7])`,

  /** ARGV[5..6]: the lowest number, as in `list`, how many at the most. The oldest first. */
  listUnknown: `
trim(unknown, 100)
return rows(redis.call('ZRANGEBYSCORE', unknown, ARGV[5], '+inf', 'LIMIT', 0, ARGV[6]))`,

  /** Clears away what is past its retention. How many there are that something may still become of. */
  tidy: `
trim(list, 100)
trim(unknown, 100)
return redis.call('ZCARD', open) + redis.call('ZCARD', unknown)`
} as const

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
 * ends            the task ids of those that have ended lately, by when
 * idem:<key>      an idempotency key: its reservation's number, and the answer
 * alike:<print>   the numbers of submits without such a key that a submit with this fingerprint may be the repeat of
 * lost            the numbers of those whose caller does not know what came of it, by when that was found
 * replay:<number> the answer of such a one
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
local ends = base .. 'ends'

local function digits (number) return string.format('%.0f', number) end

local fields = { 'stage', 'model', 'task', 'period', 'fromPeriod', 'fromGrants', 'cost', 'refundable', 'refunded', 'day', 'idem', 'session', 'ended', 'print' }

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
`

const subjectScripts = {
  ...reservationScripts,
  ...stageScripts,
  ...deliveryScripts,
  ...idempotencyScripts,
  ...repeatScripts,
  ...creditScripts,
  ...listScripts
} as const

/** The later ones call the earlier ones. */
const functions = [
  common,
  creditFunctions,
  idempotencyFunctions,
  repeatFunctions,
  stageFunctions,
  repeatedFunctions,
  listFunctions
].join('')

export type SubjectScript = keyof typeof subjectScripts

/** The scripts of a subject. */
export const subjectLua = Object.fromEntries(
  Object.entries(subjectScripts).map(([name, lua]) => [name, functions + lua])
) as Readonly<Record<SubjectScript, string>>
