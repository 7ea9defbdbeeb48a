-- include stages.lua

-- Nobody can find out how it ends. 1: it was done. 0: not from the stage that it is in, or of that task.
local it = read(request.number)
if not it or it.stage ~= 'claimed' or it.task ~= request.task then return 0 end
markUnknown(it)
return answered(1)
