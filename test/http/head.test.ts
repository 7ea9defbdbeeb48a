import { once } from 'node:events'
import { connect } from 'node:net'
import t, { type Test } from 'tap'
import { fromOwnPage, swap } from '../helpers/cookies.ts'
import { adminToken, startGateway, taskMs } from '../helpers/gateway.ts'
import { rawHttp, rawRequest } from '../helpers/raw-http.ts'
import { until } from '../helpers/until.ts'

const env = { GATEWAY_ADMIN_TOKEN: adminToken }

async function scene (t: Test) {
  const gateway = await startGateway(t, { env })
  const token = await gateway.mint('alice')
  const { taskId } = (await gateway.submit(token)).json.data
  gateway.time.advance(taskMs)
  await gateway.status(token, taskId)
  return { ...gateway, token, taskId }
}

t.test('HEAD answers as GET does, without the body', async t => {
  const { call, token, taskId, log } = await scene(t)
  const paths: ReadonlyArray<readonly [string, string | undefined]> = [
    ['/livez', undefined],
    ['/readyz', undefined],
    ['/gateway/', undefined],
    ['/gateway/invitation', undefined],
    ['/gateway/session', token],
    ['/gateway/models', token],
    ['/gateway/tasks', token],
    ['/api/v1/apikeys/current-balance', token],
    [`/api/v1/statusTask/nano-banana?taskId=${taskId}`, token],
    ['/gateway/admin/usage', adminToken],
    ['/metrics', adminToken],
    ['/gateway/session', undefined],
    ['/gateway/tasks/no-such-task/results/0', token]
  ]
  for (const [path, credential] of paths) {
    const options = credential === undefined ? {} : { token: credential }
    const [got, head] = [await call(path, options), await call(path, { ...options, method: 'HEAD' })]
    t.equal(head.status, got.status, path)
    t.equal(head.text, '')
    t.equal(head.error, got.error)
    t.equal(head.headers.get('content-type'), got.headers.get('content-type'))
    if (!path.startsWith('/metrics')) {
      t.ok(
        Math.abs(Number(head.headers.get('content-length')) - Number(got.headers.get('content-length'))) < 10,
        `${path}: ${head.headers.get('content-length')}`
      )
    }
  }
  t.same(log.filter(({ level }) => level >= 50), [])
})

t.test('a 405 names it, and where GET does not work it does not either', async t => {
  const { call, token, sandbox } = await scene(t)
  t.match(Object.fromEntries((await call('/gateway/tasks', { method: 'PUT', token })).headers), { allow: 'GET, HEAD' })
  t.match(Object.fromEntries((await call('/gateway/session', { method: 'PUT', token })).headers), {
    allow: 'GET, HEAD, DELETE'
  })
  const before = sandbox.calls.length
  for (const path of ['/api/v1/generateTask/nano-banana', '/gateway/sessions', '/gateway/sessions/cookie']) {
    const refused = await call(path, { method: 'HEAD', token })
    t.match({ status: refused.status, allow: refused.headers.get('allow') }, { status: 405, allow: 'POST' }, path)
  }
  t.equal((await call('/nowhere', { method: 'HEAD' })).status, 404)
  t.equal(sandbox.calls.length, before)
})

t.test('HEAD on a result tells its length, and fetches none of it', async t => {
  const { call, token, taskId, log } = await scene(t)
  const path = `/gateway/tasks/${taskId}/results/0`
  const got = await call(path, { token })
  const head = await call(path, { token, method: 'HEAD' })
  t.equal(head.status, 200)
  for (const name of ['content-length', 'content-type', 'content-disposition', 'etag', 'accept-ranges']) {
    t.equal(head.headers.get(name), got.headers.get(name), name)
  }
  t.equal(head.text, '')
  t.same(log.filter(({ level }) => level >= 50), [])
})

t.test('HEAD on a stream of events is over at once', async t => {
  const { origin, token, gateway } = await scene(t)
  const answer = await rawHttp(t, origin, rawRequest('HEAD /gateway/events', [`authorization: Bearer ${token}`]))
  t.equal(answer.status, 200)
  t.match(answer.text, /^content-type: text\/event-stream\r$/im)
  t.equal(answer.text.split('\r\n\r\n')[1], '')
  const { hostname, port } = new URL(origin)
  const socket = connect(Number(port), hostname)
  t.teardown(() => socket.destroy())
  let text = ''
  socket.on('data', (chunk: Buffer) => { text += chunk.toString() })
  await once(socket, 'connect')
  const head = (path: string) => `HEAD ${path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${token}\r\n\r\n`
  socket.write(head('/gateway/events') + head('/gateway/session'))
  await until('both are answered', () => text.split('HTTP/1.1 200').length === 3)
  t.ok(gateway)
})

t.test('a cookie reads with HEAD as it does with GET', async t => {
  const gateway = await startGateway(t)
  const cookie = await swap(gateway, await gateway.mint('alice'))
  const [head, get] = await Promise.all(
    ['HEAD', 'GET'].map(method =>
      gateway.call('/gateway/session', { method, headers: { cookie: cookie.header, 'sec-fetch-site': 'none' } })
    )
  )
  t.equal(get!.status, 200)
  t.equal(head!.status, 200)
  t.equal(
    (
      await gateway.call('/gateway/session', {
        method: 'HEAD',
        headers: fromOwnPage(cookie, { 'sec-fetch-site': 'cross-site' }).headers
      })
    ).status,
    403
  )
})
