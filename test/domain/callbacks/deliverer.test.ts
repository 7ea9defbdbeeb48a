import t from 'tap'
import { Secret } from '../../../src/domain/secret.ts'
import {
  callbackHosts,
  type WebhookSender,
  webhookDispatcher,
  type Delivery,
  type DeliveryAttempt,
  type DueDelivery,
  messageId,
  retryMs
} from '../../../src/domain/webhooks.ts'
import { clock } from '../../helpers/clock.ts'
import { until } from '../../helpers/until.ts'

/** A deliverer over a list in memory, whose store and courier do what the test says. */
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
    courier: {
      async send (letter) {
        brought.push(letter.headers['webhook-id']!)
        return await bring?.(letter) ?? { status: 200, error: null }
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
    courier: { send: async () => ({ status: 200, error: null }), async close () {} },
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
