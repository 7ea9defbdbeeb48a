-- include subject.lua

-- Takes the oldest numbers off a list whose reservations are past their retention.
local function trim (numbers, limit)
  for _, number in ipairs(redis.call('ZRANGE', numbers, 0, limit - 1)) do
    if read(number) then return end
    redis.call('ZREM', numbers, number)
    redis.call('DEL', base .. 'r:' .. number)
  end
end

-- What a list shows of each; of one that is past its retention the number alone.
local function rows (numbers)
  local found = {}
  for _, number in ipairs(numbers) do
    local it = read(number)
    local row = it and redis.call('HMGET', it.key,
      'stage', 'operation', 'model', 'cost', 'created', 'task', 'state', 'refunded', 'ended', 'abandoned') or {}
    table.insert(found, { number, unpack(row) })
  end
  return found
end
