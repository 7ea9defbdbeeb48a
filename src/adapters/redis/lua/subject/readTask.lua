-- include lists.lua

-- A task in full, as `detailFrom` reads it: what a list shows of it comes last. Nothing: there is none, or it may be
-- nothing yet.
local it = read(request.number)
if not it or it.stage == 'reserved' or it.stage == 'sent' then return {} end
local key, answer = unpack(redis.call('HMGET', it.key, 'key', 'answer'))
local shown = rows({ it.number })[1]
return {
  key, it.refundable, it.period, it.fromGrants, it.session, redis.call('ZSCORE', open, it.number),
  answer and #answer, unpack(shown, 2)
}
