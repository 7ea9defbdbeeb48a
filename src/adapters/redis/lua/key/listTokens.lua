-- include key.lua

-- Tokens with numbers below one ('inf' for all), the latest first: a number, a hash, and so on.
local found, below = {}, request.below
while #found < request.limit * 2 do
  local lacking = request.limit - #found / 2
  local range = redis.call('ZREVRANGEBYSCORE', KEYS[1], '(' .. below, '-inf', 'WITHSCORES', 'LIMIT', 0, lacking)
  if #range == 0 then break end
  for index = 1, #range, 2 do
    below = range[index + 1]
    local token = redis.call('HGETALL', beside('t:' .. range[index]))
    if #token == 0 then
      redis.call('ZREM', KEYS[1], range[index])
    else
      table.insert(found, below)
      table.insert(found, token)
    end
  end
end
return found
