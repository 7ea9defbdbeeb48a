-- include key.lua

-- Releases the lease of acquireLease.lua, with the answer if there was one, until the next replica may ask (Unix ms).
-- Not if the lease is another's by now.
if redis.call('EXISTS', KEYS[1]) == 1 and redis.call('HGET', KEYS[1], 'asker') ~= request.asker then return 0 end
if not request.answer then return redis.call('DEL', KEYS[1]) end
redis.call('HDEL', KEYS[1], 'asker')
redis.call('HSET', KEYS[1], 'freeAt', request.freeAt, 'status', request.answer.status,
  'type', request.answer.contentType, 'body', body)
return redis.call('PEXPIRE', KEYS[1], request.keptMs)
