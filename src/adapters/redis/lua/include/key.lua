-- What all scripts have in common that are not a subject's. Each of them is one atomic step in the slot of KEYS[1].
--
-- ARGV[1] is JSON, the script's own fields (`KeyRequests` in scripts.ts). An absent field is nil. ARGV[2] is a body,
-- whose bytes JSON can not hold.

local request, body = cjson.decode(ARGV[1]), ARGV[2]

-- A key in the same slot, by another last word.
local function beside (word) return (string.gsub(KEYS[1], '[^:]*$', word, 1)) end

local function digits (number) return string.format('%.0f', number) end
