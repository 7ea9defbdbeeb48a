/** Lua of the lists that a subject's reservations stand in. */
export const listFunctions = `
-- Takes the oldest numbers off a list whose reservations are past their retention.
local function trim (numbers, most)
  for _, number in ipairs(redis.call('ZRANGE', numbers, 0, most - 1)) do
    if read(number) then return end
    redis.call('ZREM', numbers, number)
    redis.call('DEL', base .. 'r:' .. number)
  end
end

-- What a list shows of each; of one that is past its retention the number alone.
local function rows (numbers)
  local found = {}
  for _, number in ipairs(numbers) do
    local it = read(number)
    table.insert(found, it and { number, unpack(redis.call('HMGET', it.key,
      'stage', 'operation', 'model', 'cost', 'created', 'task', 'state', 'refunded', 'ended')) } or { number })
  end
  return found
end
`

/** Scripts that walk over the reservations of a subject. A row is a number, and what stands in it. */
export const listScripts = {
  /** ARGV[5..7]: the number that they come after, the latest time that they were made at (Unix ms), how many at the most. */
  unfinished: `
local numbers, found = redis.call('ZRANGE', open, 0, -1), {}
table.sort(numbers, function (one, other) return tonumber(one) < tonumber(other) end)
for _, number in ipairs(numbers) do
  if #found >= tonumber(ARGV[7]) then break end
  if tonumber(number) > tonumber(ARGV[5]) then
    local row = redis.call('HMGET', base .. 'r:' .. number, 'stage', 'created', 'operation', 'model', 'key', 'cost', 'task')
    if row[1] == 'claimed' and tonumber(row[2]) <= tonumber(ARGV[6]) then table.insert(found, { number, unpack(row) }) end
  end
end
return found`,

  /** ARGV[5..6]: the highest number, as Redis writes the end of a range, how many at the most. The newest first. */
  list: "return rows(redis.call('ZREVRANGEBYSCORE', list, ARGV[5], '-inf', 'LIMIT', 0, ARGV[6]))",

  /** ARGV[5..7]: a time (Unix ms), a task id, how many at the most. Task ids and when each has ended, in the order of `ends`. */
  endsAfter: `
local skipped = 0
for index, task in ipairs(redis.call('ZRANGEBYSCORE', ends, ARGV[5], ARGV[5])) do
  if task == ARGV[6] then skipped = index end
end
return redis.call('ZRANGEBYSCORE', ends, ARGV[5], '+inf', 'WITHSCORES', 'LIMIT', skipped, ARGV[7])`,

  /** ARGV[5..6]: the lowest number, as in `list`, how many at the most. The oldest first. */
  listUnknown: `
trim(unknown, 100)
return rows(redis.call('ZRANGEBYSCORE', unknown, ARGV[5], '+inf', 'LIMIT', 0, ARGV[6]))`,

  /** Clears away what is past its retention. How many there are that something may still become of. */
  tidy: `
trim(list, 100)
trim(unknown, 100)
return redis.call('ZCARD', open) + redis.call('ZCARD', unknown)`
} as const
