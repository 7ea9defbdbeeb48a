import t from 'tap'
import { cookieNameAt, swap } from '../helpers/cookies.ts'
import { startGateway } from '../helpers/gateway.ts'
import { rawHttp, rawRequest } from '../helpers/raw-http.ts'

const config =
  'plans: { default: { credits: unlimited, concurrentTasks: 1000, requestsPerMinute: 10000 } }\nlimits: { addressFailuresPerMinute: 10000 }'
const line = 'POST /api/v1/generateTask/nano-banana'
const body = JSON.stringify({ input: { prompt: 'x' } })

t.test('two credentials are refused, whichever of them would do', async t => {
  const { origin, mint, sandbox } = await startGateway(t, { config })
  const [alice, bob] = [await mint('alice'), await mint('bob')]
  const refused: readonly string[][] = [
    [`authorization: Bearer ${alice}`, `authorization: Bearer ${bob}`],
    [`authorization: Bearer ${alice}`, `authorization: Bearer ${alice}`],
    [`authorization: Bearer ${alice}`, `Authorization: Bearer ${bob}`],
    [`AUTHORIZATION: Bearer ${alice}`, 'x-other: 1', `authorization: Bearer ${bob}`],
    [`x-api-key: ${alice}`, `x-api-key: ${bob}`],
    [`x-api-key: ${alice}`, `X-API-KEY: ${alice}`],
    [`x-goog-api-key: ${alice}`, `x-goog-api-key: ${bob}`],
    [`authorization: Bearer ${alice}`, `x-api-key: ${bob}`],
    [`authorization: Bearer ${alice}`, 'x-api-key: rubbish'],
    [`authorization: Bearer ${alice}`, 'x-api-key:'],
    [`x-api-key: ${alice}`, `x-goog-api-key: ${bob}`],
    [`x-goog-api-key: ${bob}`, `x-api-key: ${alice}`]
  ]
  for (const headers of refused) {
    const answer = await rawHttp(t, origin, rawRequest(line, headers, body))
    t.match(answer, { status: 400, error: 'GW_BAD_REQUEST' }, headers.map(header => header.split(':')[0]).join(' + '))
  }
  t.equal(sandbox.calls.length, 0)
})

t.test('what is no single bearer token is no session', async t => {
  const { origin, mint, sandbox } = await startGateway(t, { config })
  const alice = await mint('alice')
  const refused = [
    `authorization: Basic ${alice}`,
    `authorization: ${alice}`,
    'authorization: Bearer',
    'authorization: Bearer ',
    'authorization:',
    'x-api-key:',
    `authorization: Bearer ${alice}, Bearer ${alice}`,
    `authorization: Bearer ${alice} ${alice}`,
    `authorization: Bearer "${alice}"`,
    `authorization: Bearer\t\t${alice}x`,
    `x-api-key: Bearer ${alice}`,
    `x-api-key: ${alice},${alice}`,
    `cookie: session=${alice}`,
    `proxy-authorization: Bearer ${alice}`,
    `x-mcp-token: ${alice}`,
    `authentication: Bearer ${alice}`,
    `x-authorization: Bearer ${alice}`
  ]
  for (const header of refused) {
    const answer = await rawHttp(t, origin, rawRequest(line, [header], body))
    t.match(answer, { status: 401, error: /^GW_(NO|BAD)_SESSION$/ }, header.slice(0, 40))
  }
  t.equal(sandbox.calls.length, 0)
})

