import t from 'tap'
import { sqliteStore } from '../../src/adapters/sqlite/store.ts'
import type { KeyRing } from '../../src/domain/key-ring.ts'
import type { PatientLedger } from '../../src/domain/ledger-client.ts'
import type { TaskLedger } from '../../src/domain/ledger.ts'
import { operationOf, type Upstream, type UpstreamKey } from '../../src/domain/upstream.ts'
import { gatewayError } from '../../src/errors.ts'
import type { ReservedSubmit } from '../../src/http/admit.ts'
import { type RequestContext, newRequestState } from '../../src/http/context.ts'
import { forwardSubmit } from '../../src/http/forward.ts'
import { startGateway } from '../helpers/gateway.ts'
import { holdStore, missedClaim, storeFile } from '../helpers/store-file.ts'

const keys = ['apixo-key-number-one', 'apixo-key-number-two']

t.test('a reservation that lapsed while it waited sends nothing', async t => {
  let sent = 0
  const upstream = { send: () => { sent++ } } as unknown as Upstream
  const ledger = { advance: async () => false } as unknown as TaskLedger
  const forward = forwardSubmit(
    { operation: operationOf('generateTask'), upstream, keys: {} as KeyRing },
    ledger,
    {} as PatientLedger
  )
  const order = { reservation: '1', key: { id: 'a' } } as ReservedSubmit
  await t.rejects(forward(order, { call: newRequestState(() => {}) } as unknown as RequestContext), {
    code: 'GW_OVERLOADED'
  })
  t.equal(sent, 0)
})

/** A submit over a ledger that fails at its `failing`th note that something is being sent. */
function failingAt (failing: number) {
  const owed: unknown[] = []
  const sent: string[] = []
  let notes = 0
  const ledger = {
    advance: async () => {
      if (++notes === failing) throw gatewayError('GW_STORE_DOWN')
      return true
    }
  } as unknown as TaskLedger
  const refusal = {
    status: 401,
    contentType: 'application/json',
    retryAfter: undefined,
    body: Buffer.from('{"code":401,"message":"no"}'),
    leaksKey: false
  }
  const upstream = {
    send: ({ key }) => {
      sent.push(key.id)
      return { answer: Promise.resolve(refusal), cancel () {} }
    }
  } as Upstream
  const [first, second] = [{ id: 'first' }, { id: 'second' }] as unknown as [UpstreamKey, UpstreamKey]
  const ring = { choose: () => second, verify: async () => 'refused' } as unknown as KeyRing
  const patient = { enqueue: (...step: unknown[]) => { owed.push(step) } } as unknown as PatientLedger
  const forward = forwardSubmit({ operation: operationOf('generateTask'), upstream, keys: ring }, ledger, patient)
  const order = { reservation: '7', model: 'suno', key: first, body: Buffer.from('{}') } as unknown as ReservedSubmit
  return { run: () => forward(order, { call: newRequestState(() => {}) } as unknown as RequestContext), owed, sent }
}

t.test(
  'a store that fails when a submit is to go out is told later that nothing came of it, also if it had noted it',
  async t => {
    const before = failingAt(1)
    await t.rejects(before.run(), { code: 'GW_STORE_DOWN' })
    t.same(before.sent, [])
    t.same(before.owed, [['7', { to: 'released' }]])

    const between = failingAt(2)
    await t.rejects(between.run(), { code: 'GW_STORE_DOWN' })
    t.same(between.sent, ['first'], 'its answer was complete: nothing was accepted')
    t.same(between.owed, [['7', { to: 'released' }]])

    const never = failingAt(0)
    t.match(await never.run(), { kind: 'our-key' })
    t.same(never.sent, ['first', 'second'])
    t.same(never.owed, [], 'what has been sent is settled, not given back')
  })

t.test('a submit that names an earlier task goes out with the key that made it, and with no other', async t => {
  const { submit, call, mint, sandbox, lines } = await startGateway(t, { keys })
  const token = await mint('alice')
  const [first, second] = [(await submit(token)).json.data.taskId, (await submit(token)).json.data.taskId]
  const again = (input: object) =>
    call('/api/v1/generateTask/nano-banana', { token, body: { input: { prompt: 'x', ...input } } })
  const madeBy = (taskId: string) => lines().find(line => line.taskId === taskId)?.keyId
  for (let round = 0; round < 3; round++) {
    const { json } = await again({ task_id: second })
    t.equal(madeBy(json.data.taskId), madeBy(second))
  }
  t.not(madeBy(first), madeBy(second))
  t.match(await again({ task_id: first, index: second }), {
    status: 400,
    json: { message: /different upstream accounts/ }
  })
  sandbox.revoke(keys[1]!)
  t.match(
    await again({ task_id: second }),
    { status: 502, error: 'GW_UPSTREAM_REFUSED_KEY' },
    'no other account knows that task'
  )
})

