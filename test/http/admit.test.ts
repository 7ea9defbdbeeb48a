import { DatabaseSync } from 'node:sqlite'
import t from 'tap'
import { microcredits } from '../../src/domain/policy.ts'
import { openStore } from '../../src/stores.ts'
import { anyItems, submitBatch } from '../helpers/batches.ts'
import { crankedGateway } from '../helpers/cranked-gateway.ts'
import { startGateway, taskMs, type TestGateway } from '../helpers/gateway.ts'
import { redisServer } from '../helpers/redis-server.ts'
import { overStore, storeFile } from '../helpers/store-file.ts'
import { until } from '../helpers/until.ts'

t.test('of two requests that both found their idempotency key new, the ledger lets one through', async t => {
  let looks = 0
  const { mint, submit, sandbox } = await startGateway(t, {
    // Both look before either has reserved, as on two replicas.
    createGateway: overStore(({ idempotency }) => ({
      idempotency: { earlier: async (...asked) => ++looks <= 2 ? null : await idempotency.earlier(...asked) }
    }))
  })
  const token = await mint('alice')
  const send = (prompt: string) => submit(token, prompt, undefined, { headers: { 'idempotency-key': 'k' } })
  const first = send('sandbox:slow-headers')
  await until('it is sent', () => sandbox.waiting === 1)
  const second = send('sandbox:slow-headers')
  await until('it has looked again, and waits', () => looks === 3)
  const other = await send('another prompt')
  t.match(other, { error: 'GW_IDEMPOTENCY_MISMATCH' })
  t.equal(other.headers.get('idempotency-replayed'), null)
  sandbox.release()
  const [made, replayed] = await Promise.all([first, second])
  t.match(made, { status: 200 })
  t.match(replayed, { status: 200, text: made.text })
  t.equal(replayed.headers.get('idempotency-replayed'), 'true')
  t.equal(sandbox.submits.length, 1)
})

t.test('a submit whose first has come to nothing by the time it looks again is made itself', async t => {
  let isFirst = true
  const { mint, submit, sandbox } = await startGateway(t, {
    createGateway: overStore(({ ledger }) => ({
      ledger: {
        ...ledger,
        async reserve (request) {
          if (!isFirst) return await ledger.reserve(request)
          isFirst = false
          return { granted: false, reason: 'duplicate', earlier: { kind: 'pending' } }
        }
      }
    }))
  })
  const reply = await submit(await mint('alice'), 'x', undefined, { headers: { 'idempotency-key': 'k' } })
  t.equal(reply.status, 200)
  t.equal(reply.headers.get('idempotency-replayed'), null)
  t.equal(sandbox.submits.length, 1)
})

const config = `
plans: { default: { concurrentTasks: 5, requestsPerMinute: 100000, credits: unlimited } }
batches: { enabled: true }`
const models = [
  { id: 'nano-banana', category: 'image' },
  { id: 'sora-2', category: 'video' }
] as const
const polls = (calls: ReadonlyArray<{ url: string }>): number =>
  calls.filter(({ url }) => url.includes('/statusTask/')).length

for (const kind of ['SQLite', 'Redis']) {
  t.test(`${kind}: finished tasks that nobody has asked about take no slot from the next submit`, async t => {
    const env = kind === 'Redis' ? { GATEWAY_STORE: (await redisServer(t)).url } : {}
    const { mint, submit, call, sandbox, time } = await startGateway(t, { config, models, env })
    const token = await mint('alice')
    for (let count = 0; count < 5; count++) t.equal((await submit(token)).status, 200)
    const refused = await submit(token)
    t.match(refused, { status: 429, error: 'GW_TOO_MANY_TASKS' })
    t.equal(refused.headers.get('retry-after'), '3', 'they may be asked about again by then')
    t.equal(polls(sandbox.calls), 5)
    time.advance(taskMs)
    t.equal((await submit(token)).status, 200)
    t.equal(polls(sandbox.calls), 10)
    t.equal((await call('/gateway/session', { token })).json.tasks.unfinished, 1, 'all five have ended')
  })
}

