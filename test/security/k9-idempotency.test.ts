import t, { type Test } from 'tap'
import { createGateway } from '../../src/gateway.ts'
import {
  apiKey, type CallOptions, type Reply, startGateway, taskMs, type TestGateway, type TestGatewayOptions
} from '../helpers/gateway.ts'
import { rawHttp, rawRequest } from '../helpers/raw-http.ts'
import { missedClaim, storeFile } from '../helpers/store-file.ts'
import { until } from '../helpers/until.ts'

const dayMs = 24 * 60 * 60 * 1000
const long = { ttlSeconds: 3 * 24 * 60 * 60 }

/** A gateway with a submit that carries an idempotency key. */
async function start (t: Test, options: TestGatewayOptions = {}) {
  const gateway = await startGateway(t, options)
  const send = (
    token: string,
    key: string,
    prompt = 'a cube',
    { model = 'nano-banana', ...more }: CallOptions & { model?: string } = {}
  ) => gateway.submit(token, prompt, model, { ...more, headers: { 'idempotency-key': key } })
  return { ...gateway, send }
}

function isReplay (reply: Reply): boolean {
  return reply.headers.get('idempotency-replayed') === 'true'
}

/** What a caller sees of an answer. */
function seen ({ status, text, headers }: Reply) {
  return { status, text, contentType: headers.get('content-type') }
}

function balanceOf ({ call }: Pick<TestGateway, 'call'>, token: string): Promise<number> {
  return call('/api/v1/apikeys/current-balance', { token }).then(({ json }) => json.data)
}

t.test('a submit that is repeated with its key is answered with the first answer, and costs nothing', async t => {
  const { send, submit, mint, sandbox, lines, ...gateway } = await start(t, {
    config: 'plans: { default: { requestsPerMinute: 2, concurrentTasks: 1, credits: 1 } }'
  })
  const token = await mint('alice')
  const first = await send(token, '"order-42"')
  t.equal(first.status, 200)
  t.notOk(isReplay(first))
  for (const key of ['"order-42"', 'order-42', '"order-42"', 'order-42']) {
    const again = await send(token, key)
    t.same(seen(again), seen(first), key)
    t.ok(isReplay(again))
    t.equal(again.error, null)
    t.equal(again.headers.get('ratelimit-remaining'), null, 'no request rate is used')
  }
  t.equal(sandbox.submits.length, 1)
  t.equal(await balanceOf(gateway, token), 0)
  const submits = () => lines().filter(line => line.operation === 'generateTask')
  await until('all lines are written', () => submits().length === 5)
  t.match(submits().at(-1), {
    stage: 'reply',
    granted: true,
    code: 'OK',
    model: 'nano-banana',
    keyId: null,
    status: 200,
    upstreamMs: 0
  })
  t.equal((await submit(token)).error, 'GW_TOO_MANY_TASKS', 'the rate has room for one more')
  t.equal((await submit(token)).error, 'GW_RATE_LIMITED')
  t.ok(isReplay(await send(token, 'order-42')), 'and an answer is given again when there is none')
})

t.test('a key is for one request: another body, model or spelling is a mistake, and costs nothing', async t => {
  const { send, mint, sandbox } = await start(t, { config: 'plans: { default: { requestsPerMinute: 1 } }' })
  const token = await mint('alice')
  const first = await send(token, 'a')
  for (const other of [
    await send(token, 'a', 'another cube'),
    await send(token, 'a', 'a cube', { model: 'suno' }),
    await send(token, '"a"', 'a cube', {
      body: ' {"request_type":"async","input":{"mode":"text-to-image","prompt":"a cube"}}'
    }),
    await send(token, 'a', 'a cube', { body: '{"input":{"mode":"text-to-image","prompt":"a cube"}}' })
  ]) {
    t.match(other, { status: 422, error: 'GW_IDEMPOTENCY_MISMATCH' })
    t.notOk(isReplay(other))
  }
  t.same(seen(await send(token, 'a')), seen(first), 'the first request keeps its answer')
  t.equal(sandbox.submits.length, 1)
})

