-- include credits.lua
-- include idempotency.lua
-- include repeats.lua
-- include owed.lua

-- These take a reservation from one stage to the next.

local function free (it)
  forgetRepeat(it)
  giveBack(it, 1)
  redis.call('ZREM', open, it.number)
  redis.call('ZREM', deliveries, it.number)
  redis.call('DEL', it.key)
  if it.hold then redis.call('DEL', holdKey(holdName(it))) end
  owe(it, 'closed', 0)
end

local function finish (it)
  redis.call('ZREM', open, it.number)
  if it.abandoned then redis.call('SREM', abandoned, it.number) end
  expire(it.key, terms.retentionMs + terms.slackMs)
  if it.hold then expire(holdKey(holdName(it)), terms.retentionMs + terms.slackMs) end
end

local function markUnknown (it)
  if it.print and it.stage == 'sent' then rememberFromNow(it) else forgetRepeat(it) end
  redis.call('HSET', it.key, 'stage', 'unknown', 'ended', now)
  finish(it)
  owe(it, 'idle')
  listTask(it)
  -- One that was released as unknown, claimed late all the same, and has overstayed is not charged any more.
  if it.refunded then return end
  addUsage(it, 'unknown', '1')
  redis.call('ZADD', unknown, it.number, it.number)
  expire(unknown, terms.keepMs)
end

local function unmarkUnknown (it)
  redis.call('ZREM', unknown, it.number)
  redis.call('HDEL', it.key, 'ended')
  redis.call('PERSIST', it.key)
  if it.hold then expire(holdKey(holdName(it)), terms.keepMs) end
  owe(it, 'running', it.refunded and 0)
  if not it.refunded then addUsage(it, 'unknown', '-1') end
end

-- overstaysAt: Unix ms.
local function claim (it, task, overstaysAt)
  if it.print then
    redis.call('HSET', it.key, 'claimed', now)
    if it.stage == 'unknown' or redis.call('HEXISTS', it.key, 'gone') == 1 then rememberFromNow(it) end
  end
  if it.stage == 'unknown' then unmarkUnknown(it) end
  redis.call('HSET', it.key, 'stage', 'claimed', 'task', task)
  redis.call('ZADD', open, overstaysAt, it.number)
  listTask(it)
  keepAccount()
  it.stage, it.task = 'claimed', task
end

-- Ends what has overstayed, so many at the most. How many were released, and how many are unknown now.
local function sweep (limit)
  local releasedCount, unknownCount = 0, 0
  for _, number in ipairs(redis.call('ZRANGEBYSCORE', open, '-inf', now, 'LIMIT', 0, limit)) do
    local it = read(number)
    if not it then
      redis.call('ZREM', open, number)
      redis.call('SREM', abandoned, number)
    elseif it.stage == 'reserved' then
      freeIdempotencyKey(it)
      free(it)
      releasedCount = releasedCount + 1
    else
      markUnknown(it)
      unknownCount = unknownCount + 1
    end
  end
  return releasedCount, unknownCount
end
