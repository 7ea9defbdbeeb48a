/** How long the sums of a day are kept, ms. */
const usageMs = 400 * 86_400_000

/** Lua by which a reservation's credits and uses go back, and its day's sums are kept. */
export const creditFunctions = `
local function keepAccount ()
  -- What an operator gave does not end by itself.
  if tonumber(redis.call('HGET', account, 'granted') or '0') > 0 then redis.call('PERSIST', account)
  else redis.call('PEXPIRE', account, keepMs) end
end

-- The uses that go back beside the credits: none of a task that has failed.
local function giveBack (it, uses)
  local period = base .. 'period:' .. it.period
  if redis.call('EXISTS', period) == 1 then add(period, 'used', '-' .. it.fromPeriod) end
  add(account, 'granted', it.fromGrants)
  keepAccount()
  local session = base .. 'session:' .. (it.session or '')
  if redis.call('EXISTS', session) == 0 then return end
  add(session, 'credits', '-' .. it.cost)
  add(session, 'uses', '-' .. uses)
end

local function tally (it, what, change)
  local usage = base .. 'usage:' .. it.day
  add(usage, what .. ':' .. it.model, change)
  redis.call('PEXPIRE', usage, ${usageMs})
end

local function enlist (it)
  if redis.call('ZADD', list, it.number, it.number) == 0 then return end
  redis.call('PEXPIRE', list, keepMs)
  tally(it, 'tasks', '1')
  tally(it, 'microcredits', it.cost)
end
`

/** Scripts of what a subject may spend, and has spent. */
export const creditScripts = {
  /** ARGV[5]: when a period began (Unix ms). What is used of it, what is left of grants, how many tasks are unfinished. */
  balance: `
return { redis.call('HGET', base .. 'period:' .. ARGV[5], 'used') or '0', redis.call('HGET', account, 'granted') or '0',
  redis.call('ZCARD', open) }`,

  /** ARGV[5]: the id of a session with limits of its own. Its uses and credits. */
  spent: `
return { redis.call('HGET', base .. 'session:' .. ARGV[5], 'uses') or '0',
  redis.call('HGET', base .. 'session:' .. ARGV[5], 'credits') or '0' }`,

  /** ARGV[5]: microcredits. What is left of grants with them; nil when that could not be counted. */
  grant: `
if tonumber(redis.call('HGET', account, 'granted') or '0') + tonumber(ARGV[5]) > ${Number.MAX_SAFE_INTEGER} then return false end
redis.call('HINCRBY', account, 'granted', ARGV[5])
redis.call('RPUSH', base .. 'grants', digits(now) .. ' ' .. ARGV[5])
keepAccount()
return redis.call('HGET', account, 'granted')`
} as const
