-- include subject.lua
-- include extras.lua

-- Raises the limit of its periods for a time. What is in force with it; nil when that could not be counted.
return giveExtra(base .. 'extras', now, request)
