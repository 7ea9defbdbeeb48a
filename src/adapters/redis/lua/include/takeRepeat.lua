-- include stages.lua

-- These find what a submit without an idempotency key is the repeat of. `submit` is what a script is told of it:
-- fingerprint, call (its name), start (the replica that it is at), alive and dead (texts of starts).

local function stateOf (start, submit)
  if start == submit.start or string.find(submit.alive, start, 1, true) then return 'alive' end
  if string.find(submit.dead, start, 1, true) then return 'dead' end
  return 'undecided'
end

-- What it has come to, as its kind and what goes with it.
local function outcomeOf (it)
  if it.stage == 'reserved' or it.stage == 'sent' then return { 'pending' } end
  if not it.task then return { 'unknown' } end
  local replay = base .. 'replay:' .. it.number
  local status, contentType, answer = unpack(redis.call('HMGET', replay, 'status', 'type', 'body'))
  if status then return { 'answered', status, contentType, answer } end
  return { 'task', it.task }
end

-- The replica that held it has died: what that has not sent will not be sent, and what it has sent it will not hear of.
-- false: nothing is left of it.
local function endWithReplica (it)
  if it.stage == 'reserved' then
    free(it)
    return false
  end
  if it.stage == 'sent' then
    markUnknown(it)
    it.stage = 'unknown'
  end
  remember(it)
  return true
end

-- What a submit may do with an earlier one: 'forget' it, it is 'taken' already, it 'waits' for a replica that may be
-- dead (and which), it may be taken from the 'dead', or because it is 'lost'; 'none' of these.
local function standing (it, submit)
  local start, gone, noted, takenBy, takerStart, claimedAt = unpack(redis.call('HMGET', it.key,
    'start', 'gone', 'until', 'taken', 'takenBy', 'claimed'))
  local holder = stateOf(start, submit)
  local untilWhen = rememberedUntil(it, noted)
  if not untilWhen and holder == 'dead' and claimedAt then
    untilWhen = tonumber(claimedAt) + terms.repeatMs + terms.deadMs
  end
  if untilWhen and untilWhen <= now then return 'forget' end
  if takenBy == submit.call then return 'taken' end
  local isLost = gone or untilWhen
  if not isLost and holder == 'undecided' then return 'waits', start end
  if not isLost and holder ~= 'dead' then return 'none' end
  local taker = takenBy and stateOf(takerStart, submit) or 'dead'
  if taker == 'undecided' then return 'waits', takerStart end
  if taker == 'alive' then return 'none' end
  return holder == 'dead' and 'dead' or 'lost'
end

-- Takes the first that it may be the repeat of, and answers its outcome; 'pending' with the starts that have to be
-- asked after, if that decides it; nil if there is none.
local function takeRepeat (submit)
  local alike, undecided = base .. 'alike:' .. submit.fingerprint, { 'pending' }
  local first, isDead
  for _, number in ipairs(redis.call('ZRANGE', alike, 0, -1)) do
    local it = read(number)
    if not it or it.print ~= submit.fingerprint then
      redis.call('ZREM', alike, number)
    else
      local stands, start = standing(it, submit)
      if stands == 'forget' then
        forgetRepeat(it)
      elseif stands == 'taken' then
        first, isDead = it, false
        break
      elseif stands == 'waits' then
        table.insert(undecided, start)
      elseif stands ~= 'none' and not first then
        first, isDead = it, stands == 'dead'
      end
    end
  end
  if not first then return #undecided > 1 and undecided or nil end
  if isDead and not endWithReplica(first) then return takeRepeat(submit) end
  redis.call('HSET', first.key, 'taken', submit.call, 'takenBy', submit.start)
  return outcomeOf(first)
end
