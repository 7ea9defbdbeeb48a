-- include stages.lua

-- Takes tasks away that have ended, and all that is known of them. Their sums stay, in `usage`. How many they were.
local count = 0
for _, number in ipairs(request.numbers) do
  local it = read(number)
  if it then
    forgetRepeat(it)
    freeIdempotencyKey(it)
    if it.task then redis.call('ZREM', ends, it.task) end
    count = count + 1
  end
  redis.call('ZREM', list, number)
  redis.call('ZREM', unknown, number)
  redis.call('ZREM', deliveries, number)
  redis.call('DEL', base .. 'r:' .. number)
end
return count
