-- include subject.lua

-- 1: the task is this reservation's, or may still become its own.
local it = read(request.number)
if not it or (it.task and it.task ~= request.task) then return 0 end
return 1
