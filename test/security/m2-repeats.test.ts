import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { setTimeout as wait } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { batchesConfig, items, submitBatch } from '../helpers/batches.ts'
import { crankedGateway } from '../helpers/cranked-gateway.ts'
import { type Reply, startGateway, type TestGateway, type TestGatewayOptions } from '../helpers/gateway.ts'
import { rawSocket } from '../helpers/raw-http.ts'
import { until } from '../helpers/until.ts'

const tight =
  'plans: { default: { requestsPerMinute: 100, concurrentTasks: 100, credits: 100 } }\nupstream: { headersMs: 2000, bodyIdleMs: 2000 }'

async function start (t: Test, options: TestGatewayOptions = {}) {
  const gateway = await startGateway(t, { config: tight, ...options })
  const token = await gateway.mint('alice')
  const spent = async (token: string): Promise<number> =>
    100 - (await gateway.call('/api/v1/apikeys/current-balance', { token })).json.data
  return { ...gateway, token, spent }
}

const isReplay = (reply: Reply): boolean => reply.headers.get('idempotency-replayed') === 'true'

/** The access lines of submits. */
function submitLines ({ lines }: Pick<TestGateway, 'lines'>) {
  return lines().filter(line => line.operation === 'generateTask' || line.operation === 'generateBatch')
}

/** Sends a submit whose answer is made only when the sandbox is told to, and hangs up. */
async function hangUp (
  gateway: Pick<TestGateway, 'submit' | 'sandbox' | 'lines'>,
  token: string,
  prompt = 'sandbox:slow-headers'
): Promise<void> {
  const { waiting } = gateway.sandbox
  const caller = new AbortController()
  const answer = gateway.submit(token, prompt, 'nano-banana', { signal: caller.signal })
  await until('the upstream has it', () => gateway.sandbox.waiting === waiting + 1)
  caller.abort()
  await t.rejects(answer)
}

for (const name of [
  'drop-after',
  'cut-body',
  'html-200',
  'json-504',
  'html-502',
  'json-502',
  'no-task-id',
  'redirect-302',
  'slow-headers'
]) {
  t.test(`a client that sends a lost submit again, without a key, makes and pays for one: ${name}`, async t => {
    const { submit, token, sandbox, spent } = await start(t, { config: tight.replaceAll('2000', '300') })
    const first = await submit(token, `sandbox:${name}`)
    t.match(first, { status: 502, error: 'GW_OUTCOME_UNKNOWN' })
    t.notOk(isReplay(first))
    for (let round = 0; round < 3; round++) {
      const again = await submit(token, `sandbox:${name}`)
      t.match(again, { status: 502, error: 'GW_OUTCOME_UNKNOWN' })
      t.ok(isReplay(again))
      t.match(again.json.message, /Idempotency-Key/, 'how to make it anew all the same')
    }
    t.equal(sandbox.submits.length, 1)
    t.equal(await spent(token), 1)
  })
}

t.test('a subject with more lost submits than are remembered is an alarm', async t => {
  const config = 'plans: { default: { requestsPerMinute: 200, concurrentTasks: 200, credits: 200 } }'
  const { submit, token, gateway, log } = await start(t, { config })
  for (let count = 0; count <= 100; count++) await submit(token, `sandbox:drop-after, the ${count}.`)
  await gateway.tidy()
  t.match(
    log.filter(({ alarm }) => alarm === 'repeats'),
    [{ subject: 'app:alice' }]
  )
})

t.test('an unknown submit is remembered for two minutes, and an Idempotency-Key makes it anew at once', async t => {
  const { submit, token, sandbox, time } = await start(t)
  await submit(token, 'sandbox:drop-after')
  const anew = await submit(token, 'sandbox:drop-after', 'nano-banana', { headers: { 'idempotency-key': 'a' } })
  t.notOk(isReplay(anew))
  t.equal(sandbox.submits.length, 2)
  time.advance(119_999)
  t.ok(isReplay(await submit(token, 'sandbox:drop-after')))
  time.advance(1)
  t.notOk(isReplay(await submit(token, 'sandbox:drop-after')))
  t.equal(sandbox.submits.length, 3)
})

