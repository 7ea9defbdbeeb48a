-- include key.lua

-- Notes that a subject is used now, and when something of it may overstay (Unix ms). See active-subjects.ts.
local used, due = beside('used'), beside('due')
redis.call('ZADD', KEYS[1], 0, request.name)
redis.call('ZADD', used, request.now, request.name)
local known = redis.call('ZSCORE', due, request.name)
if not known or tonumber(known) > request.dueAt then redis.call('ZADD', due, request.dueAt, request.name) end
return 1
