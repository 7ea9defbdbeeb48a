import { auditRetentionMs } from '../../../domain/audit.ts'
import { tokenScripts, turnScripts } from './records.ts'

/**
 * Entries of the audit trail that are kept of what callers do, and as many refusals, about: Redis drops whole nodes.
 */
const auditEntries = 100_000

/** Scripts that need it find a key in the same slot, by another last word. */
const common = `
local function beside (word) return (string.gsub(KEYS[1], '[^:]*$', word, 1)) end
`

const sharedScripts = {
  ...tokenScripts,
  ...turnScripts,

  /** ARGV: who owns it, how long that is kept (ms), whom it may be taken from. The owner, if it is somebody else. */
  own: `
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] and owner ~= ARGV[3] then return owner end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return false`,

  /** ARGV: the value that is to go. */
  disown: `
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])`,

  /** ARGV: the name of a replica, how long it leads when nobody else does (ms). */
  lead: `
local leader = redis.call('GET', KEYS[1])
if leader and leader ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1`,

  /** ARGV: a name, now, when something of it may overstay (Unix ms). See ../busy-subjects.ts. */
  noteBusy: `
local used, due = beside('used'), beside('due')
redis.call('ZADD', KEYS[1], 0, ARGV[1])
redis.call('ZADD', used, ARGV[2], ARGV[1])
local known = redis.call('ZSCORE', due, ARGV[1])
if not known or tonumber(known) > tonumber(ARGV[3]) then redis.call('ZADD', due, ARGV[3], ARGV[1]) end
return 1`,

  /** ARGV: now (Unix ms), how many at the most. Those that are due: a name, when it was used, and so on. */
  due: `
local found = {}
for _, name in ipairs(redis.call('ZRANGEBYSCORE', beside('due'), '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])) do
  table.insert(found, name)
  table.insert(found, redis.call('ZSCORE', beside('used'), name) or '0')
end
return found`,

  /** ARGV: a name, when it was used, when it is due again ('' for never). Not if it was used meanwhile. */
  postpone: `
if tonumber(redis.call('ZSCORE', beside('used'), ARGV[1]) or '0') ~= tonumber(ARGV[2]) then return 0 end
if ARGV[3] == '' then return redis.call('ZREM', beside('due'), ARGV[1]) end
redis.call('ZADD', beside('due'), ARGV[3], ARGV[1])
return 1`,

  /** ARGV: since when it may have been used by nobody (Unix ms), how many at the most. */
  idle: `
return redis.call('ZRANGEBYSCORE', beside('used'), '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])`,

  /** ARGV: a name, as in `idle`. */
  forgetBusy: `
if tonumber(redis.call('ZSCORE', beside('used'), ARGV[1]) or 'inf') > tonumber(ARGV[2]) then return 0 end
redis.call('ZREM', beside('used'), ARGV[1])
redis.call('ZREM', beside('due'), ARGV[1])
return redis.call('ZREM', KEYS[1], ARGV[1])`,

  /** ARGV: a number that takes the place of a smaller one, how long it is kept (ms). */
  raise: `
local known = redis.call('GET', KEYS[1])
if known and tonumber(known) > tonumber(ARGV[1]) then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', math.max(tonumber(ARGV[2]), redis.call('PTTL', KEYS[1])))
return 1`,

  /** ARGV: how many there is room for, how long that holds (ms). 0, or how long there is no room (ms). */
  take: `
if tonumber(redis.call('GET', KEYS[1]) or '0') >= tonumber(ARGV[1]) then return math.max(1, redis.call('PTTL', KEYS[1])) end
if redis.call('INCR', KEYS[1]) == 1 then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 0`,

  /** Undoes one `take` that has counted. */
  putBack: `
if tonumber(redis.call('GET', KEYS[1]) or '0') > 0 then redis.call('DECR', KEYS[1]) end
return 0`,

  /** ARGV: how long a window lasts (ms). How often was counted in the one that is open, and when it ends (in ms). */
  hitRate: `
local count = redis.call('INCR', KEYS[1])
if count == 1 then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
return { count, redis.call('PTTL', KEYS[1]) }`,

  /** The same without counting. */
  lookAtRate: `
local count = redis.call('GET', KEYS[1])
if not count then return { 0, 0 } end
return { tonumber(count), redis.call('PTTL', KEYS[1]) }`,

  /** ARGV: a name, now (Unix ms), how long the list is kept (ms). See ../deliveries.ts. */
  noteDeliveries: `
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
return redis.call('PEXPIRE', KEYS[1], ARGV[3])`,

  /** ARGV: a name, and when it was noted as far as is known. Not if it was noted meanwhile. */
  forgetNoted: `
if tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or 'inf') ~= tonumber(ARGV[2]) then return 0 end
return redis.call('ZREM', KEYS[1], ARGV[1])`,

  /** KEYS[1] is a channel. ARGV: a message. */
  announce: `
return redis.call('PUBLISH', KEYS[1], ARGV[1])`,

  /**
   * KEYS[1] is the part of the sessions. ARGV: parts and entries, by turns. Each part is a stream of its own, so that
   * one that
   * fills up pushes nothing out of the others; over all of them ids only grow, and say in which order things were done.
   */
  append: `
local function stream (part)
  if part == 'sessions' then return KEYS[1] end
  return (string.gsub(KEYS[1], ':[^:]*$', '', 1)) .. ':{' .. KEYS[1] .. '}:' .. part
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ms, number = now, -1
for _, part in ipairs({ 'sessions', 'operator', 'refusals' }) do
  local last = redis.call('XREVRANGE', stream(part), '+', '-', 'COUNT', 1)[1]
  if last then
    local lastMs, lastNumber = string.match(last[1], '(%d+)-(%d+)')
    lastMs, lastNumber = tonumber(lastMs), tonumber(lastNumber)
    if lastMs > ms or (lastMs == ms and lastNumber > number) then ms, number = lastMs, lastNumber end
  end
end
for index = 1, #ARGV, 2 do
  local part = ARGV[index]
  number = number + 1
  local id = string.format('%.0f-%.0f', ms, number)
  if part == 'operator' then
    redis.call('XADD', stream(part), 'MINID', '~', string.format('%.0f', math.max(0, now - ${auditRetentionMs})), id, 'entry', ARGV[index + 1])
  else
    redis.call('XADD', stream(part), 'MAXLEN', '~', ${auditEntries}, id, 'entry', ARGV[index + 1])
  end
end
return #ARGV / 2`
} as const

export type SharedScript = keyof typeof sharedScripts

/** The scripts beside those of a subject; each is one atomic step in the slot of KEYS[1]. */
export const sharedLua = Object.fromEntries(
  Object.entries(sharedScripts).map(([name, lua]) => [name, common + lua])) as Readonly<Record<SharedScript, string>>
