-- include key.lua

-- Writes a stream anew, since what is deleted from one stays in its memory and in its dumps. KEYS[1] is the stream, and
-- the new one stands in its slot, under the name `to`: entries are added to that, with their ids. `last`: the id after
-- which there are no more; then the new one takes the place of the old one. 1: it did. 0: more has come meanwhile.
for _, item in ipairs(request.entries) do redis.call('XADD', request.to, item.id, 'entry', item.entry) end
if not request.last then return 0 end
if #redis.call('XRANGE', KEYS[1], '(' .. request.last, '+', 'COUNT', 1) > 0 then return 0 end
redis.call('RENAME', request.to, KEYS[1])
return 1
