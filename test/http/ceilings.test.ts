import t from 'tap'
import { anyItems, submitBatch } from '../helpers/batches.ts'
import { clock } from '../helpers/clock.ts'
import { adminToken, issuerToken, startGateway } from '../helpers/gateway.ts'

const config = `
plans:
  default: { credits: unlimited, concurrentTasks: 100, requestsPerMinute: 100000, pollsPerMinute: 100000 }
  small: { credits: 50, ceilings: { week: 9 }, pool: team }
  team: { credits: 50, pool: team, concurrentTasks: 100, requestsPerMinute: 100000 }
pools:
  team: { ceilings: { hour: 3, day: 10 }, concurrentTasks: 4, zone: Europe/Berlin, resetHour: 6 }
  prepaid: { ceilings: { none: 0 } }
gateway: { ceilings: { day: 100, month: 100 }, concurrentTasks: 6 }
prices: { dear: 11, "wan-*": { credits: 2, onFailed: refund }, suno: 0, "*": 1 }
batches: { enabled: true }
`
/** Noon in Berlin, on a Monday: the day there ends at 05:00 UTC. */
const monday = Date.UTC(2026, 10, 30, 11)
const dayEnds = '2026-12-01T05:00:00.000Z'
const hourEnds = '2026-11-30T12:00:00.000Z'

t.test('the refusal names the level that has too little, and when it begins anew', async t => {
  const time = clock(monday)
  const { mint, submit, sandbox, call } = await startGateway(t, { config, time })
  const [alice, bob] = [await mint('alice', { plan: 'team' }), await mint('bob', { pool: 'team', ttlSeconds: 9000 })]
  t.equal((await submit(alice, 'x', 'wan-2-5')).status, 200)
  t.match((await call('/gateway/quote/wan-2-5', { token: bob, body: { input: {} } })).json, { left: 1, enough: false })
  const refused = await submit(bob, 'x', 'wan-2-5')
  t.match(refused, { status: 402, error: 'GW_CREDITS_EXHAUSTED' })
  t.match(refused.json, {
    message: `The credits of this pool are used up until ${hourEnds}.`,
    error: { code: 'GW_CREDITS_EXHAUSTED', level: 'pool', resetsAt: hourEnds }
  })
  t.equal(refused.headers.get('x-should-retry'), 'false')
  t.equal(refused.headers.get('retry-after'), null)
  t.match((await submit(bob, 'x', 'dear')).json.error, { level: 'pool', resetsAt: dayEnds }, 'the longest window')
  t.equal((await submit(bob, 'x', 'suno')).status, 200)
  t.equal((await submit(await mint('eve'), 'x', 'wan-2-5')).status, 200, 'and others are not in it')
  time.advance(3_600_000)
  t.equal((await submit(bob, 'x', 'wan-2-5')).status, 200)
  t.match((await submit(await mint('carol', { plan: 'small' }), 'x', 'dear')).json.error, { level: 'pool' })
  t.match((await submit(await mint('dave', { plan: 'small', pool: 'prepaid' }), 'x', 'nano')).json, {
    message: 'The credits of this pool are used up until the operator adds some.',
    error: { level: 'pool', resetsAt: null }
  })
  t.equal(sandbox.submits.length, 4)
})

t.test('the plan and the whole gateway have their level, too', async t => {
  const { mint, submit } = await startGateway(t, {
    time: clock(monday),
    config: `
plans: { default: { credits: unlimited, ceilings: { week: 3 } }, other: { credits: unlimited } }
gateway: { ceilings: { month: 5 } }
prices: { "*": 2 }`
  })
  const [alice, bob] = [await mint('alice'), await mint('bob', { plan: 'other' })]
  t.equal((await submit(alice)).status, 200)
  t.match((await submit(alice)).json.error, { level: 'plan', resetsAt: '2026-12-07T00:00:00.000Z' })
  t.equal((await submit(bob)).status, 200)
  t.match((await submit(bob)).json.error, { level: 'gateway', resetsAt: '2026-12-01T00:00:00.000Z' })
})

t.test('as many tasks run in a pool as may, and in the gateway', async t => {
  const { mint, submit, call, time } = await startGateway(t, { config, time: clock(monday) })
  const [alice, bob] = [await mint('alice', { pool: 'team' }), await mint('bob', { pool: 'team', ttlSeconds: 9000 })]
  const made = []
  for (const token of [alice, alice, bob, bob]) made.push((await submit(token, 'x', 'suno')).json.data.taskId)
  const refused = await submit(bob, 'x', 'suno')
  t.match(refused, { status: 429, error: 'GW_TOO_MANY_TASKS', text: /tasks of this pool/ })
  t.match(refused.headers.get('retry-after'), /^\d+$/)
  const eve = await mint('eve')
  for (let count = 0; count < 2; count++) t.equal((await submit(eve, 'x', 'suno')).status, 200)
  t.match(await submit(eve, 'x', 'suno'), { status: 429, text: /tasks of the whole gateway/ })
  time.advance(60_000)
  t.equal((await call(`/api/v1/statusTask/suno?taskId=${made[0]}`, { token: alice })).status, 200)
  t.equal((await submit(eve, 'x', 'suno')).status, 200)
  t.equal((await submit(bob, 'x', 'suno')).status, 200, 'its own ended tasks are looked at')
})

