-- include holds.lua

-- Takes room in an account for all of `request.submits`, or for none of them. 1: it was done. 'taken': the same, and a
-- window is nearly used up: its index, from 0, and what is left of it. Else what the first lacks that lacks something,
-- 'running' or 'ceiling'; its index, and that of its window, from 0; and holds whose reservations may never have been
-- made.

-- So many of those, at the most.
local lapsedAtOnce = 20

-- The word, and the index of a window; nil if there is room.
local function lackOf (submit)
  if submit.runningLimit and redis.call('ZCARD', open) >= submit.runningLimit then return 'running', 0 end
  if submit.cost == 0 then return nil end
  for index, of in ipairs(submit.windows) do
    local sum = tonumber(redis.call('GET', usedKey(of.window)) or '0') + submit.cost
    if sum > of.limit and sum > of.limit + raised(of.isPrepaid) then return 'ceiling', index - 1 end
  end
  return nil
end

local function take (submit)
  local windows = {}
  for _, of in ipairs(submit.windows) do
    table.insert(windows, of.window)
    -- One that takes nothing may cost something in the end.
    redis.call('INCRBY', usedKey(of.window), submit.cost)
    if of.keptMs then redis.call('PEXPIRE', usedKey(of.window), of.keptMs) end
  end
  redis.call('HSET', taken, submit.name, digits(submit.cost) .. ' ' .. table.concat(windows, ' '))
  redis.call('ZADD', open, request.dueAt, submit.name)
end

-- Of the windows of which four fifths or more are used the one that has least left.
local function nearEnd (submit)
  if submit.cost == 0 then return nil end
  local nearest, least
  for index, of in ipairs(submit.windows) do
    local used = tonumber(redis.call('GET', usedKey(of.window)) or '0')
    if of.limit - used <= of.limit / 5 then
      local limit = of.limit + raised(of.isPrepaid)
      local left = math.max(0, limit - used)
      if left <= limit / 5 and (not least or left < least) then nearest, least = index - 1, left end
    end
  end
  return least and { 'taken', nearest, digits(least) }
end

for index, submit in ipairs(request.submits) do
  local lack, window = lackOf(submit)
  if lack then
    for before = 1, index - 1 do close(request.submits[before].name, 0) end
    return { lack, index - 1, window,
      redis.call('ZRANGEBYSCORE', open, '-inf', request.now, 'LIMIT', 0, lapsedAtOnce) }
  end
  take(submit)
end
return request.tellsEnd and nearEnd(request.submits[1]) or 1
