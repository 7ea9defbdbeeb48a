-- include owed.lua

-- What has become of the reservations of these holds, in their order: 'running', 'idle', or 'closed', and what it comes
-- to, '' for what it has taken. One that was never made will never be made.
local found = {}
for _, name in ipairs(request.names) do
  local number = redis.call('GET', holdKey(name))
  if not number then redis.call('SET', holdKey(name), 'dead', 'PX', terms.slackMs) end
  if not number or number == 'dead' then
    table.insert(found, { 'closed', '0' })
  else
    local it = read(number)
    if not it then
      table.insert(found, { 'closed', '' })
    elseif it.stage == 'unknown' and not it.refunded then
      table.insert(found, { 'idle', '' })
    elseif it.stage == 'unknown' or it.stage == 'settled' then
      table.insert(found, { 'closed', it.refunded and '0' or it.cost })
    else
      table.insert(found, { 'running', '' })
    end
  end
end
return found
