import { EventEmitter } from 'node:events'
import t from 'tap'
import { sqliteStore } from '../../src/adapters/sqlite/store.ts'
import type { KeyRing } from '../../src/domain/key-ring.ts'
import type { IdempotencyStore } from '../../src/domain/ledger.ts'
import { plans } from '../../src/domain/policy.ts'
import { unscoped } from '../../src/domain/session.ts'
import { admitSubmit, type ReservedSubmit } from '../../src/http/admit.ts'
import type { AuthorizedSubmit } from '../../src/http/authorize.ts'
import { type RequestContext, newRequestState } from '../../src/http/context.ts'
import { earliest } from '../../src/http/repeats.ts'
import { clock } from '../helpers/clock.ts'
import { crankedTimers } from '../helpers/timers.ts'
import { until } from '../helpers/until.ts'

const plan = plans({
  default: { models: ['*'], requestsPerMinute: 9, pollsPerMinute: 9, concurrentTasks: 9, credits: 9, period: 'day' }
}).get('default')!
const session = unscoped({
  id: 'id',
  subject: 'app:alice',
  plan: 'default',
  models: ['*'],
  permits: () => true,
  scopes: ['tasks:write'],
  issuedAt: 0,
  expiresAt: 9e15
})

t.test('of two requests that both found their idempotency key new, the ledger lets one through', async t => {
  const time = clock()
  const { now } = time
  const terms = { reservedMs: 1000, sentMs: 1000, giveUpMs: 1000, refundsPerPeriod: 0, retentionMs: 1000 }
  const store = sqliteStore({ path: ':memory:', synchronous: 'normal', now, terms })
  t.teardown(() => store.close())
  let looks = 0
  // Both look before either has reserved, as on two replicas.
  const idempotency: IdempotencyStore = {
    earlier: async (...asked) => (++looks <= 2 ? null : await store.idempotency.earlier(...asked))
  }
  const { repeats } = store
  const timers = crankedTimers(time)
  const keys = { choose: () => ({ id: 'a' }) } as unknown as KeyRing
  const slots = { search: async () => {}, nextInMs: () => 0 }
  const admit = admitSubmit({
    prove: async () => {},
    submits: async () => {},
    replays: async () => {},
    ledger: store.ledger,
    repeats,
    earliest: earliest({ idempotency, repeats, timers }),
    keys,
    slots,
    now
  })
  const headers = new Map<string, string>()
  const context = {
    call: { ...newRequestState(() => {}), session, plan },
    reply: { header: (name: string, value: string) => headers.set(name, value), raw: new EventEmitter() }
  } as unknown as RequestContext
  const order: AuthorizedSubmit = {
    model: 'suno',
    price: { microcredits: 1, refundable: true },
    body: Buffer.from('{}'),
    keyId: undefined,
    idempotency: { key: 'k', fingerprint: 'f' },
    repeat: undefined
  }

  const { reservation } = await admit(order, context) as ReservedSubmit
  const waiting = admit(order, context)
  await until('it waits', () => timers.waiting === 1)
  await t.rejects(admit({ ...order, idempotency: { key: 'k', fingerprint: 'g' } }, context), {
    code: 'GW_IDEMPOTENCY_MISMATCH'
  })
  t.same([...headers], [])
  await store.ledger.advance(reservation, { to: 'sent', keyId: 'a' })
  const answer = { status: 200, contentType: 'application/json', body: Buffer.from('{"code":200}') }
  await store.ledger.advance(reservation, { to: 'claimed', taskId: 'task-1', answer })
  time.advance(10)
  timers.run()
  t.same(await waiting, { replayed: { ...answer, retryAfter: undefined } })
  t.same([...headers], [['idempotency-replayed', 'true']])
})