t.test('a repeat of a submit whose caller hung up waits for it, gets its answer and makes nothing', async t => {
  const gateway = await start(t)
  const { submit, token, sandbox, spent } = gateway
  await hangUp(gateway, token)
  const again = submit(token, 'sandbox:slow-headers')
  await wait(100)
  sandbox.release()
  const reply = await again
  t.equal(reply.status, 200)
  t.ok(isReplay(reply))
  t.same(reply.json, { code: 200, message: 'success', data: { taskId: [...sandbox.tasks.keys()][0] } })
  t.equal(sandbox.submits.length, 1)
  t.equal(await spent(token), 1)
  await until('its line is written', () => submitLines(gateway).length === 2)
  t.match(submitLines(gateway).at(-1), { status: 200, code: 'OK', keyId: null, upstreamMs: 0 })
})

t.test(
  'an answer that did not arrive is given to the next, once, and it costs neither rate nor slot nor credits',
  async t => {
    const gateway = await start(t, {
      config: tight
        .replace('requestsPerMinute: 100', 'requestsPerMinute: 1')
        .replace('concurrentTasks: 100', 'concurrentTasks: 1')
    })
    const { submit, token, sandbox } = gateway
    await hangUp(gateway, token)
    sandbox.release()
    await until('its line is written', () => submitLines(gateway).length === 1)
    const again = await submit(token, 'sandbox:slow-headers')
    t.ok(isReplay(again))
    t.equal(again.status, 200)
    t.equal(
      (await submit(token, 'sandbox:slow-headers')).error,
      'GW_RATE_LIMITED',
      'who has the answer asks for another task'
    )
    t.equal(sandbox.submits.length, 1)
  }
)

t.test(
  'four equal submits on four living connections are four tasks, and four lost ones serve four repeats',
  async t => {
    const gateway = await start(t)
    const { submit, token, sandbox, spent } = gateway
    t.ok((await Promise.all([1, 2, 3, 4].map(() => submit(token, 'a cube')))).every(reply => !isReplay(reply)))
    t.equal(sandbox.submits.length, 4)
    const callers = [1, 2, 3, 4].map(() => new AbortController())
    const lost = callers.map(({ signal }) =>
      submit(token, 'sandbox:slow-headers', 'nano-banana', { signal }).catch(() => null)
    )
    await until('the upstream has them', () => sandbox.waiting === 4)
    for (const caller of callers) caller.abort()
    t.same(await Promise.all(lost), [null, null, null, null])
    sandbox.release()
    await until('their lines are written', () => submitLines(gateway).length === 8)
    const again = await Promise.all([1, 2, 3, 4].map(() => submit(token, 'sandbox:slow-headers')))
    t.ok(again.every(isReplay))
    t.equal(new Set(again.map(({ json }) => json.data.taskId)).size, 4, 'each its own task')
    t.equal(sandbox.submits.length, 8)
    t.equal(await spent(token), 8)
  }
)

t.test('a repeat that is lost while it waits leaves its first to the next one', async t => {
  const gateway = await start(t)
  const { submit, token, sandbox } = gateway
  await hangUp(gateway, token)
  const caller = new AbortController()
  const second = submit(token, 'sandbox:slow-headers', 'nano-banana', { signal: caller.signal })
  await wait(100)
  caller.abort()
  await t.rejects(second)
  await until('its line is written', () => submitLines(gateway).length === 1)
  t.match(submitLines(gateway)[0], { status: 499, keyId: null })
  sandbox.release()
  const third = await submit(token, 'sandbox:slow-headers')
  t.ok(isReplay(third))
  t.equal(sandbox.submits.length, 1)
})