t.test('keys of two subjects never meet, and those of two sessions of one subject do', async t => {
  const { send, mint, sandbox } = await start(t)
  const [alice, again, bob] = [await mint('alice'), await mint('alice'), await mint('bob')]
  const first = await send(alice, 'a')
  const other = await send(bob, 'a', 'a cube')
  t.notOk(isReplay(other))
  t.not(other.text, first.text)
  t.equal((await send(await mint('carol'), 'a', 'another cube')).status, 200)
  t.same(seen(await send(again, 'a')), seen(first))
  t.equal(sandbox.submits.length, 3)
})

t.test('while the first request is under way its key is taken, and whoever hung up finds the answer', async t => {
  const { send, mint, sandbox, lines } = await start(t, {
    config: 'plans: { default: { requestsPerMinute: 1, credits: 1 } }'
  })
  const token = await mint('alice')
  const hangUp = new AbortController()
  const sent = send(token, 'a', 'sandbox:slow-headers', { signal: hangUp.signal })
  await until('it is at the upstream', () => sandbox.waiting === 1)
  const waiting = send(token, 'a', 'sandbox:slow-headers')
  t.equal((await send(token, 'a', 'something else')).error, 'GW_IDEMPOTENCY_MISMATCH')
  hangUp.abort()
  await t.rejects(sent)
  sandbox.release()
  await until('it has been claimed', () => lines().some(line => line.taskId !== null && line.status === 499))
  t.ok(isReplay(await waiting), 'who has waited for it is told')
  const found = await send(token, 'a', 'sandbox:slow-headers')
  t.ok(isReplay(found))
  t.same(found.json, { code: 200, message: 'success', data: { taskId: [...sandbox.tasks.keys()][0] } })
  t.equal(sandbox.submits.length, 1)
})

for (const count of [50, 200]) {
  t.test(`of ${count} parallel submits with one key, one reaches the upstream`, async t => {
    const { send, mint, sandbox } = await start(t, { store: storeFile(t) })
    const token = await mint('alice')
    const key = (index: number) => index % 2 === 0 ? 'a' : '"a"'
    const replies = await Promise.all(Array.from({ length: count }, (_, index) => send(token, key(index))))
    t.equal(sandbox.submits.length, 1)
    const [first, ...others] = replies
      .filter(({ status }) => status === 200)
      .sort((one, other) => Number(isReplay(one)) - Number(isReplay(other)))
    t.notOk(isReplay(first!))
    t.ok(others.every(isReplay))
    t.ok(
      replies.every(
        reply => reply.status === 200 || (reply.error === 'GW_IDEMPOTENCY_PENDING' && reply.headers.has('retry-after'))
      )
    )
    const later = await Promise.all(Array.from({ length: count }, (_, index) => send(token, key(index))))
    for (const reply of [...others, ...later]) t.same(seen(reply), seen(first!))
    t.ok(later.every(isReplay))
    t.equal(sandbox.submits.length, 1)
  })
}

/** Nothing was accepted, and the same request may well be another time. */
const passing = [
  'http-429',
  'http-500',
  'http-503',
  'code-429',
  'code-500',
  'code-503',
  'html-404',
  'http-402',
  'code-402'
]

for (const name of passing) {
  t.test(`a key is free again after a refusal that may pass: ${name}`, async t => {
    const { send, mint, sandbox, ...gateway } = await start(t, { config: 'plans: { default: { credits: 5 } }' })
    const token = await mint('alice')
    const first = await send(token, 'a', `sandbox:${name}`)
    const second = await send(token, 'a', `sandbox:${name}`)
    t.match(second, { status: first.status, error: first.error })
    t.notOk(isReplay(second))
    t.equal(sandbox.submits.length, 2, 'it was sent again')
    t.equal((await send(token, 'a', 'another cube')).status, 200, 'and so may be another')
    t.equal(await balanceOf(gateway, token), 4)
  })
}

