import t, { type Test } from 'tap'
import { setTimeout as wait } from 'node:timers/promises'
import { anyItems, submitBatch } from '../helpers/batches.ts'
import { clock } from '../helpers/clock.ts'
import { openEvents, type TestEventSource } from '../helpers/event-source.ts'
import { startGateway, type TestGateway, type TestGatewayOptions } from '../helpers/gateway.ts'
import { redisServer } from '../helpers/redis-server.ts'
import { startReplicas } from '../helpers/replicas.ts'
import { until } from '../helpers/until.ts'

const limits = 'concurrentTasks: 100, requestsPerMinute: 1000'
const config = `
plans:
  default: { credits: 10, period: day, ${limits} }
  free: { credits: unlimited, ${limits} }
  other: { credits: unlimited, ${limits}, pool: other }
pools:
  team: { ceilings: { hour: 5, none: 40 } }
  other: { ceilings: { none: 2 } }
prices: { wan-2-5: 7.123456, "*": 1 }
batches: { enabled: true }
`
const monday = Date.UTC(2026, 10, 30, 11)
const dayEnds = '2026-12-01T00:00:00.000Z'
const header = 'x-gateway-credits'

async function gatewayAt (t: Test, options: TestGatewayOptions = {}) {
  const gateway = await startGateway(t, { time: clock(monday), config, ...options })
  return { ...gateway, ...tools(t, gateway) }
}

function tools (t: Test, { origin, submit, mint }: Pick<TestGateway, 'origin' | 'submit' | 'mint'>) {
  return {
    /** The header of so many submits, one after the other; `null`: there was none. */
    async headersOf (token: string, count: number, model = 'suno') {
      const all: Array<string | null> = []
      for (let index = 0; index < count; index++) all.push((await submit(token, 'x', model)).headers.get(header))
      return all
    },
    listen: async (subject: string, more = {}) =>
      await openEvents(t, `${origin}/gateway/events`, { token: await mint(subject, { ...more }) })
  }
}

/** What a stream has been told of credits. */
function credits ({ events }: TestEventSource) {
  return events.filter(({ type }) => type === 'credits').map(({ data }) => JSON.parse(data))
}

t.test('from 80 % on each submit has a header, and each step is one event for those who listen', async t => {
  const { headersOf, listen, mint, call } = await gatewayAt(t)
  const [alice, bob] = [await listen('alice'), await listen('bob')]
  const token = await mint('alice')
  t.same(await headersOf(token, 11), [
    ...Array.from({ length: 7 }, () => null),
    'subject;used=80;left=2;reset=46800',
    'subject;used=80;left=1;reset=46800',
    'subject;used=100;left=0;reset=46800',
    null
  ])
  await until('both are told', () => credits(alice).length === 2)
  t.same(credits(alice), [
    { level: 'subject', usedPercent: 80, left: 2, resetsAt: dayEnds },
    { level: 'subject', usedPercent: 100, left: 0, resetsAt: dayEnds }
  ])
  t.same(credits(bob), [], 'nobody else is')
  t.equal((await call('/gateway/tasks', { token })).headers.get(header), null)
})

t.test('an event of credits has no cursor: whoever comes back goes on where it was', async t => {
  const { headersOf, listen, mint } = await gatewayAt(t)
  const stream = await listen('alice')
  await headersOf(await mint('alice'), 1, 'wan-2-5')
  await headersOf(await mint('alice'), 1)
  await until('it is told', () => credits(stream).length === 1)
  t.match(stream.text, /event: credits\ndata: .*\n\n/)
  t.notMatch(stream.text, /event: credits\ndata: .*\nid:/)
})

t.test('a new day begins anew, and what an RFC can not write is rounded down', async t => {
  const { headersOf, mint, time, listen } = await gatewayAt(t)
  const token = await mint('alice', { ttlSeconds: 80_000 })
  t.same(await headersOf(token, 2, 'wan-2-5'), [null, null])
  t.same(await headersOf(token, 1), ['subject;used=80;left=1.876;reset=46800'])
  time.advance(46_800_000)
  const stream = await listen('alice')
  t.same(await headersOf(token, 1, 'wan-2-5'), [null])
  t.same(await headersOf(token, 1), ['subject;used=80;left=1.876;reset=86400'])
  await until('it is told again', () => credits(stream).length === 1)
  t.match(credits(stream), [{ left: 1.876544, resetsAt: '2026-12-02T00:00:00.000Z' }])
})

t.test('a pool is told to those of its subject who draw on it, and never what others have used of it', async t => {
  const { headersOf, listen, mint } = await gatewayAt(t)
  const inPool = await listen('alice', { plan: 'free', pool: 'team' })
  const strangers = [
    await listen('alice', { plan: 'free' }),
    await listen('alice', { plan: 'other', pool: 'team' }),
    await listen('bob', { plan: 'free', pool: 'team' })
  ]
  t.same(await headersOf(await mint('bob', { plan: 'free', pool: 'team' }), 3), [null, null, null])
  const token = await mint('alice', { plan: 'free', pool: 'team' })
  t.same(await headersOf(token, 2), ['pool;used=80;left=1;reset=3600', 'pool;used=100;left=0;reset=3600'])
  await until('both are told', () => credits(inPool).length === 2)
  const resetsAt = '2026-11-30T12:00:00.000Z'
  t.same(credits(inPool), [
    { level: 'pool', usedPercent: 80, left: 1, resetsAt }, { level: 'pool', usedPercent: 100, left: 0, resetsAt }
  ])
  await wait(50)
  for (const stranger of strangers) t.same(credits(stranger), [])
})

t.test("a plan's pool counts too, and what is prepaid does not come back by itself", async t => {
  const { headersOf, listen, mint } = await gatewayAt(t)
  const stream = await listen('alice', { plan: 'other' })
  t.same(await headersOf(await mint('alice', { plan: 'other' }), 2), [null, 'pool;used=100;left=0'])
  await until('it is told', () => credits(stream).length === 1)
  t.same(credits(stream), [{ level: 'pool', usedPercent: 100, left: 0, resetsAt: null }])
})

t.test('both are told of at once, by a batch as well; what the upstream has refused tells nothing', async t => {
  const gateway = await gatewayAt(t)
  const { headersOf, mint, submit } = gateway
  const token = await mint('alice', { pool: 'team' })
  t.same(await headersOf(await mint('alice'), 4), [null, null, null, null])
  const refused = await submit(token, 'sandbox:http-400', 'suno')
  t.ok(refused.status >= 400)
  t.equal(refused.headers.get(header), null)
  const batch = await submitBatch(gateway, token, anyItems(5))
  t.equal(batch.status, 200)
  t.equal(batch.headers.get(header), 'subject;used=80;left=1;reset=46800, pool;used=100;left=0;reset=3600')
})

t.test('over two replicas each step is told once, wherever it is found', async t => {
  const server = await redisServer(t)
  const [one, two] = await startReplicas(t, 2, server.url, { config, time: clock(monday) })
  const [here, there] = [tools(t, one!), tools(t, two!)]
  const streams = [await here.listen('alice'), await there.listen('alice')]
  const token = await one!.mint('alice')
  t.same(await here.headersOf(token, 1, 'wan-2-5'), [null])
  t.same(await here.headersOf(token, 1), ['subject;used=80;left=1.876;reset=46800'])
  await until('both have heard it', () => streams.every(stream => credits(stream).length === 1))
  t.same(await there.headersOf(token, 1), ['subject;used=80;left=0.876;reset=46800'])
  await wait(100)
  for (const stream of streams) t.match(credits(stream), [{ level: 'subject', usedPercent: 80, left: 1.876544 }])
})