for (const hangUpBy of ['destroy', 'resetAndDestroy', 'end'] as const) {
  t.test(
    `whoever hangs up and asks again at once, on a connection that is open already, makes one: ${hangUpBy}`,
    async t => {
      const { origin, mint, sandbox } = await start(t)
      for (let round = 1; round < 4; round++) {
        const token = await mint(`caller-${round}`)
        const body = '{"input":{"prompt":"sandbox:slow-headers"}}'
        const head = `HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${token}\r\n`
        const text = `POST /api/v1/generateTask/nano-banana ${head}content-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`
        const [first, second, third] = [
          await rawSocket(t, origin),
          await rawSocket(t, origin),
          await rawSocket(t, origin)
        ]
        for (const socket of [second, third]) {
          socket.write(`GET /gateway/models ${head}\r\n`)
          await once(socket, 'data')
        }
        first.write(text)
        await until('the upstream has it', () => sandbox.waiting === 1)
        first[hangUpBy]()
        second.write(text)
        await wait(100)
        second[hangUpBy]()
        third.write(text)
        await wait(100)
        const answer = once(third, 'data')
        sandbox.release()
        t.match(String(await answer), /^HTTP\/1.1 200 [^]*idempotency-replayed: true/)
        t.equal(sandbox.submits.length, round)
      }
    }
  )
}

t.test(
  'a hanging-up that is heard after the repeat makes one, and a repeat that is gone by then makes none',
  async t => {
    // Its pauses are over when the test says so: how long a machine needs to hear of an end is not what is tested.
    const { submit, mint, sandbox, lines, timers, pass } = await crankedGateway(t, { config: tight })
    const token = await mint('alice')
    const [first, gone] = [new AbortController(), new AbortController()]
    const send = (signal?: AbortSignal) => submit(token, 'sandbox:slow-headers', 'nano-banana', signal && { signal })
    const lost = send(first.signal).catch(() => null)
    await until('the upstream has it', () => sandbox.waiting === 1)
    const { waiting } = timers
    const nobody = send(gone.signal).catch(() => null)
    await until('a repeat waits', () => timers.waiting > waiting)
    gone.abort()
    await until('its line is written', () => submitLines({ lines }).length === 1)
    const again = send()
    await until('the next one waits', () => timers.waiting > waiting)
    first.abort()
    t.same(await Promise.all([lost, nobody]), [null, null])
    await wait(100)
    sandbox.release()
    let isAnswered = false
    again.then(() => { isAnswered = true }, () => {})
    await until('it is answered', () => {
      pass(50)
      return isAnswered
    })
    t.ok(isReplay(await again))
    t.equal(sandbox.submits.length, 1)
  }
)

t.test('another body, byte for byte, another model, subject or budget of its own is another submit', async t => {
  const { submit, mint, token, sandbox } = await start(t)
  const body = '{"input":{"prompt":"sandbox:drop-after"}}'
  const send = (token: string, text = body, model = 'nano-banana') => submit(token, '', model, { body: text })
  await send(token)
  const [other, used, anotherUsed] = [
    await mint('bob'),
    await mint('alice', { uses: 9 }),
    await mint('alice', { uses: 9 })
  ]
  for (const [who, text, model] of [
    [token, ` ${body}`],
    [token, body, 'suno'],
    [other],
    [used],
    [anotherUsed]
  ] as const) {
    t.notOk(isReplay(await send(who, text, model)))
    t.ok(isReplay(await send(who, text, model)))
  }
  t.ok(isReplay(await send(await mint('alice'))), 'another token of the same subject is the same caller')
  t.equal(sandbox.submits.length, 6)
})

t.test('an answer that may not be shown is not paid for again', async t => {
  const { submit, token, sandbox, spent } = await start(t)
  for (let round = 0; round < 3; round++) {
    t.equal((await submit(token, 'sandbox:echo-key')).error, 'GW_UPSTREAM_INVALID')
  }
  t.equal(sandbox.submits.length, 1)
  t.equal(await spent(token), 1)
})

