import { creditFunctions, creditScripts } from './credits.ts'
import { deliveryScripts } from './deliveries.ts'
import { idempotencyFunctions, idempotencyScripts } from './idempotency.ts'
import { listFunctions, listScripts } from './lists.ts'
import { repeatedFunctions, repeatFunctions, repeatScripts } from './repeats.ts'
import { reservationScripts } from './reservations.ts'
import { stageFunctions, stageScripts } from './stages.ts'

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
const functions = [common, creditFunctions, idempotencyFunctions, repeatFunctions, stageFunctions, repeatedFunctions, listFunctions].join('')

export type SubjectScript = keyof typeof subjectScripts

/** The scripts of a subject. */
export const subjectLua = Object.fromEntries(
  Object.entries(subjectScripts).map(([name, lua]) => [name, functions + lua])) as Readonly<Record<SubjectScript, string>>
