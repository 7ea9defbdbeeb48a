import { readFileSync } from 'node:fs'
import t from 'tap'
import { startGateway } from '../helpers/gateway.ts'
import { rawHttp, rawRequest } from '../helpers/raw-http.ts'

const shipped = readFileSync(new URL('../../config/gateway.yaml', import.meta.url), 'utf8')

/** What scanners for open LLM proxies and open HTTP proxies send first. */
const probes = [
  ['GET', '/v1/models'],
  ['POST', '/v1/chat/completions'],
  ['POST', '/v1/messages'],
  ['POST', '/v1/responses'],
  ['POST', '/v1beta/models/gemini-2.5-pro:generateContent'],
  ['GET', '/api/tags'],
  ['POST', '/api/generate'],
  ['POST', '/api/v1/generateTask/nano-banana'],
  ['GET', '/api/v1/statusTask/nano-banana?taskId=1'],
  ['GET', '/api/v1/apikeys/current-balance'],
  ['POST', '/gateway/sessions'],
  ['POST', '/gateway/sessions/guest'],
  ['POST', '/gateway/sessions/cookie'],
  ['GET', '/gateway/session'],
  ['GET', '/gateway/tasks'],
  ['GET', '/gateway/models'],
  ['GET', '/gateway/admin/keys'],
  ['GET', '/api/mcp/admin/users'],
  ['POST', '/api/mcp/device-authorization/start'],
  ['GET', '/metrics'],
  ['GET', '/.env'],
  ['GET', '/config/gateway.yaml'],
  ['GET', '/data/gateway.db'],
  ['GET', '/%2e%2e/.env'],
  ['GET', 'http://example.com/'],
  ['GET', 'http://169.254.169.254/latest/meta-data/'],
  ['CONNECT', 'example.com:443']
] as const

t.test('with the config that ships, nobody without a token gets anything, and nothing is sent', async t => {
  for (const env of [{ GATEWAY_ISSUER_TOKEN: '' }, {}]) {
    await t.test(JSON.stringify(env), async t => {
      const { origin, sandbox } = await startGateway(t, { config: shipped, env })
      for (const [method, target] of probes) {
        for (const headers of [
          [],
          ['authorization: Bearer sk-1234'],
          ['x-api-key: dummy'],
          ['x-goog-api-key: test', 'user-agent: python-httpx/0.27']
        ]) {
          const { status, text } = await rawHttp(
            t,
            origin,
            rawRequest(
              `${method} ${target}`,
              headers,
              method === 'POST' ? '{"model":"gpt-4","prompt":"hi","subject":"x"}' : ''
            )
          )
          // A tunnel is not even refused: the connection ends. After many tries the address is shut out.
          t.ok(
            status === undefined || [400, 401, 403, 404, 405, 429].includes(status),
            `${method} ${target}: ${status}`
          )
          t.notMatch(text, /plans:|SQLite format|APIXO_API_KEY/)
        }
      }
      t.equal(sandbox.calls.length, 0)
    })
  }
})

t.test('a first run without a secret, a key or a config does not start', async t => {
  for (const name of ['APIXO_API_KEY', 'GATEWAY_SESSION_SECRET']) {
    await t.test(name, async t => {
      await t.rejects(startGateway(t, { config: shipped, env: { [name]: '' } }), {
        code: 'GW_SETTINGS',
        message: new RegExp(name)
      })
    })
  }
  await t.test('no plans', async t => {
    await t.rejects(startGateway(t, { config: '{}' }), { code: 'GW_SETTINGS' })
  })
})

t.test('without an issuer token minting is no route: there is nothing to guess', async t => {
  const { call } = await startGateway(t, { env: { GATEWAY_ISSUER_TOKEN: '' } })
  for (const token of ['', 'undefined', 'null', 'admin']) {
    t.match(
      await call('/gateway/sessions', { body: { subject: 'x' }, headers: { 'x-api-key': token } }),
      { status: 404, error: 'GW_NOT_FOUND' },
      token
    )
  }
})