t.test('a key is free again when the upstream could not be reached, or did not want our own key', async t => {
  const { send, mint, sandbox, time } = await start(t, { keys: [apiKey] })
  const token = await mint('alice')
  sandbox.revoke(apiKey)
  t.equal((await send(token, 'a')).error, 'GW_UPSTREAM_REFUSED_KEY')
  t.equal((await send(token, 'a')).error, 'GW_NO_KEY')
  sandbox.restore(apiKey)
  time.advance(10_000)
  await until('the key is back', async () => (await send(token, 'b')).status === 200)
  t.equal((await send(token, 'a', 'another cube')).status, 200)
  await sandbox.close()
  for (let round = 0; round < 3; round++) {
    const reply = await send(token, 'c')
    t.equal(reply.error, 'GW_UPSTREAM_UNREACHABLE')
    t.notOk(isReplay(reply))
  }
  t.ok(isReplay(await send(token, 'b')), 'an answer needs no upstream')
})

t.test('a key is free again when there were no credits or no slot for its request', async t => {
  const { send, status, mint, sandbox, time } = await start(t, {
    config: 'plans: { default: { credits: 2, concurrentTasks: 1, period: minute } }'
  })
  const token = await mint('alice')
  const { taskId } = (await send(token, 'a')).json.data
  t.equal((await send(token, 'b')).error, 'GW_TOO_MANY_TASKS')
  time.advance(taskMs)
  await status(token, taskId)
  const second = await send(token, 'b')
  t.equal(second.status, 200)
  time.advance(taskMs)
  await status(token, second.json.data.taskId)
  t.equal((await send(token, 'c')).error, 'GW_CREDITS_EXHAUSTED')
  time.advance(60_000)
  t.equal((await send(token, 'c', 'another cube')).status, 200)
  t.equal(sandbox.submits.length, 3)
})

/** The same request would be refused again: asking costs the upstream nothing. */
const lasting = ['http-400', 'http-403', 'http-404', 'code-400', 'code-403', 'code-404', 'balance-400']

for (const name of lasting) {
  t.test(`a refusal that stays is given again: ${name}`, async t => {
    const { send, mint, sandbox, ...gateway } = await start(t, {
      config: 'plans: { default: { requestsPerMinute: 2, credits: 1 } }'
    })
    const token = await mint('alice')
    const first = await send(token, 'a', `sandbox:${name}`)
    t.equal(first.error, null)
    for (let round = 0; round < 3; round++) {
      const again = await send(token, 'a', `sandbox:${name}`)
      t.same(seen(again), seen(first))
      t.ok(isReplay(again))
    }
    t.equal(sandbox.submits.length, 1)
    t.match(await send(token, 'a', 'another cube'), { status: 422, error: 'GW_IDEMPOTENCY_MISMATCH' })
    t.equal(await balanceOf(gateway, token), 1, 'nothing is charged')
  })
}

for (const name of ['drop-after', 'drop-before', 'html-502', 'no-task-id', 'cut-body']) {
  t.test(`an unknown outcome stays unknown, and is not tried again: ${name}`, async t => {
    const { send, mint, sandbox, log, ...gateway } = await start(t, {
      config: 'plans: { default: { requestsPerMinute: 1, credits: 3 } }'
    })
    const token = await mint('alice')
    t.equal((await send(token, 'a', `sandbox:${name}`)).error, 'GW_OUTCOME_UNKNOWN')
    for (let round = 0; round < 3; round++) {
      const again = await send(token, 'a', `sandbox:${name}`)
      t.match(again, { status: 502, error: 'GW_OUTCOME_UNKNOWN' })
      t.ok(isReplay(again))
      t.equal(again.headers.get('x-should-retry'), 'false')
    }
    t.equal((await send(token, 'a')).error, 'GW_IDEMPOTENCY_MISMATCH')
    t.equal(sandbox.submits.length, 1)
    t.equal(log.filter(line => line.alarm === 'unknown-outcome').length, 1, 'the operator is told once')
    t.equal(await balanceOf(gateway, token), 2, 'it is charged once')
  })
}

t.test('a key is remembered for 24 hours', async t => {
  const { send, mint, sandbox, time, gateway } = await start(t)
  const token = await mint('alice', long)
  await send(token, 'accepted')
  await send(token, 'refused', 'sandbox:http-400')
  await send(token, 'unknown', 'sandbox:drop-after')
  time.advance(dayMs - 1000)
  await gateway.tidy()
  t.ok(isReplay(await send(token, 'accepted')))
  t.ok(isReplay(await send(token, 'refused', 'sandbox:http-400')))
  t.ok(isReplay(await send(token, 'unknown', 'sandbox:drop-after')))
  t.equal(sandbox.submits.length, 3)
  time.advance(2000)
  for (const key of ['accepted', 'refused', 'unknown']) {
    const reply = await send(token, key, 'another cube')
    t.equal(reply.status, 200, key)
    t.notOk(isReplay(reply))
    t.same(seen(await send(token, key, 'another cube')), seen(reply), 'and has a new answer')
  }
})

