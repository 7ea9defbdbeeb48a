import { once } from 'node:events'
import { connect } from 'node:net'
import { setTimeout as wait } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { sqliteStore } from '../../src/adapters/sqlite/store.ts'
import { gatewayError } from '../../src/errors.ts'
import { startGateway, taskMs, type TestGateway } from '../helpers/gateway.ts'
import { holdStore, missedClaim, overStore, storeFile } from '../helpers/store-file.ts'
import { until } from '../helpers/until.ts'

const keys = ['apixo-key-number-one', 'apixo-key-number-two']

t.test('a reservation that lapsed while it waited sends nothing', async t => {
  const { submit, mint, sandbox } = await startGateway(t, {
    createGateway: overStore(({ ledger }) => ({
      ledger: { ...ledger, advance: async (id, step) => step.to !== 'sent' && await ledger.advance(id, step) }
    }))
  })
  t.match(await submit(await mint('alice')), { status: 503, error: 'GW_OVERLOADED' })
  t.equal(sandbox.calls.length, 0)
})

/** A submit with keys that the upstream refuses, over a store that fails at its `failing`th note that one is sent. */
async function failingAt (t: Test, failing: number) {
  const steps: string[] = []
  let notes = 0
  const { submit, mint, sandbox, gateway } = await startGateway(t, {
    keys,
    createGateway: overStore(({ ledger }) => ({
      ledger: {
        ...ledger,
        async advance (id, step) {
          steps.push(step.to)
          if (step.to === 'sent' && ++notes === failing) throw gatewayError('GW_STORE_DOWN')
          return await ledger.advance(id, step)
        }
      }
    }))
  })
  const token = await mint('alice')
  for (const key of keys) sandbox.revoke(key)
  const reply = await submit(token)
  const sent = sandbox.calls.filter(({ url }) => url.includes('/generateTask/')).length
  const answered = steps.length
  await gateway.tidy()
  return { error: reply.error, sent, steps: steps.slice(0, answered), later: steps.slice(answered) }
}

t.test(
  'a store that fails when a submit is to go out is told later that nothing came of it, also if it had noted it',
  async t => {
    t.match(await failingAt(t, 1), { error: 'GW_STORE_DOWN', sent: 0, steps: ['sent'], later: ['released'] })
    t.match(
      await failingAt(t, 2),
      { error: 'GW_STORE_DOWN', sent: 1, steps: ['sent', 'sent'], later: ['released'] },
      'its answer was complete: nothing was accepted'
    )
    t.match(
      await failingAt(t, 0),
      { error: /GW_(?:NO_KEY|UPSTREAM_REFUSED_KEY)/, sent: 2, steps: ['sent', 'sent', 'released'], later: [] },
      'what has been sent is settled, not given back'
    )
  }
)

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

t.test('a session token becomes a call with the server\'s key, and the answer comes back as it is', async t => {
  const { submit, mint, sandbox, status, time, lines } = await startGateway(t)
  const token = await mint('alice')
  const submitted = await submit(token)
  t.equal(submitted.status, 200)
  t.same(submitted.json, { code: 200, message: 'success', data: { taskId: [...sandbox.tasks.keys()][0] } })
  t.equal(submitted.error, null)

  const { taskId } = submitted.json.data
  t.equal((await status(token, taskId)).json.data.state, 'pending')
  time.advance(taskMs)
  const done = await status(token, taskId)
  t.equal(done.json.data.state, 'success')
  t.type(done.json.data.resultJson, 'string')

  const calls = sandbox.calls.length
  t.equal((await status(token, taskId)).text, done.text, 'a finished task is answered from the ledger, byte for byte')
  t.equal(sandbox.calls.length, calls, 'and the upstream is not asked again')
  t.match(lines().find(line => line.operation === 'generateTask'), {
    stage: 'reply', granted: true, code: 'OK', subject: 'app:alice', model: 'nano-banana', taskId, status: 200
  })
})

t.test('a final state that is about another task, or comes with an error code, ends nothing', async t => {
  const { submit, mint, sandbox, status, time } = await startGateway(t)
  const token = await mint('alice')
  const { taskId } = (await submit(token)).json.data
  for (const body of [
    { code: 200, data: { taskId: 'another', state: 'success' } },
    { code: 500, data: { taskId, state: 'success' } }
  ]) {
    sandbox.next((_request, response) => {
      response.setHeader('content-type', 'application/json').end(JSON.stringify(body))
    })
    t.same((await status(token, taskId)).json, body, 'the answer passes as it is')
  }
  const asked = sandbox.calls.length
  t.equal((await status(token, taskId)).json.data.state, 'pending')
  t.equal(sandbox.calls.length, asked + 1, 'and the upstream is asked again')
  time.advance(5000)
  const short = { data: { state: 'success' } }
  sandbox.next((_request, response) => {
    response.setHeader('content-type', 'application/json').end(JSON.stringify(short))
  })
  t.same((await status(token, taskId)).json, short)
  t.same((await status(token, taskId)).json, short, 'an abbreviated answer to the question for this task ends it')
  t.equal(sandbox.calls.length, asked + 2)
})

t.test('an answer comes back byte for byte, short or long, in whatever encoding', async t => {
  const { submit, mint, sandbox, origin, time } = await startGateway(t)
  const token = await mint('alice')
  const { taskId } = (await submit(token)).json.data
  const bodies = [
    Buffer.from('{"code":200,"data":{"state":"pending","note":"ä €😀"}}'),
    Buffer.from(`{"code":200,"data":{"state":"pending","note":"${'ä€'.repeat(5000)}"}}`),
    Buffer.from('{"code":200,"data":{"state":"pending","note":"\xe4"}}', 'latin1')
  ]
  for (const body of bodies) {
    sandbox.next((_request, response) => {
      response.setHeader('content-type', 'application/json').end(body)
    })
    const response = await fetch(`${origin}/api/v1/statusTask/nano-banana?taskId=${taskId}`, {
      headers: { authorization: `Bearer ${token}` }
    })
    t.equal(response.headers.get('content-length'), String(body.length))
    t.same(Buffer.from(await response.arrayBuffer()), body)
    time.advance(5000)
  }
})

