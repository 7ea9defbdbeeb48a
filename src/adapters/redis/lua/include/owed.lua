-- include subject.lua

-- These tell the gateway what a step means for the accounts above the subject, which stand in other slots.

local owed = {}

local function holdName (it) return string.match(it.hold, '^%S+') end

local function holdKey (name) return base .. 'hold:' .. name end

-- to: 'running', 'idle' or 'closed'. cost: what it comes to, nil for what it has taken.
local function owe (it, to, cost)
  if it.hold then table.insert(owed, { it.hold, to, cost and digits(tonumber(cost)) or '' }) end
end

local function answered (reply)
  if #owed == 0 then return reply end
  return { 'owed', reply, owed }
end
