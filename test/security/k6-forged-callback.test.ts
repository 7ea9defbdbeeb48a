import { randomBytes } from 'node:crypto'
import t from 'tap'
import { calledBackGateway } from '../helpers/callbacks.ts'
import { taskMs } from '../helpers/gateway.ts'
import { rawHttp } from '../helpers/raw-http.ts'
import { until } from '../helpers/until.ts'

const guess = () => randomBytes(32).toString('base64url')

t.test('an unknown secret is an address that does not exist: the same answer as any, whatever is sent', async t => {
  const { submit, mint, call, callBack, callbackPath, polls } = await calledBackGateway(t)
  await submit(await mint('alice'))
  const plain = await call('/gateway/no-such-route', { method: 'POST', body: '{}' })
  const path = callbackPath()
  const guesses = [
    guess(),
    path.slice(-43, -1),
    `${path.slice(-43)}A`,
    path.slice(-43).toLowerCase(),
    'x',
    '%00',
    '*',
    "'",
    'a'.repeat(2000),
    encodeURIComponent('😀')
  ]
  for (const secret of guesses) {
    const reply = await callBack(`/gateway/callbacks/${secret}`, '{"code":200}')
    t.match(reply, { status: 404, error: 'GW_NOT_FOUND' }, secret.slice(0, 50))
    t.same({ ...reply.json, error: '' }, { ...plain.json, error: '' })
    t.same([...reply.headers.keys()].sort(), [...plain.headers.keys()].sort())
  }
  t.equal((await call(path)).status, 405)
  t.equal(polls(), 0)
})

t.test('the 404 comes before the body is read', async t => {
  const { origin } = await calledBackGateway(t)
  const head = `POST /gateway/callbacks/${guess()} HTTP/1.1\r\nhost: gateway.test\r\ncontent-length: 1000000\r\nconnection: close\r\n\r\n`
  t.equal((await rawHttp(t, origin, head)).status, 404)
})

t.test('without callbacks.inbound there is no such door, and no secret goes out', async t => {
  const { submit, mint, call, sandbox } = await calledBackGateway(t, { config: 'plans: { default: {} }' })
  await submit(await mint('alice'))
  t.match(sandbox.submits[0]!.body.toString(), 'callback_url', 'the helper opens it')
  const closed = await (await import('../helpers/gateway.ts')).startGateway(t)
  await closed.submit(await closed.mint('alice'))
  t.notMatch(closed.sandbox.submits[0]!.body.toString(), 'callback')
  t.equal((await closed.call(`/gateway/callbacks/${guess()}`, { method: 'POST', body: '{}' })).error, 'GW_NOT_FOUND')
  t.equal((await call('/livez')).status, 200)
})

t.test(
  'a thousand guesses are a thousand 404s, and lock out neither the upstream nor anybody at its address',
  async t => {
    const config = 'plans: { default: {} }\nlimits: { addressFailuresPerMinute: 5 }'
    const { submit, mint, callBack, callbackPath, hasEnded, time } = await calledBackGateway(t, { config })
    const token = await mint('alice')
    const { taskId } = (await submit(token, 'sandbox:callback-lost')).json.data
    for (let round = 0; round < 20; round++) {
      const replies = await Promise.all(
        Array.from({ length: 50 }, () => callBack(`/gateway/callbacks/${guess()}`, '{}'))
      )
      t.ok(replies.every(({ error }) => error === 'GW_NOT_FOUND'))
    }
    time.advance(taskMs)
    t.equal((await callBack(callbackPath(), '{}')).status, 200)
    await hasEnded(token, taskId)
  }
)

t.test('an address that was shut out for other guesses is not heard here', async t => {
  const config = 'plans: { default: {} }\nlimits: { addressFailuresPerMinute: 5 }'
  const { submit, mint, call, callBack, callbackPath } = await calledBackGateway(t, { config })
  await submit(await mint('alice'))
  for (let round = 0; round < 6; round++) await call('/gateway/session', { token: 'no' })
  t.equal((await call('/gateway/session', { token: 'no' })).error, 'GW_THROTTLED')
  t.match(await callBack(callbackPath(), '{}'), { status: 429, error: 'GW_THROTTLED' }, 'the upstream tries again')
})

