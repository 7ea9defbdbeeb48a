import t from 'tap'
import { startSandbox } from '../../src/sandbox/sandbox.ts'
import { apiKey, startGateway } from '../helpers/gateway.ts'

const codes = [300, 301, 302, 303, 304, 305, 307, 308]

t.test('a redirect of the upstream is not followed, not passed on, and the key goes nowhere', async t => {
  const evil = await startSandbox({ keys: [apiKey] })
  t.teardown(() => evil.close())
  const { submit, status, mint, sandbox } = await startGateway(t, {
    sandbox: { redirectTo: `${evil.origin}/api/v1/generateTask/nano-banana` }
  })
  const token = await mint('alice')
  for (const code of [302, 307, 308]) {
    const reply = await submit(token, `sandbox:redirect-${code}`)
    t.match(reply, { status: 502, error: 'GW_OUTCOME_UNKNOWN' }, String(code))
    t.equal(reply.headers.get('location'), null)
    t.notMatch(reply.text, evil.origin)
  }
  t.equal(sandbox.calls.length, 3)
  for (const code of [302, 307, 308]) {
    const { taskId } = (await submit(token, `sandbox:status-redirect-${code}`, 'suno')).json.data
    const reply = await status(token, taskId, 'suno')
    t.match(reply, { status: 502, error: 'GW_UPSTREAM_INVALID' }, `status ${code}`)
    t.equal(reply.headers.get('location'), null)
  }
  t.equal(evil.calls.length, 0)
})

t.test('nor is one with a good body, to another path of the same host, or in a refresh', async t => {
  const { submit, status, mint, sandbox, time } = await startGateway(t, {
    config: 'plans: { default: { credits: unlimited, concurrentTasks: 1000, requestsPerMinute: 1000 } }'
  })
  const token = await mint('alice')
  const { taskId } = (await submit(token)).json.data
  const body = JSON.stringify({ code: 200, message: 'success', data: { taskId, state: 'success' } })
  const answer = (code: number) =>
    sandbox.next((_request, response) => {
      response.writeHead(code, {
        location: '/api/mcp/admin/users',
        refresh: '0;url=/api/mcp',
        link: '</x>',
        'content-location': '/x',
        'content-type': 'application/json'
      })
      response.end(code === 304 ? undefined : body)
    })
  for (const code of codes) {
    answer(code)
    time.advance(20_000) // past the least time between two status calls upstream
    const before = sandbox.calls.length
    const reply = await status(token, taskId)
    t.match(reply, { status: 502, error: 'GW_UPSTREAM_INVALID' }, String(code))
    for (const name of ['location', 'refresh', 'link', 'content-location']) t.equal(reply.headers.get(name), null, name)
    t.equal(sandbox.calls.length, before + 1)
  }
  for (const code of codes) {
    answer(code)
    t.match(await submit(token), { status: 502, error: 'GW_OUTCOME_UNKNOWN' }, `submit ${code}`)
  }
  answer(200)
  time.advance(20_000)
  t.equal((await status(token, taskId)).headers.get('refresh'), null)
})

t.test('a redirect of the probe condemns no key', async t => {
  const { submit, mint, sandbox, log } = await startGateway(t)
  const token = await mint('alice')
  sandbox.next((_request, response) => {
    response.writeHead(403, { 'content-type': 'application/json' }).end('{"code":403,"message":"no"}')
  })
  sandbox.next((_request, response) => {
    response.writeHead(302, { location: 'http://127.0.0.1:1/' }).end()
  })
  t.equal((await submit(token)).status, 403)
  t.equal(sandbox.calls.length, 2)
  t.same(log.filter(line => line.alarm !== undefined), [])
})
