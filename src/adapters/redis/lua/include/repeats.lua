-- include subject.lua

-- These remember and forget submits without an idempotency key.

local lost = base .. 'lost'
local isCrowded = false

-- Of those that are remembered, so many of the oldest are looked through before it is said that there are too many.
local trimmedAtOnce = 5

local function forgetRepeat (it)
  if not it.print then return end
  redis.call('ZREM', base .. 'alike:' .. it.print, it.number)
  redis.call('ZREM', lost, it.number)
  redis.call('DEL', base .. 'replay:' .. it.number)
  redis.call('HDEL', it.key, 'print', 'gone', 'until', 'taken', 'takenBy')
  it.print = nil
end

-- Until when it is remembered, as far as that is known. One that an older replica has lost has only its end.
local function rememberedUntil (it, noted)
  if noted then return tonumber(noted) end
  return it.stage == 'unknown' and it.ended and tonumber(it.ended) + terms.repeatMs or nil
end

local function remember (it)
  if redis.call('ZADD', lost, 'NX', now, it.number) == 0 then return end
  expire(lost, terms.repeatMs + terms.slackMs)
  for _, number in ipairs(redis.call('ZRANGE', lost, 0, trimmedAtOnce - 1)) do
    local other = read(number)
    local untilWhen = other and rememberedUntil(other, redis.call('HGET', other.key, 'until'))
    if not other or not other.print then
      redis.call('ZREM', lost, number)
    elseif untilWhen and untilWhen <= now then
      forgetRepeat(other)
    end
  end
  if redis.call('ZCARD', lost) <= terms.maxRepeats then return end
  forgetRepeat(read(redis.call('ZRANGE', lost, 0, 0)[1]))
  isCrowded = true
end

-- Its outcome became unknown, or could not be delivered: the first of these instants stays.
local function rememberFromNow (it)
  redis.call('HSETNX', it.key, 'until', now + terms.repeatMs)
  remember(it)
end

local function keepReplay (it, answer)
  if not it.print or not answer then return end
  local key = base .. 'replay:' .. it.number
  if redis.call('HSETNX', key, 'status', answer.status) == 0 then return end
  redis.call('HSET', key, 'type', answer.contentType, 'body', body)
  expire(key, terms.repeatMs + terms.slackMs)
end

-- It was done. 2: and there was no room to remember one more.
local function done () return isCrowded and 2 or 1 end