t.test('keys outlive the gateway, and the end of their task', async t => {
  const { send, mint, status, sandbox, settings, gateway, time } = await start(t, { store: storeFile(t) })
  const token = await mint('alice')
  const first = await send(token, 'accepted')
  const refused = await send(token, 'refused', 'sandbox:http-400')
  await send(token, 'unknown', 'sandbox:drop-after')
  await send(token, 'freed', 'sandbox:http-500')
  time.advance(taskMs)
  t.equal((await status(token, first.json.data.taskId)).json.data.state, 'success')
  await gateway.close()

  const second = await createGateway(settings, { ...time, logTo: { write () {} } })
  t.teardown(() => second.close())
  const origin = await second.listen()
  const submit = async (key: string, prompt: string) => {
    const response = await fetch(`${origin}/api/v1/generateTask/nano-banana`, {
      method: 'POST',
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json', 'idempotency-key': key },
      body: JSON.stringify({ request_type: 'async', input: { mode: 'text-to-image', prompt } })
    })
    return {
      status: response.status,
      text: await response.text(),
      contentType: response.headers.get('content-type'),
      headers: response.headers
    }
  }
  const before = sandbox.submits.length
  const again = await submit('"accepted"', 'a cube')
  t.same({ ...again, headers: 0 }, { ...seen(first), headers: 0 })
  t.equal(again.headers.get('idempotency-replayed'), 'true')
  t.same({ ...await submit('refused', 'sandbox:http-400'), headers: 0 }, { ...seen(refused), headers: 0 })
  t.equal((await submit('unknown', 'sandbox:drop-after')).headers.get('x-gateway-error'), 'GW_OUTCOME_UNKNOWN')
  t.equal((await submit('accepted', 'another cube')).status, 422)
  t.equal(sandbox.submits.length, before)
  t.equal((await submit('freed', 'a cube')).status, 200)
})

t.test(
  'an answer that repeats our key is not kept: its task has its owner, and a repetition makes no other',
  async t => {
    const { send, call, mint, sandbox, log } = await start(t, { store: storeFile(t) })
    const token = await mint('alice')
    for (const replayed of [false, true, true]) {
      const reply = await send(token, 'a', 'sandbox:echo-key')
      t.match(reply, { status: 502, error: 'GW_UPSTREAM_INVALID' })
      t.equal(reply.headers.get('x-should-retry'), 'false', 'an SDK does not try by itself')
      t.equal(isReplay(reply), replayed)
      t.notMatch(reply.text + JSON.stringify([...reply.headers]), apiKey)
    }
    t.equal(sandbox.submits.length, 1)
    const { tasks } = (await call('/gateway/tasks', { token })).json
    t.match(tasks, [{ taskId: [...sandbox.tasks.keys()][0], state: 'running' }], 'it is found in the list')
    t.notMatch(JSON.stringify(log), apiKey)

    sandbox.next((_request, response) => {
      response
        .writeHead(400, { 'content-type': 'application/json' })
        .end(JSON.stringify({ code: 400, message: apiKey }))
    })
    t.match(await send(token, 'b'), { status: 502, error: 'GW_UPSTREAM_INVALID' })
    t.equal((await send(token, 'b', 'another cube')).status, 200, 'a refusal that can not be shown is not kept')
  }
)

t.test('a task id that belongs to somebody else is not told by a replay either', async t => {
  const { send, submit, mint, sandbox } = await start(t)
  const { taskId } = (await submit(await mint('alice'))).json.data
  const mallory = await mint('mallory')
  for (const replayed of [false, true, true]) {
    const reply = await send(mallory, 'a', 'sandbox:duplicate-task')
    t.match(reply, { status: 502, error: 'GW_OUTCOME_UNKNOWN' })
    t.equal(isReplay(reply), replayed)
    t.notMatch(reply.text, taskId)
  }
  t.equal(sandbox.submits.length, 2)
})

