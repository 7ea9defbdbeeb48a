-- include subject.lua

-- What the sums of a subject say, and a part of its rows, all at one instant: those of the list behind `request.after`,
-- `request.limit` at the most; and with the first part, which is after '-inf', those that are not on the list yet.
--
-- { what is equal in two parts if nothing came between, where the next part begins ('' for nowhere), what is left of
-- grants, what was granted, since when, the start of the latest period, the rows, the periods, the sessions, the
-- days }.
-- Of a row: its number, its lease, and then nothing if it is not there. Sums are of the periods and sessions of these
-- rows, and of the latest period.

local found, periods, sessions, days = {}, {}, {}, {}
local isFirst = request.after == '-inf'

local function note (number)
  local row = redis.call('HMGET', base .. 'r:' .. number,
    'stage', 'state', 'task', 'period', 'fromPeriod', 'fromGrants', 'refunded', 'session', 'day', 'hold',
    'ended')
  local lease = redis.call('ZSCORE', open, number)
  if not row[1] then
    table.insert(found, { number, lease })
    return
  end
  periods[row[4]] = true
  if row[8] then sessions[row[8]] = true end
  table.insert(found, { number, lease, unpack(row) })
end

local after = isFirst and '-inf' or '(' .. request.after
local listed = redis.call('ZRANGEBYSCORE', list, after, '+inf', 'LIMIT', 0, request.limit)
for _, number in ipairs(listed) do note(number) end
if isFirst then
  for _, number in ipairs(redis.call('ZRANGE', open, 0, -1)) do
    if not redis.call('ZSCORE', list, number) then note(number) end
  end
end

local left, last, latest = unpack(redis.call('HMGET', account, 'granted', 'seq', 'period'))
local granted, since = 0, false
for _, grant in ipairs(redis.call('LRANGE', base .. 'grants', 0, -1)) do
  local at, microcredits = string.match(grant, '^(%d+) (%d+)$')
  granted, since = granted + tonumber(microcredits), since or at
end
if latest then periods[latest] = true end

local sumsOfPeriods, sumsOfSessions = {}, {}
for start in pairs(periods) do
  table.insert(sumsOfPeriods, { start, redis.call('HGET', base .. 'period:' .. start, 'used') })
end
for id in pairs(sessions) do
  table.insert(sumsOfSessions, { id, unpack(redis.call('HMGET', base .. 'session:' .. id, 'uses', 'credits')) })
end
for _, day in ipairs(request.days) do
  local tasks, microcredits, sums = 0, 0, redis.call('HGETALL', base .. 'usage:' .. day)
  for index = 1, #sums, 2 do
    local sum = tonumber(sums[index + 1])
    if string.sub(sums[index], 1, 6) == 'tasks:' then tasks = tasks + sum end
    if string.sub(sums[index], 1, 13) == 'microcredits:' then microcredits = microcredits + sum end
  end
  if #sums > 0 then table.insert(days, { day, tasks, digits(microcredits) }) end
end

local stamp = table.concat({ last or '', left or '', redis.call('ZCARD', open), redis.call('ZCARD', list) }, ' ')
local following = #listed == request.limit and listed[#listed] or ''
return {
  stamp, following, left or '0', digits(granted), since, latest or '', found, sumsOfPeriods, sumsOfSessions, days
}