t.test('a known secret is answered with 200, whatever comes with it', async t => {
  const { submit, mint, origin, callBack, callbackPath } = await calledBackGateway(t)
  await submit(await mint('alice'))
  const path = callbackPath()
  const bodies: ReadonlyArray<readonly [string, Record<string, string>]> = [
    ['', {}],
    ['{', { 'content-type': 'application/json' }],
    ['[]', { 'content-type': 'text/plain' }],
    ['<x/>', { 'content-type': 'application/xml' }],
    ['{"__proto__":{}}', {}],
    ['{}', { 'content-type': ';;;' }],
    ['{}', { 'content-encoding': 'gzip' }],
    [' '.repeat(2 ** 20 + 1), {}],
    ['\0', { 'content-type': '' }]
  ]
  for (const [body, headers] of bodies) {
    const reply = await callBack(path, body, headers)
    t.match(reply, { status: 200, text: '{}', error: null }, JSON.stringify([body.slice(0, 20), headers]))
  }
  const head = `POST ${path} HTTP/1.1\r\nhost: gateway.test\r\nconnection: close\r\n`
  t.equal((await rawHttp(t, origin, `${head}\r\n`)).status, 200, 'no body at all')
  t.equal((await rawHttp(t, origin, `${head}transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n`)).status, 200)
})

t.test('a body that breaks off is an end of the connection, and nothing else', async t => {
  const { submit, mint, origin, callbackPath, call } = await calledBackGateway(t)
  await submit(await mint('alice'))
  const { connect } = await import('node:net')
  const socket = connect(Number(new URL(origin).port), '127.0.0.1')
  socket.on('error', () => {})
  socket.write(`POST ${callbackPath()} HTTP/1.1\r\nhost: gateway.test\r\ncontent-length: 1000\r\n\r\n{`)
  await new Promise(resolve => setTimeout(resolve, 50))
  socket.destroy()
  t.equal((await call('/livez')).status, 200)
})

t.test('replays of a callback cost one question an interval, however many there are, and change nothing', async t => {
  const { submit, mint, status, callBack, callbackPath, hasEnded, polls, pass, listed, timers } =
    await calledBackGateway(t, { sandbox: { taskMs: 60_000 } })
  const token = await mint('alice')
  const { taskId } = (await submit(token, 'sandbox:callback-lost')).json.data
  const path = callbackPath()
  const forged = { code: 200, data: { taskId, state: 'failed', failCode: 'X' } }
  const storm = async () => {
    const replies = await Promise.all(Array.from({ length: 50 }, () => callBack(path, forged)))
    t.ok(replies.every(({ status }) => status === 200))
  }
  await storm()
  await until('the question', () => polls() === 1)
  await storm()
  await storm()
  t.equal(polls(), 1)
  t.equal(await listed(token, taskId), 'running', 'a forged end is no end')
  for (let round = 2; round < 5; round++) {
    pass(5000)
    await until('one more', () => polls() === round)
    await storm()
    t.equal(polls(), round)
  }
  pass(60_000)
  await hasEnded(token, taskId)
  const after = polls()
  await storm()
  pass(60_000)
  t.equal(polls(), after, 'about a task that has ended nobody is asked')
  t.equal((await status(token, taskId)).json.data.state, 'success')
  t.equal(timers.waiting, 0)
})

t.test('while the upstream has no answer, replays cost one question an interval all the same', async t => {
  const { submit, mint, callBack, callbackPath, polls } = await calledBackGateway(t)
  await submit(await mint('alice'), 'sandbox:callback-lost sandbox:status-http-500')
  for (let round = 0; round < 20; round++) await callBack(callbackPath(), '{}')
  await until('the question', () => polls() === 1)
  t.equal(polls(), 1)
})

t.test('the secret of another task says nothing of this one', async t => {
  const { submit, mint, callBack, callbackPath, listed, polls, log, sandbox, time } = await calledBackGateway(t)
  const token = await mint('alice')
  const { taskId } = (await submit(token, 'sandbox:callback-lost')).json.data
  await submit(await mint('mallory'), 'sandbox:callback-lost')
  time.advance(taskMs)
  t.equal((await callBack(callbackPath(), { code: 200, data: { taskId, state: 'success' } })).status, 200)
  await until('the warning', () => log.some(({ oddity }) => oddity === 'not its task'))
  t.equal(await listed(token, taskId), 'running')
  t.equal(polls(), 0)
  t.equal(sandbox.callbacks.length, 0)
})

t.test('a secret is in no line of the log, at whatever level, and neither is what was sent to it', async t => {
  const { submit, mint, callBack, callbackPath, passUntilCalled, call, log } = await calledBackGateway(t)
  await submit(await mint('alice'))
  const path = callbackPath()
  await callBack(path, '{"code":200,"data":{"taskId":"a-forged-task"}}')
  await callBack(path, 'no json at all', { 'content-encoding': 'br' })
  await call(path)
  await callBack(`/gateway/callbacks/${path.slice(-43, -3)}`, '{}')
  await passUntilCalled(taskMs, 1)
  const text = JSON.stringify(log)
  t.notMatch(text, path.slice(-43, -3))
  t.notMatch(text, 'a-forged-task')
  t.match(
    log.filter(({ operation }) => operation === 'callback'),
    [{ route: '/gateway/callbacks/:secret', status: 200 }]
  )
})