t.test(
  'a submit that names a task whose key has left the ring goes out with no other, and its status says when to ask again',
  async t => {
    const store = storeFile(t)
    const { submit, call, mint, gateway, time } = await startGateway(t, { store })
    const token = await mint('alice')
    const { taskId } = (await submit(token)).json.data
    await gateway.close()
    await t.rejects(call('/livez'))
    const other = await startGateway(t, { store, keys: ['another-key-of-the-operator'], time })
    const refused = await other.status(token, taskId)
    t.match(refused, { status: 503, error: 'GW_NO_KEY' })
    t.equal(refused.headers.get('retry-after'), '10')
    t.match(
      await other.call('/api/v1/generateTask/nano-banana', {
        token,
        body: { input: { prompt: 'x', task_id: taskId } }
      }),
      { error: 'GW_NO_KEY' }
    )
    t.equal(other.sandbox.submits.length, 0)
  }
)

t.test(
  'neither a 402, which may be about one price, nor a 401 to a status call keeps a key from anybody else',
  async t => {
    const { submit, status, mint, sandbox } = await startGateway(t)
    const [mallory, alice] = [await mint('mallory'), await mint('alice')]
    t.match(await submit(mallory, 'sandbox:http-402'), { status: 502, error: 'GW_UPSTREAM_REFUSED_KEY' })
    t.equal((await submit(alice)).status, 200)
    const { taskId } = (await submit(mallory, 'sandbox:status-http-401')).json.data
    t.match(await status(mallory, taskId), { status: 502, error: 'GW_UPSTREAM_REFUSED_KEY' })
    t.equal((await submit(alice)).status, 200)
    t.equal(sandbox.submits.length, 4)
  }
)

t.test('while the store can not serve, it is not ready, and nothing is sent', async t => {
  const store = storeFile(t)
  const { submit, call, mint, sandbox, gateway, time } = await startGateway(t, {
    store,
    config: 'plans: { default: { credits: 1 } }'
  })
  const token = await mint('alice')
  const letGo = holdStore(t, store)
  const refused = await submit(token)
  t.match(refused, { status: 503, error: 'GW_STORE_DOWN' })
  t.ok(refused.headers.get('retry-after'))
  t.match(await call('/readyz'), { status: 503, json: { status: 'unavailable', store: 'down' } })
  t.equal((await call('/livez')).status, 200)
  t.equal(sandbox.submits.length, 0)
  letGo()
  time.advance(1000)
  t.match(await call('/readyz'), { status: 200, json: { status: 'ok' } })
  await gateway.tidy()
  t.equal((await submit(token)).status, 200, 'and nothing was charged')
})

t.test(
  'a task whose claim could not be written is claimed when the store is back, and until then its outcome is unknown',
  async t => {
    const store = storeFile(t)
    const { submit, status, mint, sandbox, time, log, gateway } = await startGateway(t, { store })
    const token = await mint('alice')
    const answer = submit(token, 'sandbox:slow-headers')
    const letGo = await missedClaim(t, store, { sandbox, time })
    const lost = await answer
    t.match(lost, { status: 502, error: 'GW_OUTCOME_UNKNOWN' })
    t.equal(lost.headers.get('x-should-retry'), 'false')
    const [taskId] = [...sandbox.tasks.keys()]
    t.match(
      log.filter(line => line.alarm === 'store-down'),
      [{ to: 'claimed', taskId }],
      'the operator has the id'
    )
    letGo()
    await gateway.tidy()
    t.equal((await status(token, taskId!)).status, 200)
  }
)

t.test('a probe that gets no answer benches nobody, and the caller hears that it was our key', async t => {
  const { submit, mint, sandbox, log } = await startGateway(t)
  const token = await mint('alice')
  sandbox.next((_request, response) => {
    response.writeHead(401, { 'content-type': 'application/json' }).end('{"code":401,"message":"no"}')
  })
  sandbox.next(request => {
    request.socket.destroy()
  })
  t.match(await submit(token), { status: 502, error: 'GW_UPSTREAM_REFUSED_KEY' })
  t.same(log.filter(line => line.alarm !== undefined), [])
  t.equal((await submit(token)).status, 200)
})

t.test('what a crash cut off is told to the operator at the next start', async t => {
  const store = storeFile(t)
  const terms = { reservedMs: 1000, sentMs: 1000, giveUpMs: 1000, refundsPerPeriod: 0, retentionMs: 1000 }
  const earlier = sqliteStore({ path: store, synchronous: 'normal', now: Date.now, terms })
  t.equal(earlier.lost, 0)
  const demand = {
    subject: 'app:alice',
    operation: 'generateTask',
    model: 'sora-2',
    keyId: 'a',
    microcredits: 1,
    refundable: true,
    periodStart: 0,
    creditLimit: null,
    taskLimit: 9
  }
  const reserved = await earlier.ledger.reserve(demand)
  t.ok(reserved.granted && await earlier.ledger.advance(reserved.id, { to: 'sent', keyId: 'a' }))
  await earlier.close()
  const { log } = await startGateway(t, { store })
  t.match(log.filter(line => line.alarm !== undefined), [{ alarm: 'unknown-outcome', count: 1 }])
})