t.test(
  'however often a subject is refused, its tasks are asked about within their intervals, and the shortest of these is told',
  async t => {
    const { mint, submit, sandbox, time } = await startGateway(t, { config, models })
    const [token, bob] = [await mint('alice'), await mint('bob')]
    for (const model of ['sora-2', 'sora-2', 'sora-2', 'sora-2', 'nano-banana']) {
      t.equal((await submit(token, 'sandbox:forever', model)).status, 200)
    }
    t.equal((await submit(bob)).status, 200)
    const refuse = async (count: number, retryAfter: string) => {
      for (const refused of await Promise.all(Array.from({ length: count }, () => submit(token)))) {
        t.match(refused, { status: 429, error: 'GW_TOO_MANY_TASKS' })
        t.equal(refused.headers.get('retry-after'), retryAfter)
      }
    }
    await refuse(20, '3')
    await refuse(5, '3')
    t.equal(polls(sandbox.calls), 5, "nor is another subject's task")
    time.advance(2500)
    await refuse(5, '1')
    t.equal(polls(sandbox.calls), 5)
    time.advance(500)
    await refuse(20, '3')
    t.equal(polls(sandbox.calls), 6, 'the picture alone')
    time.advance(12_000)
    await refuse(5, '3')
    t.equal(polls(sandbox.calls), 11, 'and the videos')
  }
)

t.test(
  'an upstream that is slow to say holds a submit up for a few seconds only, and is heard all the same',
  async t => {
    const { mint, submit, sandbox, pass, timers } = await crankedGateway(t, { config, models })
    const token = await mint('alice')
    for (let count = 0; count < 5; count++) await submit(token)
    pass(taskMs)
    const held: Array<() => void> = []
    for (let count = 0; count < 5; count++) {
      sandbox.next(({ url }, response) => {
        const taskId = new URL(String(url), 'http://sandbox').searchParams.get('taskId')
        held.push(() =>
          response
            .writeHead(200, { 'content-type': 'application/json' })
            .end(
              JSON.stringify({ code: 200, message: 'success', data: { taskId, state: 'success', resultJson: '{}' } })
            )
        )
      })
    }
    const answer = submit(token)
    await until('all are asked about', () => held.length === 5)
    await until('it waits', () => timers.waiting > 0)
    pass(3000)
    const refused = await answer
    t.match(refused, { status: 429, error: 'GW_TOO_MANY_TASKS' })
    t.equal(refused.headers.get('retry-after'), '1')
    for (const release of held) release()
    await until('the answers came', async () => (await submit(token)).status === 200)
    t.equal(polls(sandbox.calls), 5)
  }
)

t.test('a submit whose own answer is still out is nothing to ask about', async t => {
  const { mint, submit, sandbox } = await startGateway(t, { config: 'plans: { default: { concurrentTasks: 1 } }' })
  const token = await mint('alice')
  const first = submit(token, 'sandbox:slow-headers')
  await until('it is under way', () => sandbox.submits.length === 1)
  const refused = await submit(token)
  t.match(refused, { status: 429, error: 'GW_TOO_MANY_TASKS' })
  t.equal(refused.headers.get('retry-after'), '5')
  t.equal(polls(sandbox.calls), 0)
  sandbox.release()
  t.equal((await first).status, 200)
})

t.test('a batch gets the slots of finished tasks too, all that it needs or none', async t => {
  const gateway = await startGateway(t, { config, models })
  const { mint, submit, time, call } = gateway
  const token = await mint('alice')
  for (const prompt of ['a', 'b', 'sandbox:forever', 'sandbox:forever', 'sandbox:forever']) await submit(token, prompt)
  time.advance(taskMs)
  t.match(await submitBatch(gateway, token, anyItems(3)), { status: 429, error: 'GW_TOO_MANY_TASKS' })
  t.equal((await call('/gateway/session', { token })).json.tasks.unfinished, 3)
  t.equal((await submitBatch(gateway, token, anyItems(2))).status, 200)
})

