-- include stages.lua

-- Ends what has overstayed, so many at the most. How many were released, how many are unknown now, those that
-- reserve.lua has ended meanwhile included, and when the next one overstays (Unix ms, '' for never).
local releasedCount, unknownCount = sweep(request.limit)
local missedReleased, missedUnknown = unpack(redis.call('HMGET', account, 'missedReleased', 'missedUnknown'))
if missedReleased or missedUnknown then redis.call('HDEL', account, 'missedReleased', 'missedUnknown') end
local _, nextAt = unpack(redis.call('ZRANGE', open, 0, 0, 'WITHSCORES'))
return answered({
  releasedCount + tonumber(missedReleased or '0'),
  unknownCount + tonumber(missedUnknown or '0'),
  nextAt or ''
})
