import t from 'tap'
import { issuerToken, startGateway } from '../helpers/gateway.ts'

const forged = {
  'x-forwarded-host': 'evil.test',
  'x-forwarded-proto': 'https',
  'x-forwarded-port': '443',
  'x-forwarded-prefix': '/evil',
  forwarded: 'for=1.2.3.4;host=evil.test;proto=https'
}
const config = 'plans: { default: { concurrentTasks: 100 } }\nlimits: { addressFailuresPerMinute: 10000 }'

for (const [who, trust] of [
  ['nobody', ''],
  ['another network', '10.0.0.0/8'],
  ['this very peer', 'loopback']
] as const) {
  t.test(
    `a forwarded host or scheme changes no answer, and is not repeated, when the trusted proxy is ${who}`,
    async t => {
      const { call, submit, mint, sandbox } = await startGateway(t, { config, env: { GATEWAY_TRUST_PROXY: trust } })
      const token = await mint('alice')
      const requests = [
        ['/api/v1/generateTask/nano-banana', { token, body: { input: { prompt: 'x' } } }],
        ['/api/v1/statusTask/nano-banana?taskId=x', { token }],
        ['/gateway/session', { token }],
        ['/gateway/sessions', { token: issuerToken, body: { subject: 'bob' } }],
        ['/nowhere', {}],
        ['/gateway/session', {}]
      ] as const
      for (const [path, options] of requests) {
        const plain = await call(path, options)
        for (const value of [
          'evil.test',
          'evil.test, gateway.test',
          '@evil.test',
          '[::1',
          'a b',
          '\u00e9'.repeat(10)
        ]) {
          const reply = await call(path, { ...options, headers: { ...forged, 'x-forwarded-host': value } })
          t.equal(reply.status, plain.status, `${path} ${value}`)
          t.notMatch(reply.text + JSON.stringify([...reply.headers]), /evil/)
        }
      }
      t.equal((await submit(token)).status, 200)
      for (const { rawHeaders } of sandbox.calls) t.notMatch(rawHeaders.join(), /evil|forwarded/i)
    }
  )
}

t.test('a foreign origin does not become our own by a forwarded host', async t => {
  const { call, mint } = await startGateway(t, { config })
  const token = await mint('alice')
  const reply = await call('/gateway/session', {
    token,
    headers: { ...forged, origin: 'https://evil.test', host: 'evil.test' }
  })
  t.equal(reply.headers.get('access-control-allow-origin'), null)
  t.equal(
    (
      await call('/gateway/sessions', {
        token: issuerToken,
        body: { subject: 'x' },
        headers: { ...forged, origin: 'https://evil.test' }
      })
    ).error,
    'GW_ORIGIN_DENIED'
  )
})