t.test('one token in several places is one token, and a trailer is no place', async t => {
  const { origin, mint, sandbox } = await startGateway(t, { config })
  const [alice, bob] = [await mint('alice'), await mint('bob')]
  const same = [`authorization: Bearer ${alice}`, `x-api-key: ${alice}`, `x-goog-api-key: ${alice}`]
  t.equal((await rawHttp(t, origin, rawRequest(line, same, body))).status, 200)
  t.equal(
    (await rawHttp(t, origin, rawRequest(line, [`authorization: bearer   ${alice}`], body))).status,
    200,
    'the scheme in any case'
  )

  const chunked = (headers: string, trailers: string) =>
    `${line} HTTP/1.1\r\nhost: gateway.test\r\nconnection: close\r\n${headers}content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n` +
    `${body.length.toString(16)}\r\n${body}\r\n0\r\n${trailers}\r\n`
  t.equal((await rawHttp(t, origin, chunked('', `authorization: Bearer ${alice}\r\n`))).error, 'GW_NO_SESSION')
  t.equal(
    (await rawHttp(t, origin, chunked(`authorization: Bearer ${alice}\r\n`, `authorization: Bearer ${bob}\r\n`)))
      .status,
    200
  )
  t.equal(sandbox.submits.length, 3)
})

t.test('a token in the query is refused, with or without one in a header', async t => {
  const { call, submit, mint, sandbox } = await startGateway(t, { config })
  const token = await mint('alice')
  for (const query of [
    `key=${token}`,
    `access_token=${token}`,
    `%6bey=${token}`,
    `key=${token}&key=x`,
    'key=',
    'key',
    `token=${token}`,
    `taskId=1&authorization=${token}`
  ]) {
    for (const headers of [{}, { authorization: `Bearer ${token}` }]) {
      const { status } = await call(`/api/v1/statusTask/nano-banana?${query}`, { headers })
      t.ok(status === 400 || (status === 401 && !('authorization' in headers)), query.slice(0, 20))
    }
  }
  t.equal(sandbox.calls.length, 0)
  t.equal((await submit(token)).status, 200)
})

t.test('what a caller has written into a header counts, and not the cookie that comes along', async t => {
  const gateway = await startGateway(t, { config })
  const { call, mint, sandbox } = gateway
  const [alice, bob] = [await mint('alice'), await mint('bob')]
  const cookie = (await swap(gateway, await mint('carol'))).header
  const who = async (headers: Readonly<Record<string, string>>) => {
    const { json, error } = await call('/gateway/session', { headers: { 'sec-fetch-site': 'same-origin', ...headers } })
    return error ?? json.subject
  }
  t.equal(await who({ cookie }), 'app:carol')
  t.equal(await who({ cookie, authorization: `Bearer ${alice}` }), 'app:alice')
  t.equal(await who({ cookie, 'x-api-key': alice }), 'app:alice')
  t.equal(await who({ cookie, 'x-goog-api-key': alice }), 'app:alice')
  t.equal(
    await who({ cookie: `${cookieNameAt(gateway.origin)}=${bob}`, authorization: `Bearer ${alice}` }),
    'app:alice'
  )
  t.equal(await who({ cookie, authorization: `Bearer ${alice}`, 'x-api-key': bob }), 'GW_BAD_REQUEST')
  // A header that is no good is not made good by a cookie: who is meant would depend on what else the browser holds.
  t.equal(await who({ cookie, authorization: `Bearer ${alice}x` }), 'GW_BAD_SESSION')
  t.equal(await who({ cookie, authorization: 'Basic eDp4' }), 'GW_BAD_SESSION')
  t.equal(await who({ cookie, 'x-api-key': '' }), 'GW_BAD_SESSION')
  t.equal(sandbox.calls.length, 0)
})

t.test('a token of the one kind is no good in the place of the other', async t => {
  const gateway = await startGateway(t, { config })
  const { call, mint } = gateway
  const cookie = await swap(gateway, await mint('alice'))
  const token = await mint('alice')
  t.match(await call('/gateway/session', { headers: { cookie: `${cookieNameAt(gateway.origin)}=${token}` } }), {
    status: 401,
    error: 'GW_BAD_SESSION'
  })
  for (const name of ['x-api-key', 'x-goog-api-key']) {
    t.match(await call('/gateway/session', { headers: { [name]: cookie.value } }), {
      status: 401,
      error: 'GW_BAD_SESSION'
    })
  }
  t.match(await call('/gateway/session', { token: cookie.value }), { status: 401, error: 'GW_BAD_SESSION' })
})