t.test('a batch draws on what is above its subject for each of its tasks, or for none', async t => {
  const gateway = await startGateway(t, { config, time: clock(monday) })
  const { mint, submit } = gateway
  const token = await mint('alice', { pool: 'team' })
  t.match((await submitBatch(gateway, token, anyItems(4))).json.error, { level: 'pool', resetsAt: hourEnds })
  t.equal((await submitBatch(gateway, token, anyItems(3))).status, 200)
  t.match((await submit(token, 'x', 'nano')).json.error, { level: 'pool' })
})

t.test('a caller is told what is left of its pool, and of what has less than itself; not what others have', async t => {
  const { mint, submit, call } = await startGateway(t, { config, time: clock(monday) })
  const token = await mint('alice', { plan: 'small' })
  const shown = async () => (await call('/gateway/session', { token })).json.above
  const balance = async () => (await call('/api/v1/apikeys/current-balance', { token })).json.data
  t.same(await shown(), [
    { level: 'pool', left: 3, resetsAt: hourEnds }, { level: 'plan', left: 9, resetsAt: '2026-12-07T00:00:00.000Z' }
  ])
  t.equal(await balance(), 3)
  await submit(await mint('bob', { pool: 'team' }), 'x', 'wan-2-5')
  t.match(await shown(), [{ level: 'pool', left: 1 }, { level: 'plan', left: 9 }])
  t.equal(await balance(), 1)
  const rich = await mint('eve')
  t.match((await call('/gateway/session', { token: rich })).json.above, [{ level: 'gateway', left: 98 }])
  t.equal((await call('/api/v1/apikeys/current-balance', { token: rich })).json.data, 98)
})

t.test('of 500 parallel submits of twenty subjects in a pool with credits for one, one reaches the upstream', async t => {
  const { mint, submit, sandbox } = await startGateway(t, {
    time: clock(monday),
    config: `
plans: { default: { credits: unlimited, requestsPerMinute: 100000, concurrentTasks: 1000 } }
pools: { team: { ceilings: { day: 1.5 } } }
prices: { "*": 1 }`
  })
  const tokens = await Promise.all(Array.from({ length: 20 }, (_, index) => mint(`user-${index}`, { pool: 'team' })))
  const replies = await Promise.all(Array.from({ length: 500 }, (_, index) => submit(tokens[index % 20]!, `cube ${index}`)))
  t.equal(replies.filter(({ status }) => status === 200).length, 1)
  t.equal(replies.filter(({ error }) => error === 'GW_CREDITS_EXHAUSTED').length, 499)
  t.equal(sandbox.submits.length, 1)
})

t.test('a long body is not read where nothing is left above its caller', async t => {
  const { mint, call } = await startGateway(t, { config, time: clock(monday) })
  const token = await mint('alice', { pool: 'prepaid' })
  const body = JSON.stringify({ input: { prompt: 'x'.repeat(70_000) } })
  t.match((await call('/api/v1/generateTask/nano', { token, body })).json.error, { level: 'pool', resetsAt: null })
  t.equal((await call('/api/v1/generateTask/suno', { token, body })).status, 200)
})

t.test('a pool that is not there is refused: at minting, and in a session of before', async t => {
  const { mint, call } = await startGateway(t, { config })
  const body = { subject: 'alice', pool: 'sales' }
  t.match(await call('/gateway/sessions', { token: issuerToken, body }), { status: 400 })
  const token = await mint('alice', { pool: 'prepaid' })
  t.equal((await call('/gateway/session', { token })).status, 200)
  const later = await startGateway(t, { config: 'plans: { default: {} }' })
  t.match(await later.call('/gateway/session', { token }), { status: 401, error: 'GW_BAD_SESSION' })
})

t.test("a team's token is in the pool that it was created for, and says so", async t => {
  const { call, submit } = await startGateway(t, {
    config, time: clock(monday), env: { GATEWAY_ADMIN_TOKEN: adminToken }
  })
  const admin = (body: object) => call('/gateway/admin/tokens', { token: adminToken, body })
  t.match(await admin({ subject: 'alice', pool: 'sales' }), {
    status: 400, text: /There is no pool \\"sales\\": pools are \\"team\\", \\"prepaid\\"/
  })
  const { token } = (await admin({ subject: 'alice', pool: 'prepaid' })).json
  t.match((await submit(token, 'x', 'nano')).json.error, { level: 'pool', resetsAt: null })
  const { items } = (await call('/gateway/admin/tokens', { token: adminToken })).json
  t.match(items, [{ subject: 'token:alice', pool: 'prepaid' }])
  const { items: entries } = (await call('/gateway/admin/audit', { token: adminToken })).json
  t.match(entries, [{ kind: 'create', detail: { plan: 'default', pool: 'prepaid' } }])
})
