import { createHmac, hkdfSync } from 'node:crypto'
import t from 'tap'
import { Secret } from '../../src/domain/secret.ts'
import {
  type Delivery, type DeliveryAttempt, type DueDelivery, webhookHeaders, type WebhookSender
} from '../../src/domain/webhooks.ts'
import {
  callbackHosts, messageId, retryMs, webhookDispatcher, webhookSecret
} from '../../src/features/callbacks/outbound.ts'
import { clock } from '../helpers/clock.ts'
import { until } from '../helpers/until.ts'

t.test('hosts are named exactly, or as all below a domain; the port is the caller\'s to choose', async t => {
  const hosts = callbackHosts(['app.example', '*.hooks.example', '[2606:2800:21f:cb07:6820:80da:af6b:8b2c]'])
  t.equal(hosts.isEmpty, false)
  const allowed = [
    'https://app.example/', 'https://app.example:8443/a?b=c', 'https://x.hooks.example/', 'https://x.y.hooks.example/',
    'https://[2606:2800:21f:cb07:6820:80da:af6b:8b2c]/'
  ]
  for (const url of allowed) {
    t.equal(hosts.check(url), url)
    t.equal(hosts.permits(url), true, url)
  }
  t.equal(hosts.check('HTTPS://APP.example'), 'https://app.example/')
  for (const url of ['https://b.app.example/', 'https://hooks.example/', 'https://xhooks.example/']) {
    t.throws(() => hosts.check(url), { code: 'GW_CALLBACK_DENIED' }, url)
    t.equal(hosts.permits(url), false, url)
  }
  t.equal(hosts.permits('no URL'), false)
})

t.test('an address of a network of our own is refused, also when it is on the list', async t => {
  const own = [
    '127.0.0.1',
    '10.0.0.1',
    '169.254.169.254',
    '[::1]',
    '[fd00::1]',
    '[::ffff:7f00:1]',
    '0.0.0.0',
    '100.64.0.1'
  ]
  const hosts = callbackHosts(own)
  for (const host of own) t.throws(() => hosts.check(`https://${host}/`), { code: 'GW_CALLBACK_DENIED' }, host)
})

t.test('an empty list is nobody', async t => {
  const hosts = callbackHosts([])
  t.equal(hosts.isEmpty, true)
  t.throws(() => hosts.check('https://app.example/'), { code: 'GW_CALLBACK_DENIED' })
})

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

/** A deliverer over a list in memory, whose store and sender do what the test says. */
function fixture (
  count: number,
  { bring, attempted }: { bring?: WebhookSender['send'], attempted?: () => Promise<void> } = {}
) {
  const time = clock()
  const due = new Map(Array.from({ length: count }, (_, index): [string, DueDelivery] => {
    const taskId = `task ${index}`
    return [taskId, { taskId, url: 'https://app.example/', attempts: [], nextAt: time.now(), body: Buffer.from('{}') }]
  }))
  const kept: Array<readonly [string, DeliveryAttempt, number | null]> = []
  const troubles: unknown[] = []
  const brought: string[] = []
  let closings = 0
  const it = webhookDispatcher({
    deliveries: {
      due: async limit => [...due.values()].slice(0, limit),
      async attempted (taskId, attempt, nextAt) {
        await attempted?.()
        kept.push([taskId, attempt, nextAt])
        due.delete(taskId)
      },
      of: async (): Promise<Delivery | null> => null
    },
    sender: {
      async send (request) {
        brought.push(request.headers['webhook-id']!)
        return await bring?.(request) ?? { status: 200, error: null }
      },
      async close () { closings++ }
    },
    hosts: callbackHosts(['app.example']),
    secrets: { current: [new Secret('a-session-secret-of-32-bytes-and-more')] },
    now: time.now,
    onGivenUp: () => {},
    onTrouble: error => troubles.push(error)
  })
  return { it, kept, troubles, brought, closings: () => closings }
}

t.test('a store that does not keep an attempt has it made again, and the rest goes on', async t => {
  let failures = 1
  const { it, kept, troubles, brought } = fixture(3, {
    attempted: async () => {
      if (failures-- > 0) throw new Error('store down')
    }
  })
  await it.runOnce()
  await until('two of them', () => kept.length === 2)
  t.match(troubles, [{ message: 'store down' }])
  await it.runOnce()
  await until('the third', () => kept.length === 3)
  t.equal(brought.length, 4)
  t.equal(new Set(brought).size, 3)
})

t.test('what is under way is not begun again, and rounds do not run beside each other', async t => {
  const gate = Promise.withResolvers<void>()
  const { it, kept, brought } = fixture(5, {
    bring: async () => {
      await gate.promise
      return { status: 204, error: null }
    }
  })
  await Promise.all([it.runOnce(), it.runOnce(), it.runOnce()])
  await it.runOnce()
  t.equal(brought.length, 5)
  gate.resolve()
  await until('all', () => kept.length === 5)
  t.equal(brought.length, 5)
})

t.test('a failed round after an attempt is told, and not lost', async t => {
  let rounds = 0
  const troubles: unknown[] = []
  const many = Array.from({ length: 40 }, (_, index): DueDelivery => ({
    taskId: `${index}`,
    url: 'https://app.example/',
    attempts: [],
    nextAt: 0,
    body: Buffer.alloc(0)
  }))
  const it = webhookDispatcher({
    deliveries: {
      async due () { if (++rounds > 1) throw new Error('store down'); return many },
      async attempted () {},
      of: async () => null
    },
    sender: { send: async () => ({ status: 200, error: null }), async close () {} },
    hosts: callbackHosts(['app.example']),
    secrets: { current: [] },
    now: Date.now,
    onGivenUp: () => {},
    onTrouble: error => troubles.push(error)
  })
  await it.runOnce()
  await until('the trouble', () => troubles.length > 0)
  t.match(troubles[0], { message: 'store down' })
})

t.test(
  'once it is closed nothing is begun, and what was under way is not noted: it is done again by whoever is next',
  async t => {
    const gate = Promise.withResolvers<void>()
    const { it, kept, brought, closings } = fixture(25, {
      bring: async () => {
        await gate.promise
        return { status: null, error: 'broken' }
      }
    })
    await it.runOnce()
    t.equal(brought.length, 20)
    const closed = it.close()
    gate.resolve()
    await closed
    await it.runOnce()
    t.equal(closings(), 1)
    t.equal(brought.length, 20)
    t.same(kept, [])
  }
)

t.test('a round that was waiting for the store when it was closed begins nothing', async t => {
  const { it, brought } = fixture(2)
  const round = it.runOnce()
  await it.close()
  await round
  t.same(brought, [])
})

t.test('the pauses are a contract, and an id tells tasks apart and nothing else', async t => {
  t.same(retryMs, [30_000, 120_000, 600_000, 3_600_000, 21_600_000])
  t.match(messageId('a task'), /^msg_[\w-]{27}$/)
  t.equal(messageId('a task'), messageId('a task'))
  t.not(messageId('a task'), messageId('another'))
})
