-- include repeats.lua

-- Its caller does not have the answer. 0: nothing is to be remembered. 1 or 2: as in `done`.
local it = read(request.number)
if not it or not it.print then return 0 end
redis.call('HSET', it.key, 'gone', '1')
keepReplay(it, request.answer)
if it.stage == 'claimed' or it.stage == 'settled' then rememberFromNow(it) else remember(it) end
return done()