const path = '/api/v1/apikeys/current-balance'

/** As the operator does it, from a process of its own beside the running gateway. */
async function grant ({ settings, time }: TestGateway, subject: string, credits: number): Promise<void> {
  const store = await openStore(settings, time, 'operator')
  await store.accounts.grant({ subject, microcredits: microcredits(credits) })
  await store.close()
}

t.test(
  "the balance is the caller's own credits, in the upstream's envelope, and the upstream is not asked",
  async t => {
    const { call, mint, submit, status, sandbox, time, lines } = await startGateway(t, {
      config: 'plans: { default: { credits: 100 } }\nprices: { "*": 25.13 }'
    })
    const token = await mint('alice')
    const balance = async () => {
      const reply = await call(path, { token })
      t.equal(reply.status, 200)
      t.match(reply.headers.get('content-type'), /^application\/json/)
      return reply.text
    }
    t.equal(await balance(), '{"code":200,"message":"success","data":100}')
    const { taskId } = (await submit(token)).json.data
    t.equal(await balance(), '{"code":200,"message":"success","data":74.87}', 'what is set aside is gone')
    const failing = (await submit(token, 'sandbox:failed')).json.data.taskId
    t.equal(await balance(), '{"code":200,"message":"success","data":49.74}')
    await submit(token, 'sandbox:http-500')
    t.equal(await balance(), '{"code":200,"message":"success","data":49.74}', 'a refusal costs nothing')
    time.advance(taskMs)
    await status(token, taskId)
    await status(token, failing)
    t.equal(await balance(), '{"code":200,"message":"success","data":74.87}', 'a failed task gives its credits back')
    t.equal((await call(path, { token: await mint('bob') })).json.data, 100)
    t.notOk(sandbox.calls.some(({ url }) => url === path))
    t.match(
      lines().find(line => line.operation === 'currentBalance'),
      { stage: 'reply', granted: true, code: 'OK', subject: 'app:alice', status: 200 }
    )
  }
)

t.test('the balance of a plan without a limit is null', async t => {
  const { call, mint } = await startGateway(t)
  t.equal((await call(path, { token: await mint('alice') })).text, '{"code":200,"message":"success","data":null}')
})

t.test('grants are part of the balance, and outlive the period', async t => {
  const gateway = await startGateway(t, {
    config: 'plans: { default: { credits: 1, period: minute } }',
    store: storeFile(t)
  })
  const { call, mint, submit, time } = gateway
  const token = await mint('alice')
  const left = async () => (await call(path, { token })).json.data
  await grant(gateway, 'app:alice', 1.5)
  t.equal(await left(), 2.5)
  t.match((await call('/gateway/session', { token })).json.credits, { limit: 1, used: 0, granted: 1.5, left: 2.5 })
  for (const after of [1.5, 0.5]) {
    t.equal((await submit(token)).status, 200)
    t.equal(await left(), after)
  }
  t.equal((await submit(token)).error, 'GW_CREDITS_EXHAUSTED')
  t.equal(await left(), 0.5)
  time.advance(60_000)
  t.equal(await left(), 1.5)
  t.equal((await call(path, { token: await mint('bob') })).json.data, 1)
})

