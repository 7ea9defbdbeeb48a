-- include stages.lua

-- Its outcome is unknown. 1: it was done. 0: not from the stage that it is in. 2: as in `done`.
local it = read(request.number)
if not it or it.stage ~= 'sent' then return 0 end
markUnknown(it)
return answered(done())