t.test('a key that can not be read, or is given twice, is a 400 before anything is sent', async t => {
  const { send, origin, mint, sandbox, ...gateway } = await start(t, {
    config: 'plans: { default: { requestsPerMinute: 1, credits: 1 } }'
  })
  const token = await mint('alice')
  for (const key of ['', '""', '"a', 'a, b', '"a", "b"', '"a";v=1', 'k'.repeat(256)]) {
    t.match(
      await send(token, key),
      { status: 400, error: 'GW_BAD_REQUEST', json: { message: /Idempotency-Key/ } },
      JSON.stringify(key)
    )
  }
  const body = '{"input":{"prompt":"x"}}'
  for (const [first, second] of [['a', 'a'], ['a', '"a"'], ['a', 'b'], ['a', '']]) {
    const headers = [`authorization: Bearer ${token}`, `Idempotency-Key: ${first}`, `idempotency-KEY: ${second}`]
    const answer = await rawHttp(t, origin, rawRequest('POST /api/v1/generateTask/nano-banana', headers, body))
    t.match(answer, { status: 400, error: 'GW_BAD_REQUEST', text: /given twice/ })
  }
  t.equal(sandbox.submits.length, 0)
  t.equal((await gateway.submit(token)).status, 200, 'and nothing is used up')
})

t.test('a key is kept through all that a text can be', async t => {
  const { send, mint, sandbox } = await start(t)
  const token = await mint('alice')
  const keys = [
    "' OR '1'='1",
    '%',
    '_',
    '*',
    '"a\\"b\\\\c"',
    '__proto__',
    'constructor',
    '{tag}',
    'a:b',
    '" a"',
    '"a"',
    '"A"',
    'null',
    '0',
    '"~"',
    'x'.repeat(255)
  ]
  const answers = new Map<string, Reply>()
  for (const key of keys) answers.set(key, await send(token, key))
  t.equal(new Set([...answers.values()].map(({ text }) => text)).size, keys.length)
  for (const key of keys) t.same(seen(await send(token, key)), seen(answers.get(key)!), key)
  t.equal(sandbox.submits.length, keys.length)
})

t.test('the log holds no idempotency key', async t => {
  const { send, mint, log } = await start(t)
  const token = await mint('alice')
  for (const prompt of ['x', 'x', 'y', 'sandbox:drop-after']) {
    await send(token, prompt === 'sandbox:drop-after' ? 'secret-order-2' : 'secret-order-1', prompt)
  }
  t.notMatch(JSON.stringify(log), 'secret-order')
})

t.test('a claim that comes late brings the answer with it', async t => {
  const store = storeFile(t)
  const { send, mint, sandbox, time, gateway } = await start(t, { store })
  const token = await mint('alice')
  const sent = send(token, 'a', 'sandbox:slow-headers')
  const letGo = await missedClaim(t, store, { sandbox, time })
  t.match(await sent, { status: 502, error: 'GW_OUTCOME_UNKNOWN' })
  const again = send(token, 'a', 'sandbox:slow-headers')
  letGo()
  await gateway.tidy()
  const found = await again
  t.same(found.json.data, { taskId: [...sandbox.tasks.keys()][0] })
  t.ok(isReplay(found))
  t.equal(sandbox.submits.length, 1)
})

t.test('a page of another origin may send a key, and read that an answer is a replay', async t => {
  const origin = 'https://app.example'
  const { call, mint, submit } = await start(t, { env: { GATEWAY_ALLOWED_ORIGINS: origin } })
  const preflight = await call('/api/v1/generateTask/nano-banana', {
    method: 'OPTIONS',
    headers: {
      origin,
      'access-control-request-method': 'POST',
      'access-control-request-headers': 'authorization, content-type, idempotency-key'
    }
  })
  t.match(preflight.headers.get('access-control-allow-headers'), 'idempotency-key')
  const reply = await submit(await mint('alice'), 'x', 'nano-banana', { headers: { origin, 'idempotency-key': 'a' } })
  t.match(reply.headers.get('access-control-expose-headers'), 'idempotency-replayed')
})
