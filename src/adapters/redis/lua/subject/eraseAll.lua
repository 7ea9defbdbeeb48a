-- include subject.lua

-- Takes these keys of the subject away, if nothing of it runs. 1: it was done. 0: something runs, and all of them stay.
if redis.call('ZCARD', open) > 0 then return 0 end
for _, name in ipairs(request.names) do redis.call('UNLINK', name) end
return 1
