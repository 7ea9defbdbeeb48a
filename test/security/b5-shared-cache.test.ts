import t from 'tap'
import { issuerToken, startGateway, taskMs } from '../helpers/gateway.ts'
import { rawHttp, rawRequest } from '../helpers/raw-http.ts'

t.test("no answer may be stored by a cache, sniffed or framed: good or bad, ours or the upstream's", async t => {
  const { call, submit, status, mint, time, origin } = await startGateway(t, {
    env: { GATEWAY_ALLOWED_ORIGINS: 'https://app.example' }
  })
  const token = await mint('alice')
  const { taskId } = (await submit(token)).json.data
  const running = await status(token, taskId)
  time.advance(taskMs)
  const replies = {
    running,
    ended: await status(token, taskId),
    'from the ledger': await status(token, taskId),
    submitted: await submit(token),
    'refused upstream': await submit(token, 'sandbox:http-429'),
    unknown: await submit(token, 'sandbox:drop-after'),
    'no session': await call('/gateway/session'),
    'a bad session': await call('/gateway/session', { token: 'x' }),
    minted: await call('/gateway/sessions', { token: issuerToken, body: { subject: 'bob' } }),
    session: await call('/gateway/session', { token }),
    'not found': await call('/nowhere'),
    'no such task': await status(token, 'x'),
    'bad request': await call('/api/v1/generateTask/nano-banana', { token, body: '{' }),
    'bad url': await call('/api/v1/%zz'),
    'another method': await call('/gateway/session', { method: 'PUT' }),
    preflight: await call('/gateway/session', {
      method: 'OPTIONS',
      headers: { origin: 'https://app.example', 'access-control-request-method': 'GET' }
    }),
    'logged out': await call('/gateway/session', { method: 'DELETE', token }),
    livez: await call('/livez')
  }
  for (const [what, { headers, status }] of Object.entries(replies)) {
    t.equal(headers.get('cache-control'), 'no-store', `${what} (${status})`)
    t.equal(headers.get('x-content-type-options'), 'nosniff', what)
    t.match(headers.get('content-security-policy'), /default-src 'none'/, what)
    for (const name of ['etag', 'last-modified', 'expires', 'age', 'surrogate-control', 'cdn-cache-control']) {
      t.equal(headers.get(name), null)
    }
  }
  t.match((await rawHttp(t, origin, 'garbage\r\n\r\n')).text, /cache-control: no-store/i)
})

t.test('answers that differ by origin say so', async t => {
  const { call, mint } = await startGateway(t, { env: { GATEWAY_ALLOWED_ORIGINS: 'https://app.example' } })
  const token = await mint('alice')
  for (const headers of [{ origin: 'https://app.example' }, { origin: 'https://evil.test' }, {}] as const) {
    for (const path of ['/gateway/session', '/nowhere']) {
      t.match(
        (await call(path, { token, headers })).headers.get('vary'),
        /\borigin\b/i,
        `${path} ${JSON.stringify(headers)}`
      )
    }
  }
})

t.test(
  'what is asked is answered anew for each caller: conditions, ranges and names of files change nothing',
  async t => {
    const { call, submit, status, mint, origin } = await startGateway(t)
    const [alice, mallory] = [await mint('alice'), await mint('mallory')]
    const { taskId } = (await submit(alice)).json.data
    for (const headers of [
      { 'if-none-match': '*' },
      { 'if-modified-since': new Date().toUTCString() },
      { range: 'bytes=0-0' },
      { 'cache-control': 'only-if-cached' },
      { 'if-match': '"x"' }
    ]) {
      t.equal((await status(alice, taskId, 'nano-banana', { headers })).status, 200)
      t.equal((await status(mallory, taskId, 'nano-banana', { headers })).status, 404)
    }
    for (const path of [
      '/gateway/session/x.css',
      '/gateway/session.js',
      '/gateway/session%3b.png',
      `/api/v1/statusTask/nano-banana/x.css?taskId=${taskId}`
    ]) {
      t.equal((await call(path, { token: alice })).status, 404, path)
    }
    const { text } = await rawHttp(
      t,
      origin,
      rawRequest('GET /gateway/session;x.css', [`authorization: Bearer ${alice}`])
    )
    t.match(text, /^HTTP\/1\.1 404 /)
  }
)