const config = 'plans: { default: {} }\nlimits: { addressRequestsPerMinute: 2 }'
const from = (address: string) => ({ headers: { 'x-forwarded-for': address } })

t.test('a proxy that is trusted says who is calling', async t => {
  const { call, log } = await startGateway(t, { config, env: { GATEWAY_TRUST_PROXY: '127.0.0.1' } })
  for (const address of ['203.0.113.1', '203.0.113.1', '203.0.113.2', '2001:db8::1', '2001:db8:0:1::1']) {
    t.equal((await call('/nowhere', from(address))).status, 404, address)
  }
  t.equal((await call('/nowhere', from('203.0.113.1'))).status, 429)
  t.equal((await call('/nowhere', from('2001:db8::ffff'))).status, 404)
  t.equal((await call('/nowhere', from('2001:db8::2'))).status, 429, 'a /64 is one caller')
  t.same(log.filter(line => line.level === 40), [])
})

t.test('a proxy that is not trusted is named once, with the setting', async t => {
  const { call, log } = await startGateway(t, { config: 'plans: { default: {} }' })
  await call('/nowhere', from('203.0.113.1'))
  await call('/nowhere', from('203.0.113.2'))
  const warnings = log.filter(line => line.level === 40)
  t.equal(warnings.length, 1)
  t.match(warnings[0], { proxy: '127.0.0.1', msg: /GATEWAY_TRUST_PROXY/ })
})

t.test('a forwarding header from the internet is a caller\'s own, and no reason to warn', async t => {
  const { gateway, log } = await startGateway(t, { config: 'plans: { default: {} }' })
  await gateway.app.inject({ url: '/nowhere', remoteAddress: '8.8.8.8', headers: { 'x-forwarded-for': '203.0.113.1' } })
  t.same(log.filter(line => line.level === 40), [])
})

function accessLine ({ lines }: TestGateway, operation: string) {
  return lines().find(line => line.operation === operation)
}

t.test('a submit runs to its end and is claimed although its caller has hung up', async t => {
  const gateway = await startGateway(t)
  const { mint, submit, sandbox, status } = gateway
  const token = await mint('alice')
  const caller = new AbortController()
  const answer = submit(token, 'sandbox:slow-headers', 'nano-banana', { signal: caller.signal })
  await until('the upstream has it', () => sandbox.waiting === 1)
  caller.abort()
  await t.rejects(answer)
  await wait(50)
  t.equal(accessLine(gateway, 'generateTask'), undefined, 'its line is not written while it works')
  sandbox.release()
  await until('its line is written', () => accessLine(gateway, 'generateTask') !== undefined)
  const [taskId] = [...sandbox.tasks.keys()]
  t.match(accessLine(gateway, 'generateTask'), {
    taskId,
    status: 499,
    stage: 'reply',
    granted: true,
    subject: 'app:alice'
  })
  t.equal((await status(token, taskId!)).status, 200)
})

t.test('a status call is cancelled with its caller', async t => {
  const gateway = await startGateway(t)
  const { mint, submit, sandbox, status } = gateway
  const token = await mint('alice')
  const { taskId } = (await submit(token, 'sandbox:status-slow-headers')).json.data
  const caller = new AbortController()
  const answer = status(token, taskId, 'nano-banana', { signal: caller.signal })
  await until('the upstream has it', () => sandbox.waiting === 1)
  caller.abort()
  await t.rejects(answer)
  await until('its line is written', () => accessLine(gateway, 'statusTask') !== undefined)
  t.match(accessLine(gateway, 'statusTask'), { status: 499, taskId })
})

t.test('a caller who is gone before the work begins spends nothing', async t => {
  const { origin, mint, sandbox, lines } = await startGateway(t, {
    config: 'plans: { default: {} }\nlimits: { bodyBytes: 1000, bodyBytesInFlight: 1000 }'
  })
  const token = await mint('alice')
  const body = JSON.stringify({ input: { prompt: 'x'.repeat(200) } })
  const request = (length: number) =>
    `POST /api/v1/generateTask/nano-banana HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${token}\r\n` +
    `content-type: application/json\r\ncontent-length: ${length}\r\n\r\n`
  const { port } = new URL(origin)
  const [holder, waiting] = [connect(Number(port), '127.0.0.1'), connect(Number(port), '127.0.0.1')]
  t.teardown(() => { holder.destroy(); waiting.destroy() })
  holder.write(request(1000)) // takes all the room there is, and sends nothing
  await wait(50)
  waiting.write(request(Buffer.byteLength(body)) + body)
  await wait(50)
  waiting.destroy()
  await until('its line is written', () => lines().some(line => line.operation === 'generateTask'))
  holder.destroy()
  await until('its line is written', () => lines().filter(line => line.operation === 'generateTask').length === 2)
  t.equal(sandbox.calls.length, 0)
})

t.test('a body that stops half-way ends in nothing', async t => {
  const { origin, mint, sandbox } = await startGateway(t)
  const socket = connect(Number(new URL(origin).port), '127.0.0.1')
  socket.write(
    `POST /api/v1/generateTask/nano-banana HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${await mint('alice')}\r\n` +
      'content-type: application/json\r\ncontent-length: 100\r\n\r\n{"input":'
  )
  await wait(50)
  socket.end()
  await once(socket.resume(), 'close')
  t.equal(sandbox.calls.length, 0)
})
