-- include stages.lua

-- Its task has ended. 1: it was done. 0: not from the stage that it is in, or of that task.

local function mayRefund (it)
  return request.state == 'failed' and it.refundable == '1' and not it.refunded
end

local function refund (it)
  local period = base .. 'period:' .. it.period
  if tonumber(redis.call('HGET', period, 'refunds') or '0') >= terms.refundsPerPeriod then return end
  if redis.call('EXISTS', period) == 1 then redis.call('HINCRBY', period, 'refunds', '1') end
  giveBack(it, 0)
  redis.call('HSET', it.key, 'refunded', '1')
  it.refunded = '1'
  addUsage(it, 'microcredits', '-' .. it.cost)
end

local it = read(request.number)
if not it or (it.task and it.task ~= request.task) or it.stage == 'settled' or it.stage == 'reserved' then return 0 end
-- Its owner was written, and then the replica that was about to claim it died.
if not it.task then claim(it, request.task, now) end
if it.stage == 'unknown' then unmarkUnknown(it) end
redis.call('HSET', it.key, 'stage', 'settled', 'ended', now, 'state', request.state, 'answer', body)
finish(it)
redis.call('ZADD', ends, now, request.task)
redis.call('ZREMRANGEBYSCORE', ends, '-inf', now - terms.endsKeptMs)
expire(ends, terms.endsKeptMs + terms.slackMs)
redis.call('ZADD', deliveries, 'XX', now, it.number)
addUsage(it, request.state == 'success' and 'succeeded' or 'failed', '1')
if mayRefund(it) then refund(it) end
owe(it, 'closed', it.refunded and 0 or it.cost)
return answered(1)
