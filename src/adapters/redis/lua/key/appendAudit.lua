-- include key.lua

-- Adds entries to the audit trail. KEYS[1] is the stream of the sessions, and each other part is a stream beside it, so
-- that one that fills up pushes nothing out of the others. Over all of them ids only grow, and say in which order
-- things were done. The operator's entries are kept for their time, and of the others so many, about: Redis drops whole
-- nodes of a stream.

local parts = { 'sessions', 'operator', 'refusals' }

local function streamOf (part)
  if part == 'sessions' then return KEYS[1] end
  return (string.gsub(KEYS[1], ':[^:]*$', '', 1)) .. ':{' .. KEYS[1] .. '}:' .. part
end

-- The time (ms) and the number within it of an id that no entry goes beyond.
local function latestId (now)
  local ms, number = now, -1
  for _, part in ipairs(parts) do
    local last = redis.call('XREVRANGE', streamOf(part), '+', '-', 'COUNT', 1)[1]
    if last then
      local lastMs, lastNumber = string.match(last[1], '(%d+)-(%d+)')
      lastMs, lastNumber = tonumber(lastMs), tonumber(lastNumber)
      if lastMs > ms or (lastMs == ms and lastNumber > number) then ms, number = lastMs, lastNumber end
    end
  end
  return ms, number
end

local seconds, microseconds = unpack(redis.call('TIME'))
local now = seconds * 1000 + math.floor(microseconds / 1000)
local oldest = math.max(0, now - request.operatorKeptMs)
local ms, number = latestId(now)
for _, item in ipairs(request.entries) do
  number = number + 1
  local id = string.format('%.0f-%.0f', ms, number)
  if item.part == 'operator' then
    redis.call('XADD', streamOf(item.part), 'MINID', '~', oldest, id, 'entry', item.entry)
  else
    redis.call('XADD', streamOf(item.part), 'MAXLEN', '~', request.limit, id, 'entry', item.entry)
  end
end
return #request.entries
