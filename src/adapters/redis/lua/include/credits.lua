-- include subject.lua

-- By these a reservation's credits and uses go back, and the sums of its day are kept.

local function keepAccount ()
  -- What an operator gave does not end by itself.
  if tonumber(redis.call('HGET', account, 'granted') or '0') > 0 then
    redis.call('PERSIST', account)
  else
    expire(account, terms.keepMs)
  end
end

-- uses: those that go back beside the credits, none of a task that has failed.
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

local function addUsage (it, what, change)
  local usage = base .. 'usage:' .. it.day
  add(usage, what .. ':' .. it.model, change)
  expire(usage, terms.usageMs)
end

local function listTask (it)
  if redis.call('ZADD', list, it.number, it.number) == 0 then return end
  expire(list, terms.keepMs)
  addUsage(it, 'tasks', '1')
  addUsage(it, 'microcredits', it.cost)
end
