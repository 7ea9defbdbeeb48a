import { maxRepeats, repeatMs } from '../../../domain/ledger.ts'
import { deadMs, slackMs } from '../keys.ts'

/** Of those that are remembered, so many of the oldest are looked through before it is said that there are too many. */
const trimmedAtOnce = 5

/** Lua that remembers and forgets submits without an idempotency key; the stages of a reservation call it. */
export const repeatFunctions = `
local lost = base .. 'lost'
local isCrowded = false

local function forgetRepeat (it)
  if not it.print then return end
  redis.call('ZREM', base .. 'alike:' .. it.print, it.number)
  redis.call('ZREM', lost, it.number)
  redis.call('DEL', base .. 'replay:' .. it.number)
  redis.call('HDEL', it.key, 'print', 'gone', 'until', 'taken', 'takenBy')
  it.print = nil
end

-- Until when it is remembered, as far as that is known. One that an older replica has lost has only its end.
local function remembered (it, ends)
  if ends then return tonumber(ends) end
  return it.stage == 'unknown' and it.ended and tonumber(it.ended) + ${repeatMs} or nil
end

local function remember (it)
  if redis.call('ZADD', lost, 'NX', digits(now), it.number) == 0 then return end
  redis.call('PEXPIRE', lost, ${repeatMs + slackMs})
  for _, number in ipairs(redis.call('ZRANGE', lost, 0, ${trimmedAtOnce - 1})) do
    local other = read(number)
    local ends = other and remembered(other, redis.call('HGET', other.key, 'until'))
    if not other or not other.print then redis.call('ZREM', lost, number)
    elseif ends and ends <= now then forgetRepeat(other) end
  end
  if redis.call('ZCARD', lost) <= ${maxRepeats} then return end
  local oldest = redis.call('ZRANGE', lost, 0, 0)[1]
  forgetRepeat(read(oldest))
  isCrowded = true
end

-- Its outcome became unknown, or could not be delivered: the first of these instants stays.
local function remindFrom (it)
  redis.call('HSETNX', it.key, 'until', digits(now + ${repeatMs}))
  remember(it)
end

local function keepReplay (it, status, contentType, body)
  local key = base .. 'replay:' .. it.number
  if not it.print or status == '' or redis.call('HSETNX', key, 'status', status) == 0 then return end
  redis.call('HSET', key, 'type', contentType, 'body', body)
  redis.call('PEXPIRE', key, ${repeatMs + slackMs})
end

-- It was done. 2: and there was no room to remember one more.
local function done () return isCrowded and 2 or 1 end
`

/** Lua that finds what a submit is the repeat of; it calls the stages of a reservation. */
export const repeatedFunctions = `
local function standing (start, mine, alive, dead)
  if start == mine or string.find(alive, start, 1, true) then return 'alive' end
  if string.find(dead, start, 1, true) then return 'dead' end
  return 'undecided'
end

-- What the taken one has come to; nil if nothing was sent.
local function outcome (it)
  if it.stage == 'reserved' or it.stage == 'sent' then return { 'pending' } end
  local kept = redis.call('HMGET', base .. 'replay:' .. it.number, 'status', 'type', 'body')
  if not it.task then return { 'unknown' } end
  if kept[1] then return { 'answered', kept[1], kept[2], kept[3] } end
  return { 'task', it.task }
end

-- Whoever held it has died: what it has not sent will not be sent, and what it has sent it will not hear of.
local function bury (it)
  if it.stage == 'reserved' then
    free(it)
    return false
  end
  if it.stage == 'sent' then
    lose(it)
    it.stage = 'unknown'
  end
  remember(it)
  return true
end

-- 'pending' with the starts that have to be asked after, if that decides it. alive, dead: texts of starts.
local function repeated (print, call, mine, alive, dead)
  local alike, undecided = base .. 'alike:' .. print, { 'pending' }
  local taken, isDead
  for _, number in ipairs(redis.call('ZRANGE', alike, 0, -1)) do
    local it = read(number)
    if not it or it.print ~= print then
      redis.call('ZREM', alike, number)
    else
      local start, gone, ends, by, byStart, claimed = unpack(redis.call('HMGET', it.key, 'start', 'gone', 'until', 'taken', 'takenBy', 'claimed'))
      local holder = standing(start, mine, alive, dead)
      local is = remembered(it, ends)
      if not is and holder == 'dead' and claimed then is = tonumber(claimed) + ${repeatMs + deadMs} end
      local server = by and standing(byStart, mine, alive, dead) or 'dead'
      if is and is <= now then forgetRepeat(it)
      elseif by == call then
        taken, isDead = it, false
        break
      elseif not (gone or is) and holder == 'undecided' then table.insert(undecided, start)
      elseif (gone or is or holder == 'dead') and server == 'undecided' then table.insert(undecided, byStart)
      elseif (gone or is or holder == 'dead') and server == 'dead' and not taken then taken, isDead = it, holder == 'dead'
      end
    end
  end
  if not taken then return #undecided > 1 and undecided or nil end
  if isDead and not bury(taken) then return repeated(print, call, mine, alive, dead) end
  redis.call('HSET', taken.key, 'taken', call, 'takenBy', mine)
  return outcome(taken)
end
`

/** Scripts of repeats. */
export const repeatScripts = {
  /**
   * ARGV[5..9]: a fingerprint, the call, its start, and those that are alive and dead. What `Earlier` says, or nothing.
   */
  takeRepeat: 'return repeated(unpack(ARGV, 5)) or {}',

  /** ARGV[5..7]: a fingerprint, the call, 1 if its caller has the task. */
  endRepeat: `
for _, number in ipairs(redis.call('ZRANGE', base .. 'alike:' .. ARGV[5], 0, -1)) do
  local it = read(number)
  if it and redis.call('HGET', it.key, 'taken') == ARGV[6] then
    if ARGV[7] == '1' then forgetRepeat(it) else redis.call('HDEL', it.key, 'taken', 'takenBy') end
  end
end
return 1`,

  /** ARGV[5..8]: a number, and an answer as status, type and body, or '' thrice. */
  undelivered: `
local it = read(ARGV[5])
if not it or not it.print then return 0 end
redis.call('HSET', it.key, 'gone', '1')
keepReplay(it, ARGV[6], ARGV[7], ARGV[8])
if it.stage == 'claimed' or it.stage == 'settled' then remindFrom(it) else remember(it) end
return done()`,

  /** ARGV[5..]: numbers. */
  delivered: `
for index = 5, #ARGV do
  local it = read(ARGV[index])
  if it then forgetRepeat(it) end
end
return 1`
} as const
