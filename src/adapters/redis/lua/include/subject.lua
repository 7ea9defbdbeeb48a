-- What all scripts of a subject have in common. Each of them is one atomic step in the subject's slot.
--
-- KEYS[1] is the account, whose name begins with what all keys of the subject begin with:
--
-- account         granted: what is left of grants, seq: the last number, period: the latest one, missed*: see sweep.lua
-- grants          the grants, one after the other
-- period:<start>  used, refunds
-- r:<number>      a reservation
-- open            the numbers of unfinished ones, by their lease
-- list            the numbers of those that are or were claimed or unknown
-- unknown         the numbers of those that are unknown and still charged
-- deliveries      the numbers of those whose end is to be delivered, by when that is due: inf while the task runs
-- abandoned       the numbers of unfinished ones that take no slot: their owner has given them up
-- abandons        the numbers of those that were given up within an hour, by when
-- ends            the task ids of those that have ended in the last minutes, by when
-- idem:<key>      an idempotency key: its reservation's number, and the answer
-- alike:<print>   the numbers of submits without such a key that a submit with this fingerprint may be the repeat of
-- lost            the numbers of those whose caller does not know what came of it, by when that was found
-- replay:<number> the answer of such a one
-- usage:<day>     sums, by what and model
-- session:<id>    uses and credits that a session with limits of its own has taken
-- extras          what its periods are raised by for a time: see extras.lua
-- hold:<name>     the number of the reservation that this hold is of: see holds.ts; `dead`: none, and it stays so
--
-- ARGV[1] is JSON: `now` (Unix ms) and `request`, the script's own fields (`SubjectRequests` in scripts.ts). An absent
-- field is nil. ARGV[2] is the body of an answer, whose bytes JSON can not hold. `terms` (`SubjectTerms` there) are the
-- durations and bounds that all scripts of a store go by: they stand before each script when it is sent to Redis.
--
-- Redis writes whole numbers in full. Lua itself, where it makes a text of one, writes long ones as 1e+15: so `digits`.

local call = cjson.decode(ARGV[1])
local request, now, body = call.request, call.now, ARGV[2]
local account = KEYS[1]
local base = string.sub(account, 1, -8)
local open, list, unknown = base .. 'open', base .. 'list', base .. 'unknown'
local deliveries, ends = base .. 'deliveries', base .. 'ends'
local abandoned = base .. 'abandoned'

local function digits (number) return string.format('%.0f', number) end

local function expire (key, ms) redis.call('PEXPIRE', key, ms) end

local function add (key, field, change)
  if tonumber(change) ~= 0 then redis.call('HINCRBY', key, field, change) end
end

local fields = {
  'stage', 'model', 'task', 'period', 'fromPeriod', 'fromGrants', 'cost', 'refundable', 'refunded', 'day', 'idem',
  'session', 'ended', 'print', 'abandoned', 'hold'
}

-- How many slots are taken.
local function slots () return redis.call('ZCARD', open) - redis.call('SCARD', abandoned) end

-- A reservation that is there and not past its retention.
local function read (number)
  local it = { number = number, key = base .. 'r:' .. number }
  local values = redis.call('HMGET', it.key, unpack(fields))
  for index, name in ipairs(fields) do it[name] = values[index] end
  if not it.stage or (it.ended and tonumber(it.ended) + terms.retentionMs <= now) then return nil end
  return it
end
