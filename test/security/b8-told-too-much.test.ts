import t from 'tap'
import { errorTable } from '../../src/errors.ts'
import { apiKey, issuerToken, sessionSecret, startGateway, type Reply } from '../helpers/gateway.ts'
import { rawHttp } from '../helpers/raw-http.ts'

const codes = new Map(errorTable.map(({ code, status }) => [code as string, status]))
const config =
  'plans: { default: { requestsPerMinute: 1000, concurrentTasks: 1000, credits: unlimited } }\nlimits: { addressFailuresPerMinute: 10000 }\nupstream: { headersMs: 200, bodyIdleMs: 200 }'
const leaks =
  /\bat .+:\d+|node_modules|\.ts\b|\/src\/|\/home\/|file:\/\/|127\.0\.0\.1|localhost|ECONN|ENOENT|EPIPE|UND_ERR|FST_ERR|ERR_|SQLITE|sqlite|undici|fastify|pino|node:|Error:|\[object|undefined|stack/i

t.test('an error of the gateway is a stable code and a sentence, and says nothing of what is inside', async t => {
  const { call, submit, status, mint, sandbox, origin } = await startGateway(t, { config })
  const token = await mint('alice')
  const replies: Array<readonly [string, Reply]> = []
  const see = async (what: string, reply: Promise<Reply>) => {
    replies.push([what, await reply])
  }
  for (const name of [
    'drop-before',
    'drop-after',
    'cut-body',
    'endless-body',
    'html-502',
    'html-404',
    'redirect-302',
    'echo-key',
    'slow-headers',
    'slow-body',
    'no-task-id',
    'http-401',
    'http-402'
  ]) {
    await see(name, submit(token, `sandbox:${name}`, ['http-401', 'http-402'].includes(name) ? 'suno' : 'nano-banana'))
  }
  for (const name of [
    'status-drop',
    'status-cut-body',
    'status-html-200',
    'status-slow-headers',
    'status-echo-key',
    'status-redirect-308'
  ]) {
    await see(name, status(token, (await submit(token, `sandbox:${name}`)).json.data.taskId))
  }
  const bodies = [
    '{',
    '[]',
    '{"input":1}',
    `{"input":{"prompt":"${'x'.repeat(20_000_000)}"}}`,
    '{"__proto__":1}',
    '{"x":1}'
  ]
  for (const body of bodies) await see(body.slice(0, 20), call('/api/v1/generateTask/nano-banana', { token, body }))
  await see('mint', call('/gateway/sessions', { token: issuerToken, body: { subject: 1 } }))
  await see(
    'mint plan',
    call('/gateway/sessions', { token: issuerToken, body: { subject: 'a', plan: '/etc/passwd'.slice(1) } })
  )
  for (const path of [
    '/nowhere',
    '/%zz',
    '/api/v1/statusTask/..%2f?taskId=1',
    '/gateway/session?key=1',
    '/.env',
    '/.git/config',
    '/server-status',
    '/debug/pprof',
    '/metrics'
  ]) {
    await see(path, call(path, { token }))
  }
  await see('method', call('/gateway/session', { method: 'PATCH', token }))
  await see(
    'type',
    call('/api/v1/generateTask/nano-banana', { token, body: 'x', headers: { 'content-type': 'text/html' } })
  )
  await sandbox.close()
  await see('no upstream', submit(token))

  for (const [what, reply] of replies) {
    t.ok(reply.status >= 400, `${what}: ${reply.status}`)
    t.equal(codes.get(reply.error!), reply.status, `${what}: ${reply.error}`)
    t.same(Object.keys(reply.json), ['code', 'message', 'data', 'error'], what)
    t.equal(reply.json.error.requestId, reply.headers.get('x-request-id'))
    t.notMatch(reply.json.message, leaks, what)
    const all = reply.text + JSON.stringify([...reply.headers])
    for (const secret of [apiKey, issuerToken, sessionSecret, token, new URL(sandbox.origin).host]) {
      t.notOk(all.includes(secret), what)
    }
  }
  const [, body] = (await rawHttp(t, origin, 'garbage\r\n\r\n')).text.split('\r\n\r\n')
  t.notMatch(body, leaks)
})

t.test('a bug inside is a fixed sentence: its cause is in the log and nowhere else', async t => {
  const { gateway, call, mint, log } = await startGateway(t)
  const token = await mint('alice')
  gateway.app.server.prependListener('request', request => {
    Object.defineProperty(request, 'rawHeaders', { get () { throw new TypeError('the inside of /etc/secret') } })
  })
  const reply = await call('/gateway/session', { token })
  t.match(reply, {
    status: 500,
    error: 'GW_INTERNAL',
    json: { code: 500, message: 'Something went wrong in the gateway.', data: null }
  })
  t.notMatch(reply.text, 'secret')
  t.ok(log.some(line => JSON.stringify(line).includes('the inside of /etc/secret')))
})

t.test('a caller\'s own words come back quoted and cut, and as JSON', async t => {
  const { call, mint } = await startGateway(t)
  const token = await mint('alice')
  const name = `<script>alert(1)</script>${'x'.repeat(10_000)}`
  const reply = await call('/api/v1/generateTask/nano-banana', { token, body: { [name]: 1, input: {} } })
  t.equal(reply.status, 400)
  t.ok(reply.text.length < 500)
  t.match(reply.headers.get('content-type'), /^application\/json/)
  const injected = await call(`/api/v1/statusTask/nano-banana?${encodeURIComponent('a\r\nx-evil: 1')}=1`, { token })
  t.equal(injected.headers.get('x-evil'), null)
  t.notMatch(injected.json.message, /[\r\n]/)
})
