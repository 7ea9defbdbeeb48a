-- include lists.lua

-- Clears away what is past its retention. How many there are that something may still become of.
trim(list, 100)
trim(unknown, 100)
return redis.call('ZCARD', open) + redis.call('ZCARD', unknown)
