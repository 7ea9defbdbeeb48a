import t from 'tap'
import { startGateway } from '../helpers/gateway.ts'

const config = 'plans: { default: {} }\nlimits: { addressRequestsPerMinute: 2 }'
const from = (address: string) => ({ headers: { 'x-forwarded-for': address } })

t.test('a proxy that is trusted says who is calling', async t => {
  const { call, log } = await startGateway(t, { config, env: { GATEWAY_TRUST_PROXY: '127.0.0.1' } })
  for (const address of ['203.0.113.1', '203.0.113.1', '203.0.113.2', '2001:db8::1', '2001:db8:0:1::1']) {
    t.equal((await call('/nowhere', from(address))).status, 404, address)
  }
  t.equal((await call('/nowhere', from('203.0.113.1'))).status, 429)
  t.equal((await call('/nowhere', from('2001:db8::ffff'))).status, 404)
  t.equal((await call('/nowhere', from('2001:db8::2'))).status, 429, 'a /64 is one caller')
  t.same(log.filter(line => line.level === 40), [])
})

t.test('a proxy that is not trusted is named once, with the setting', async t => {
  const { call, log } = await startGateway(t, { config: 'plans: { default: {} }' })
  await call('/nowhere', from('203.0.113.1'))
  await call('/nowhere', from('203.0.113.2'))
  const warnings = log.filter(line => line.level === 40)
  t.equal(warnings.length, 1)
  t.match(warnings[0], { proxy: '127.0.0.1', msg: /GATEWAY_TRUST_PROXY/ })
})

t.test('a forwarding header from the internet is a caller\'s own, and no reason to warn', async t => {
  const { gateway, log } = await startGateway(t, { config: 'plans: { default: {} }' })
  await gateway.app.inject({ url: '/nowhere', remoteAddress: '8.8.8.8', headers: { 'x-forwarded-for': '203.0.113.1' } })
  t.same(log.filter(line => line.level === 40), [])
})
