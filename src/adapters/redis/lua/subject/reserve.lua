-- include credits.lua
-- include idempotency.lua
-- include stages.lua
-- include takeRepeat.lua
-- include lists.lua
-- include extras.lua

-- Sets a place among the unfinished tasks, a use and credits aside for all of `request.submits`, or for none of them.
-- { 'granted', what is left of the account if it is nearly used up, else '', and their numbers }; { 'novelty', and what
-- `findEarlier` or `takeRepeat` has found }; or what the first lacks that lacks something: { 'slot' }, { 'uses' } or
-- { 'credits' }; or { 'lapsed' }: it came so late that its holds were given back.

-- Overstayed reservations that each new one clears away, before it is said that there is no room.
local sweptByReserve = 20
local trimmedByReserve = 5
local hourMs, dayMs = 3600000, 86400000

local function clearAway ()
  -- Those that sweep.lua would have told are told by its next run.
  local releasedCount, unknownCount = sweep(sweptByReserve * #request.submits)
  add(account, 'missedReleased', releasedCount)
  add(account, 'missedUnknown', unknownCount)
  trim(list, trimmedByReserve)
end

local function findFirst (wanted)
  if wanted.idempotency then return findEarlier(wanted.idempotency) end
  if wanted.submit then return takeRepeat(wanted.submit) end
  return nil
end

local function sessionKeyOf (session) return base .. 'session:' .. session.id end

-- 'uses' or 'credits', if its session has too few; nil if it has not, or no limits of its own.
local function lackOfSession (session, cost)
  if not session then return nil end
  local uses, credits = unpack(redis.call('HMGET', sessionKeyOf(session), 'uses', 'credits'))
  if session.uses and tonumber(uses or '0') + 1 > session.uses then return 'uses' end
  if session.creditLimit and tonumber(credits or '0') + cost > session.creditLimit then return 'credits' end
  return nil
end

-- How much of the cost the period can bear; the grants bear the rest.
local function shareOfPeriod (wanted, period)
  if not wanted.creditLimit then return wanted.cost end
  local used = tonumber(redis.call('HGET', period, 'used') or '0')
  local room = wanted.creditLimit - used
  if room < wanted.cost then room = room + raisedBy(base .. 'extras', now) end
  return math.min(wanted.cost, math.max(0, room))
end

-- What is left of the period and of the grants, if four fifths or more of them are used.
local function nearEnd (wanted, used, granted)
  local limit = wanted.creditLimit
  if not limit or wanted.cost == 0 or limit - used > limit / 5 then return nil end
  limit = limit + raisedBy(base .. 'extras', now)
  local left = math.max(0, limit - used) + granted
  return left <= (limit + granted) / 5 and digits(left) or nil
end

-- How long a period may last yet. A later one has begun, but that may be of another plan: one that begins with a day is
-- not over before a month is.
local function restOf (periodStart)
  local longest = periodStart % dayMs == 0 and 31 * dayMs or hourMs
  return math.max(0, periodStart + longest - now)
end

-- What is used of the period now; after its end, only what is still unfinished gives anything back to it.
-- latest: the start of the latest period as a text, false if there was none.
local function charge (wanted, period, fromPeriod, fromGrants, latest)
  add(account, 'granted', -fromGrants)
  local used = redis.call('HINCRBY', period, 'used', fromPeriod)
  expire(period, terms.keepMs)
  if not latest or tonumber(latest) < wanted.periodStart then
    redis.call('HSET', account, 'period', wanted.periodStart)
    if latest then expire(base .. 'period:' .. latest, restOf(tonumber(latest)) + terms.supersededMs) end
  end
  keepAccount()
  return used
end

local function writeSession (row, session, cost)
  local key = sessionKeyOf(session)
  redis.call('HSET', row, 'session', session.id)
  redis.call('HINCRBY', key, 'uses', '1')
  redis.call('HINCRBY', key, 'credits', cost)
  expire(key, session.keptMs)
end

local function writeSubmit (row, number, submit)
  local alike = base .. 'alike:' .. submit.fingerprint
  redis.call('HSET', row, 'print', submit.fingerprint, 'start', submit.start)
  redis.call('ZADD', alike, number, number)
  expire(alike, terms.slackMs)
end

local function writeIdempotency (row, number, idempotency)
  local key = base .. 'idem:' .. idempotency.key
  redis.call('HSET', row, 'idem', idempotency.key)
  redis.call('DEL', key)
  redis.call('HSET', key, 'fingerprint', idempotency.fingerprint, 'createdAt', now, 'number', number)
  expire(key, terms.idempotencyMs)
end

local function writeDelivery (row, number, url)
  redis.call('HSET', row, 'url', url)
  redis.call('ZADD', deliveries, '+inf', number)
  expire(deliveries, terms.keepMs)
end

local function writeHold (row, number, hold)
  redis.call('HSET', row, 'hold', hold.name .. ' ' .. hold.accounts)
  redis.call('SET', holdKey(hold.name), number, 'PX', terms.keepMs)
end

-- Its number, and what is left near the end; or nil, and what it lacks.
local function reserve (wanted)
  if redis.call('ZCARD', open) >= wanted.taskLimit and slots() >= wanted.taskLimit then return nil, 'slot' end
  local lack = lackOfSession(wanted.session, wanted.cost)
  if lack then return nil, lack end
  local periodStart = digits(wanted.periodStart)
  local period = base .. 'period:' .. periodStart
  local fromPeriod = shareOfPeriod(wanted, period)
  local fromGrants = wanted.cost - fromPeriod
  local granted, last, latest = unpack(redis.call('HMGET', account, 'granted', 'seq', 'period'))
  if fromGrants > tonumber(granted or '0') then return nil, 'credits' end

  -- Not below the time, so that an account that was forgotten gives no number twice.
  local number = digits(math.max(tonumber(last or '0') + 1, now))
  redis.call('HSET', account, 'seq', number)
  local used = charge(wanted, period, fromPeriod, fromGrants, latest)
  local row = base .. 'r:' .. number
  redis.call('HSET', row, 'stage', 'reserved', 'operation', wanted.operation, 'model', wanted.model,
    'key', wanted.keyId, 'cost', wanted.cost, 'fromPeriod', fromPeriod,
    'fromGrants', fromGrants, 'period', periodStart,
    'refundable', wanted.refundable and '1' or '0', 'day', wanted.day, 'created', now)
  redis.call('ZADD', open, wanted.overstaysAt, number)
  if wanted.deliverTo then writeDelivery(row, number, wanted.deliverTo) end
  if wanted.submit then writeSubmit(row, number, wanted.submit) end
  if wanted.session then writeSession(row, wanted.session, wanted.cost) end
  if wanted.idempotency then writeIdempotency(row, number, wanted.idempotency) end
  if wanted.hold then writeHold(row, number, wanted.hold) end
  return number, nearEnd(wanted, used, tonumber(granted or '0') - fromGrants)
end

local function cancel (number)
  local it = read(number)
  freeIdempotencyKey(it)
  free(it)
end

local function reserveAll (submits)
  local numbers, near = {}, ''
  for _, wanted in ipairs(submits) do
    local number, found = reserve(wanted)
    if not number then
      for _, granted in ipairs(numbers) do cancel(granted) end
      return { found }
    end
    near = found or near
    table.insert(numbers, number)
  end
  return { 'granted', near, unpack(numbers) }
end

clearAway()
for _, wanted in ipairs(request.submits) do
  local first = findFirst(wanted)
  if first then return answered({ 'novelty', unpack(first) }) end
  if wanted.hold and redis.call('GET', holdKey(wanted.hold.name)) then return answered({ 'lapsed' }) end
end
return answered(reserveAll(request.submits))
