-- These read and write what an operator has given for a time: a sorted set, by when each ends (Unix ms), of texts that
-- end with its microcredits.

-- What is in force now, all of it together.
local function raisedBy (extras, now)
  local sum = 0
  for _, extra in ipairs(redis.call('ZRANGEBYSCORE', extras, '(' .. digits(now), '+inf')) do
    sum = sum + tonumber(string.match(extra, '%d+$'))
  end
  return sum
end

-- given: name, microcredits, endsAt, keptMs, limit. What is in force with it; false when that could not be counted.
local function giveExtra (extras, now, given)
  local sum = raisedBy(extras, now) + given.microcredits
  if sum > given.limit then return false end
  redis.call('ZADD', extras, given.endsAt, given.name .. ' ' .. digits(given.microcredits))
  if redis.call('PTTL', extras) < given.keptMs then redis.call('PEXPIRE', extras, given.keptMs) end
  return digits(sum)
end
