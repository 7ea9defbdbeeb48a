import { endsKeptMs } from '../../../domain/ledger/records.ts'
import { slackMs } from '../key-lifetimes.ts'

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

  /** ARGV[5]: how many at the most. Reservations released, those lost, when the next overstays (Unix ms, '' for never). */
  sweep: `
local released, lost = sweep(tonumber(ARGV[5]))
local missed = redis.call('HMGET', account, 'missedReleased', 'missedUnknown')
if missed[1] or missed[2] then redis.call('HDEL', account, 'missedReleased', 'missedUnknown') end
local _, first = unpack(redis.call('ZRANGE', open, 0, 0, 'WITHSCORES'))
return { released + tonumber(missed[1] or '0'), lost + tonumber(missed[2] or '0'), first or '' }`
} as const
