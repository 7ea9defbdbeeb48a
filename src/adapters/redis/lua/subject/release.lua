-- include stages.lua

-- Nothing was accepted: all of it is given back. 1: it was done. 0: not from the stage that it is in.
local it = read(request.number)
if not it or (it.stage ~= 'reserved' and it.stage ~= 'sent') then return 0 end
if request.answer then keepAnswer(it, request.answer) else freeIdempotencyKey(it) end
free(it)
return answered(1)
