-- include key.lua
-- include extras.lua

-- What the scripts of an account above the subjects have in common. KEYS[1] is `open`, and all of it in one slot:
--
-- open           the holds of unfinished reservations, by when their subjects are to be asked about them (Unix ms)
-- idle           those of unknown ones, likewise
-- taken          of each hold its microcredits, and the windows that they are of
-- used:<window>  what is taken of a window
-- granted        what was given for good
-- extras         what was given for a time
--
-- A hold is known here by its subject and its name: `app:alice#…`. See holds.ts.

local open, idle, taken, extras = KEYS[1], beside('idle'), beside('taken'), beside('extras')

local function usedKey (window) return beside('used:' .. window) end

-- What a window's limit is raised by now.
local function raised (isPrepaid)
  local granted = isPrepaid and tonumber(redis.call('GET', beside('granted')) or '0') or 0
  return granted + raisedBy(extras, request.now)
end

local function change (windows, microcredits)
  if microcredits == 0 then return end
  for window in string.gmatch(windows, '%S+') do
    local key = usedKey(window)
    if redis.call('EXISTS', key) == 1 then redis.call('INCRBY', key, microcredits) end
  end
end

-- Its reservation has ended, and has cost that much; nil: what it has taken.
local function close (name, cost)
  local record = redis.call('HGET', taken, name)
  if not record then return end
  local before, windows = string.match(record, '^(%d+)(.*)$')
  if cost then change(windows, cost - tonumber(before)) end
  redis.call('HDEL', taken, name)
  redis.call('ZREM', open, name)
  redis.call('ZREM', idle, name)
end