for (const kind of ['SQLite', 'Redis']) {
  t.test(
    `${kind}: the balance is the least of what the session and its subject have left, and so is what a submit gets`,
    async t => {
      const env = kind === 'Redis' ? { GATEWAY_STORE: (await redisServer(t)).url } : {}
      const config = 'plans: { default: { credits: 10 }, endless: { credits: unlimited } }\nprices: { "*": 0.7 }'
      const { call, mint, submit } = await startGateway(t, { config, env })
      const left = async (token: string) => (await call(path, { token })).json.data
      const narrow = await mint('alice', { credits: 1.5 })
      t.equal(await left(narrow), 1.5)
      t.equal((await submit(narrow)).status, 200)
      t.equal(await left(narrow), 0.8)
      t.equal((await submit(narrow)).status, 200)
      t.equal(await left(narrow), 0.1)
      t.match(await submit(narrow), { status: 402, error: 'GW_CREDITS_EXHAUSTED' })
      t.match((await call('/gateway/session', { token: narrow })).json.credits, {
        left: 8.6,
        session: { limit: 1.5, used: 1.4, left: 0.1 }
      })
      t.equal(await left(await mint('alice')), 8.6, 'a session without limits has what its subject has')
      const wide = await mint('alice', { credits: 100 })
      t.equal(await left(wide), 8.6, 'a session has no more than its subject')
      t.equal(await left(await mint('bob', { plan: 'endless', credits: 3 })), 3, 'the session alone has a limit')
      t.equal(await left(await mint('bob', { plan: 'endless', uses: 3 })), null, 'uses are no credits')
    }
  )
}

t.test('asking for the balance takes any session, and counts as a poll', async t => {
  const { call, mint, status } = await startGateway(t, { config: 'plans: { default: { pollsPerMinute: 3 } }' })
  const token = await mint('alice', { scopes: [] })
  t.match(await call(path), { status: 401, error: 'GW_NO_SESSION' })
  t.match(await call(path, { token: `${token}x` }), { status: 401, error: 'GW_BAD_SESSION' })
  t.equal((await call(path, { token })).headers.get('ratelimit-remaining'), '2')
  const reader = await mint('alice')
  t.match(await status(reader, 'x'), { status: 404 })
  t.equal((await call('/gateway/tasks', { token: reader })).status, 200)
  for (const asked of [path, '/gateway/tasks', '/api/v1/statusTask/nano-banana?taskId=x']) {
    t.match(await call(asked, { token: reader }), { status: 429, error: 'GW_RATE_LIMITED' }, asked)
  }
})

t.test('the balance takes no query and no other method', async t => {
  const { call, mint, sandbox } = await startGateway(t)
  const token = await mint('alice')
  for (const query of ['x=1', 'subject=app:bob', 'taskId=x', 'key=x']) {
    t.match(await call(`${path}?${query}`, { token }), { status: 400, error: 'GW_BAD_REQUEST' }, query)
  }
  for (const method of ['POST', 'PUT', 'PATCH', 'DELETE']) {
    const refused = await call(path, { method, token })
    t.match(refused, { status: 405, error: 'GW_METHOD_NOT_ALLOWED' })
    t.equal(refused.headers.get('allow'), 'GET, HEAD')
  }
  t.equal(sandbox.calls.length, 0)
})

t.test('while the store can not be read, nobody is told of credits or tasks, and afterwards everybody is', async t => {
  const store = storeFile(t)
  const { call, mint, submit } = await startGateway(t, { store, config: 'plans: { default: { credits: 5 } }' })
  const token = await mint('alice')
  await submit(token)
  const db = new DatabaseSync(store)
  t.teardown(() => db.close())
  const rename = (from: string, to: string) => {
    for (const table of ['credits', 'tasks']) db.exec(`ALTER TABLE ${table}${from} RENAME TO ${table}${to}`)
  }
  const paths = [path, '/gateway/session', '/gateway/tasks']
  rename('', '_away')
  for (const asked of paths) {
    const reply = await call(asked, { token })
    t.match(reply, { status: 503, error: 'GW_STORE_DOWN' }, asked)
    t.ok(reply.headers.has('retry-after'))
  }
  rename('_away', '')
  for (const asked of paths) t.equal((await call(asked, { token })).status, 200, asked)
  t.equal((await call(path, { token })).json.data, 4)
})
