-- include lists.lua

-- Claimed tasks, the newest first, from a highest number on down to a lowest: as `listTasks`.
local highest, lowest = tonumber(request.from) or math.huge, tonumber(request.above) or -math.huge
local numbers = {}
for _, number in ipairs(redis.call('ZRANGE', open, 0, -1)) do
  local value = tonumber(number)
  if value <= highest and value >= lowest and redis.call('HGET', base .. 'r:' .. number, 'stage') == 'claimed' then
    table.insert(numbers, number)
  end
end
table.sort(numbers, function (one, other) return tonumber(one) > tonumber(other) end)
return rows({ unpack(numbers, 1, math.min(#numbers, request.limit)) })
