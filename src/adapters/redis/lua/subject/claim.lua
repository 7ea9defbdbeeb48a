-- include stages.lua

-- Its task is known. 1: it was done. 0: not from the stage that it is in. 2: as in `done`.
local it = read(request.number)
if not it or (it.task and it.task ~= request.task) then return 0 end
if not it.task then
  if it.stage ~= 'sent' and it.stage ~= 'unknown' then return 0 end
  claim(it, request.task, request.overstaysAt)
end
keepAnswer(it, request.answer)
keepReplay(it, request.answer)
return answered(done())
