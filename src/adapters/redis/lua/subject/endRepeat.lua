-- include repeats.lua

-- Ends what a call has taken. isDelivered: its caller has the task.
for _, number in ipairs(redis.call('ZRANGE', base .. 'alike:' .. request.fingerprint, 0, -1)) do
  local it = read(number)
  if it and redis.call('HGET', it.key, 'taken') == request.call then
    if request.isDelivered then forgetRepeat(it) else redis.call('HDEL', it.key, 'taken', 'takenBy') end
  end
end
return 1
