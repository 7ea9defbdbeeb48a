import { once } from 'node:events'
import t, { type Test } from 'tap'
import { startGateway } from '../helpers/gateway.ts'
import { rawHttp, rawRequest, rawSocket } from '../helpers/raw-http.ts'

const origin = 'https://app.example'
const limit = 5
const options = {
  config: `plans: { default: {} }\nlimits: { addressFailuresPerMinute: ${limit} }`,
  env: { GATEWAY_ALLOWED_ORIGINS: origin, GATEWAY_PUBLIC_URL: 'https://ai.example' }
}
const long = 'x'.repeat(2049)
const overflow = `x-long: ${'x'.repeat(20_000)}`

const broken: ReadonlyArray<
  readonly [title: string, request: (...headers: string[]) => string, status: number, sentence: RegExp]
> = [
  [
    'a part of the path that is too long',
    (...headers) => rawRequest(`GET /gateway/tasks/${long}/events`, headers),
    400,
    /longer than 2048 characters/
  ],
  ['a broken percent-encoding', (...headers) => rawRequest('GET /gateway/%zz', headers), 400, /percent-encoding/],
  [
    'headers that are too long',
    (...headers) => rawRequest('GET /gateway/session', [...headers, overflow]),
    431,
    /headers.* 16384 bytes/i
  ],
  [
    'a path that is too long',
    (...headers) => rawRequest(`GET /${'x'.repeat(20_000)}`, headers),
    431,
    /headers.* 16384 bytes/i
  ]
]

for (const [title, request, status, sentence] of broken) {
  t.test(
    `what is refused before there is a route says what it is, and a listed page can read it: ${title}`,
    async t => {
      const gateway = await startGateway(t, options)
      const answer = await rawHttp(t, gateway.origin, request(`origin: ${origin}`))
      t.match(answer, { status, error: 'GW_BAD_REQUEST', count: 1 })
      t.match(answer.text, new RegExp(`^access-control-allow-origin: ${origin}\\r$`, 'im'))
      t.match(answer.text, /^access-control-expose-headers: .*x-gateway-error.*\r$/im)
      t.match(answer.text, /^x-request-id: [\w-]+\r$/im)
      t.match(answer.text, /^cache-control: no-store\r$/im)
      const body = JSON.parse(answer.text.slice(answer.text.indexOf('\r\n\r\n')))
      t.match(body, {
        code: status,
        message: sentence,
        data: null,
        error: { code: 'GW_BAD_REQUEST', requestId: /^[\w-]+$/ }
      })
      for (const other of ['https://evil.test', `${origin}.evil.test`]) {
        t.notMatch((await rawHttp(t, gateway.origin, request(`origin: ${other}`))).text, /access-control/i)
      }
      t.notMatch((await rawHttp(t, gateway.origin, request())).text, /access-control/i)
    }
  )

  t.test(`it counts against its address like any other wrong request: ${title}`, async t => {
    const gateway = await startGateway(t, options)
    for (let count = 0; count < limit; count++) {
      t.equal(
        (await rawHttp(t, gateway.origin, request('authorization: Bearer x', 'origin: https://evil.test'))).status,
        status
      )
    }
    t.equal((await gateway.call('/gateway/session')).error, 'GW_THROTTLED')
    if (status === 400) t.equal((await rawHttp(t, gateway.origin, request())).error, 'GW_THROTTLED')
  })

  t.test(`unless a foreign page has made a browser send it: ${title}`, async t => {
    const gateway = await startGateway(t, options)
    for (const header of ['origin: https://evil.test', 'sec-fetch-site: cross-site', 'Sec-Fetch-Site: same-site']) {
      for (let count = 0; count < limit; count++) {
        t.equal((await rawHttp(t, gateway.origin, request(header))).status, status)
      }
    }
    t.equal((await gateway.call('/gateway/session')).status, 401)
  })
}

/** The text that comes back over a connection on which nothing more is sent. */
async function answerTo (t: Test, gatewayOrigin: string, head: string): Promise<string> {
  const socket = await rawSocket(t, gatewayOrigin)
  let text = ''
  socket.on('data', (chunk: Buffer) => { text += chunk.toString() })
  socket.write(head)
  await once(socket, 'close')
  return text
}

t.test('a request that does not arrive in time is told so', async t => {
  const { origin: url, gateway } = await startGateway(t, options)
  // Node looks at its time limits every few seconds; what it does then is what happens here.
  const late = async (head: string) => {
    const connected = once(gateway.app.server, 'connection')
    const answer = answerTo(t, url, head)
    const [socket] = await connected
    await once(socket, 'data')
    gateway.app.server.emit(
      'clientError',
      Object.assign(new Error('Request timeout'), { code: 'ERR_HTTP_REQUEST_TIMEOUT' }),
      socket
    )
    return await answer
  }
  const unfinished = await late('GET / HTTP/1.1\r\nhost: x\r\n')
  t.match(unfinished, /^HTTP\/1\.1 408 Request Timeout\r\n/)
  t.match(unfinished, /"message":"This request did not arrive in time\."/)
  t.match(unfinished, /x-gateway-error: GW_BAD_REQUEST/)
  t.notMatch(unfinished, /access-control/)
  const slow = await late(
    `POST /gateway/sessions/guest HTTP/1.1\r\nhost: x\r\norigin: ${origin}\r\ncontent-length: 9\r\ncontent-type: application/json\r\n\r\n{`
  )
  t.match(slow, /408 Request Timeout/)
  t.match(slow, new RegExp(`access-control-allow-origin: ${origin}`))
})

t.test('two hosts are none', async t => {
  const gateway = await startGateway(t, options)
  for (const hosts of [['host: other.test'], ['Host: gateway.test'], ['HOST: a', 'host: b']]) {
    const answer = await rawHttp(t, gateway.origin, rawRequest('GET /gateway/', [...hosts, `origin: ${origin}`]))
    t.match(answer, { status: 400, error: 'GW_BAD_REQUEST' })
    t.match(answer.text, /Send one Host header/)
    t.match(answer.text, /access-control-allow-origin/)
  }
  t.equal((await rawHttp(t, gateway.origin, rawRequest('GET /gateway/', ['x-host: a', 'most: b']))).status, 200)
})

t.test('what is wrong with the target of a request can be read by a listed page, and counts as a request', async t => {
  const gateway = await startGateway(t, {
    ...options,
    config: 'plans: { default: {} }\nlimits: { addressRequestsPerMinute: 6 }'
  })
  const statuses: unknown[] = []
  for (const target of ['/gateway/#x', '*', '/gateway/#y', '*']) {
    const answer = await rawHttp(t, gateway.origin, rawRequest(`GET ${target}`, [`origin: ${origin}`]))
    t.match(answer, { status: 400, error: 'GW_BAD_REQUEST' })
    t.match(answer.text, /access-control-allow-origin/)
  }
  for (let count = 0; count < 4; count++) statuses.push((await gateway.call('/gateway/')).status)
  t.same(statuses, [200, 200, 429, 429])
})
