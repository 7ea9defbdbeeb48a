-- include holds.lua

-- Writes how the reservations of holds are now. Each may be written again, and one that is closed stays so.

for _, hold in ipairs(request.holds) do
  local name = hold.name
  if hold.to == 'closed' then
    close(name, hold.cost)
  else
    -- One that was refunded as unknown, and whose task was found later, runs and costs nothing.
    if hold.to == 'running' and hold.cost then redis.call('HSETNX', taken, name, digits(hold.cost)) end
    redis.call('ZREM', hold.to == 'running' and idle or open, name)
    if redis.call('HEXISTS', taken, name) == 1 then
      redis.call('ZADD', hold.to == 'running' and open or idle, hold.dueAt, name)
    end
  end
end
return 1