t.test('an answer above 64 kB is given again as its task id, in the documented envelope', async t => {
  const gateway = await start(t)
  const { submit, token, sandbox } = gateway
  const answer = { code: 200, message: 'success', data: { taskId: 'task_big', note: 'x'.repeat(70_000) } }
  const { promise, resolve } = Promise.withResolvers<void>()
  sandbox.next(async (_request, response) => {
    await promise
    response.setHeader('content-type', 'application/json').end(JSON.stringify(answer))
  })
  const caller = new AbortController()
  const first = submit(token, 'a cube', 'nano-banana', { signal: caller.signal })
  await until('the upstream has it', () => sandbox.submits.length === 1)
  caller.abort()
  await t.rejects(first)
  resolve()
  await until('its line is written', () => submitLines(gateway).length === 1)
  const again = await submit(token, 'a cube')
  t.ok(isReplay(again))
  t.same(again.json, { code: 200, message: 'success', data: { taskId: 'task_big' } })
})

t.test('a caller who is gone before its answer is written, though it was made, finds it', async t => {
  const gateway = await start(t)
  const { origin, token, sandbox, submit } = gateway
  const body = JSON.stringify({ request_type: 'async', input: { mode: 'text-to-image', prompt: 'a cube' } })
  const socket: Socket = connect(Number(new URL(origin).port), '127.0.0.1')
  socket.on('error', () => {})
  sandbox.next((_request, response) => {
    socket.resetAndDestroy()
    setTimeout(
      () =>
        response
          .setHeader('content-type', 'application/json')
          .end('{"code":200,"message":"success","data":{"taskId":"task_1"}}'),
      50
    )
  })
  socket.write(
    `POST /api/v1/generateTask/nano-banana HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${token}\r\n` +
      `content-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`
  )
  await once(socket, 'close')
  const again = await submit(token, 'a cube')
  t.ok(isReplay(again))
  t.equal(again.json.data.taskId, 'task_1')
  t.equal(sandbox.submits.length, 1)
})

t.test('a repeat with a key waits for its first, two of them at the most', async t => {
  const gateway = await start(t)
  const { submit, token, sandbox } = gateway
  const send = (prompt = 'sandbox:slow-headers') =>
    submit(token, prompt, 'nano-banana', { headers: { 'idempotency-key': 'one' } })
  const first = send()
  await until('the upstream has it', () => sandbox.waiting === 1)
  const told: Reply[] = []
  const others = [1, 2, 3, 4].map(() => send().then(reply => told.push(reply)))
  await until('two are told to come again', () => told.length === 2)
  for (const { error, status, headers } of told) {
    t.match(
      { error, status, wait: headers.get('retry-after') },
      { error: 'GW_IDEMPOTENCY_PENDING', status: 409, wait: /^[1-9]$/ }
    )
  }
  sandbox.release()
  t.equal((await first).status, 200)
  await Promise.all(others)
  t.same(
    told.slice(2).map(reply => [reply.status, isReplay(reply), reply.text]),
    Array(2).fill([200, true, (await first).text])
  )
  t.equal(sandbox.submits.length, 1)
})

t.test('a batch is remembered as a whole', async t => {
  const gateway = await start(t, { config: `${batchesConfig}\nupstream: { headersMs: 2000, bodyIdleMs: 2000 }` })
  const { token, sandbox } = gateway
  const lost = items('sandbox:drop-after', 'x')
  t.equal((await submitBatch(gateway, token, lost)).error, 'GW_OUTCOME_UNKNOWN')
  const again = await submitBatch(gateway, token, lost)
  t.equal(again.error, 'GW_OUTCOME_UNKNOWN')
  t.ok(isReplay(again))
  t.equal(sandbox.submits.length, 1)

  const slow = items('sandbox:slow-headers', 'x', 'y')
  const caller = new AbortController()
  const first = gateway.call('/api/v1/generateTask/nano-banana/batches', {
    token,
    body: { items: slow },
    signal: caller.signal
  })
  await until('the upstream has it', () => sandbox.waiting === 1)
  caller.abort()
  await t.rejects(first)
  const waiting = submitBatch(gateway, token, slow)
  sandbox.release()
  const reply = await waiting
  t.ok(isReplay(reply))
  t.equal(reply.json.data.items.length, 3)
  t.equal(sandbox.submits.length, 2)
  t.notOk(isReplay(await submitBatch(gateway, token, items('a', 'b'))))
})
