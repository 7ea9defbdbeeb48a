import { createHmac, hkdfSync } from 'node:crypto'
import t from 'tap'
import { Secret } from '../../../src/domain/secret.ts'
import { webhookHeaders, webhookSecret } from '../../../src/domain/webhooks.ts'

/** As published: https://github.com/standard-webhooks/standard-webhooks, the tests of its libraries. */
const published = {
  secret: new Secret('whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'),
  message: { id: 'msg_p5jXN8AQM9LWM0D4loKWxJek', sentAt: 1614265330_000, body: Buffer.from('{"test": 2432232314}') },
  signature: 'v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE='
}

t.test('a message is signed as the Standard Webhooks specification has it', async t => {
  t.same(webhookHeaders([published.secret], published.message), {
    'webhook-id': 'msg_p5jXN8AQM9LWM0D4loKWxJek',
    'webhook-timestamp': '1614265330',
    'webhook-signature': published.signature
  })
  t.equal(
    webhookHeaders([published.secret], { ...published.message, sentAt: 1614265330_999 })['webhook-timestamp'],
    '1614265330',
    'whole seconds'
  )
})

t.test('each secret in use has its signature, with a space between them', async t => {
  const other = new Secret(`whsec_${Buffer.alloc(32, 7).toString('base64')}`)
  const { 'webhook-signature': both } = webhookHeaders([other, published.secret], published.message)
  t.equal(both, `${webhookHeaders([other], published.message)['webhook-signature']} ${published.signature}`)
})

t.test('what is signed is the id, the time and the body, byte for byte', async t => {
  const sign = (more: object) =>
    webhookHeaders([published.secret], { ...published.message, ...more })['webhook-signature']
  const signatures = [
    {},
    { id: 'msg_2' },
    { sentAt: 1614265331_000 },
    { body: Buffer.from('{"test":2432232314}') },
    { body: Buffer.from([0xff]) },
    { body: Buffer.from([0xfe]) }
  ].map(sign)
  t.equal(new Set(signatures).size, signatures.length)
})

t.test(
  "a host's secret is derived from the session secret: 32 bytes that tell nothing of it or of another host's",
  async t => {
    const sessionSecret = new Secret('a-session-secret-of-32-bytes-and-more')
    const secret = webhookSecret(sessionSecret, 'app.example')
    const key = Buffer.from(hkdfSync('sha256', 'a-session-secret-of-32-bytes-and-more', '', 'webhook:app.example', 32))
    t.equal(secret.reveal(), `whsec_${key.toString('base64')}`)
    t.equal(String(secret), '[secret]')
    t.not(webhookSecret(sessionSecret, 'b.example').reveal(), secret.reveal())
    t.not(webhookSecret(new Secret('another-session-secret-of-32-bytes'), 'app.example').reveal(), secret.reveal())
    const { 'webhook-signature': signature } = webhookHeaders([secret], published.message)
    t.equal(
      signature,
      `v1,${createHmac('sha256', key).update('msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330.{"test": 2432232314}').digest('base64')}`
    )
  }
)
