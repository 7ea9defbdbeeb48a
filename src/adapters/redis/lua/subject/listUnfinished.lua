-- include subject.lua

-- Claimed tasks, in the order of their numbers, after one of these and made at an instant (Unix ms) or earlier.
local numbers, found = redis.call('ZRANGE', open, 0, -1), {}
table.sort(numbers, function (one, other) return tonumber(one) < tonumber(other) end)
for _, number in ipairs(numbers) do
  if #found >= request.limit then break end
  if tonumber(number) > tonumber(request.after) then
    local row = redis.call('HMGET', base .. 'r:' .. number,
      'stage', 'created', 'operation', 'model', 'key', 'cost', 'task')
    if row[1] == 'claimed' and tonumber(row[2]) <= request.createdBy then
      table.insert(found, { number, unpack(row) })
    end
  end
end
return found
