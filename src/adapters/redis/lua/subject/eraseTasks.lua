-- include stages.lua

-- Takes tasks away that have ended, and all that is known of them. Their sums stay, in `usage`, and so does what they
-- have taken above the subject. How many they were. One that was found late runs again, and stays.
local count = 0

local function erase (number)
  local it = read(number)
  if it and not it.ended then return end
  if it then
    owe(it, 'closed', it.refunded and 0 or it.cost)
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

for _, number in ipairs(request.numbers) do erase(number) end
return answered(count)
