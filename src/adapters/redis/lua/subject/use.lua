-- include stages.lua

-- A call that makes no task is over, and cost that much. 1: it was done, or had been. 0: not from the stage that it is
-- in. A sweep may have come first: then it was unknown until now.

local function charge (it, cost)
  local fromPeriod, fromGrants = tonumber(it.fromPeriod), tonumber(it.fromGrants)
  local granted = math.max(0, tonumber(redis.call('HGET', account, 'granted') or '0'))
  local rest = math.max(0, cost - fromPeriod)
  local nowGrants = fromGrants > 0 and math.min(rest, fromGrants + granted) or 0
  local nowPeriod = cost - nowGrants
  local period = base .. 'period:' .. it.period
  if redis.call('EXISTS', period) == 1 then add(period, 'used', nowPeriod - fromPeriod) end
  add(account, 'granted', fromGrants - nowGrants)
  keepAccount()
  local session = base .. 'session:' .. (it.session or '')
  if redis.call('EXISTS', session) == 1 then add(session, 'credits', cost - tonumber(it.cost)) end
  redis.call('HSET', it.key, 'cost', cost, 'fromPeriod', nowPeriod, 'fromGrants', nowGrants)
  it.cost = digits(cost)
end

local it = read(request.number)
if not it then return 0 end
if it.stage == 'settled' and not it.task then return 1 end
local isLate = it.stage == 'unknown' and not it.task and not it.refunded
if it.stage ~= 'sent' and not isLate then return 0 end
if isLate then
  unmarkUnknown(it)
  addUsage(it, 'microcredits', digits(request.microcredits - tonumber(it.cost)))
end
charge(it, request.microcredits)
redis.call('HSET', it.key, 'stage', 'settled', 'ended', now, 'state', 'success',
  'estimate', request.isEstimate and '1' or '0')
forgetRepeat(it)
redis.call('ZREM', deliveries, it.number)
finish(it)
listTask(it)
addUsage(it, 'succeeded', '1')
owe(it, 'closed', it.cost)
return answered(1)
