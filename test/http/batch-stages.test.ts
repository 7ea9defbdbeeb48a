import t from 'tap'
import type { KeyRing } from '../../src/domain/key-ring.ts'
import type { PatientLedger } from '../../src/domain/ledger-client.ts'
import type { ReserveRequest, Repeats, Reserved, Transition, TaskLedger } from '../../src/domain/ledger.ts'
import { batchOperations, batchRow } from '../../src/domain/upstream.ts'
import { gatewayError } from '../../src/errors.ts'
import { admitBatch, authorizeBatch, type BatchOrder, reservations } from '../../src/http/batches.ts'
import type { RequestContext } from '../../src/http/context.ts'

const demands = [1, 2, 3].map(microcredits => ({ microcredits }) as ReserveRequest)
const down = () => { throw gatewayError('GW_STORE_DOWN') }

/** Reservations over a ledger that answers as it is told, and what it was told to note. */
function over (reserve: (demand: ReserveRequest) => Reserved, advance: (id: string, step: Transition) => boolean) {
  const steps: string[] = []
  const owed: string[] = []
  const ledger = {
    reserve: async (demand: ReserveRequest) => reserve(demand),
    async advance (id: string, step: Transition) {
      steps.push(`${id} ${step.to}`)
      return advance(id, step)
    }
  } as unknown as TaskLedger
  const patient = { enqueue: (id: string, { to }: Transition) => owed.push(`${id} ${to}`) } as unknown as PatientLedger
  return { ...reservations(ledger, patient), steps, owed }
}

const granted = ({ microcredits }: ReserveRequest): Reserved => ({ granted: true, id: String(microcredits) })

t.test('a store that fails at one of the reservations gets the others back', async t => {
  const { reserve, steps, owed } = over(
    demand => (demand.microcredits === 2 ? down() : granted(demand)),
    id => (id === '3' ? down() : true)
  )
  await t.rejects(reserve(demands), { code: 'GW_STORE_DOWN' })
  t.same(steps, ['1 released', '3 released'])
  t.same(owed, ['3 released'], 'what it does not take now it takes later')
})

t.test('a used idempotency key is told before a lack of room', async t => {
  const earlier = { kind: 'pending' } as const
  const { reserve, steps } = over(({ microcredits }) => microcredits === 1
    ? { granted: false, lacks: 'slot' }
    : microcredits === 2 ? granted(demands[1]!) : { granted: false, lacks: 'novelty', earlier }, () => true)
  t.same(await reserve(demands), { granted: false, lacks: 'novelty', earlier })
  t.same(steps, ['2 released'])
})

t.test('when one reservation has lapsed, or can not be noted, nothing is sent and all are given back', async t => {
  const released = ['1 released', '2 released', '3 released']
  const lapsed = over(granted, (id, { to }) => to === 'released' || id !== '2')
  await t.rejects(lapsed.send(['1', '2', '3'], 'key'), { code: 'GW_OVERLOADED' })
  t.same(lapsed.steps.slice(3), released)
  const failing = over(granted, id => id === '2' ? down() : true)
  await t.rejects(failing.send(['1', '2', '3'], 'key'), { code: 'GW_STORE_DOWN' })
  t.same(failing.steps.slice(3), released)
  t.same(failing.owed, ['2 released'], 'it may have been noted all the same')
})

t.test(
  'a key that was used while the batch was on its way to the ledger is told as one that was used before',
  async t => {
    const reserve = async () => ({ granted: false, lacks: 'novelty', earlier: { kind: 'pending' } }) as const
    let looks = 0
    const admit = admitBatch(
      {
        submits: async () => {},
        replays: async () => {},
        repeats: {} as unknown as Repeats,
        earliest: async () => (++looks === 1 ? null : { kind: 'mismatch' }),
        keys: { choose: () => ({ id: 'one' }) } as unknown as KeyRing,
        slots: { search: async () => {}, nextInMs: () => 0 },
        now: () => 0
      },
      { reserve, send: async () => {} }
    )
    const order = { model: 'suno', items: [{}], idempotency: { key: 'a', fingerprint: 'b' } } as unknown as BatchOrder
    const call = {
      session: { subject: 'app:alice' },
      plan: { period: 'day', credits: null, requestsPerMinute: 9, concurrentTasks: 9 }
    }
    await t.rejects(admit(order, { call } as unknown as RequestContext), { code: 'GW_IDEMPOTENCY_MISMATCH' })
  }
)

t.test('a batch that fails at one of its items leaves the first that its own has taken to the next', async t => {
  for (const isEnded of [true, false]) {
    const ends: unknown[] = []
    const end = async (...given: unknown[]) => {
      ends.push(given)
      if (!isEnded) down()
    }
    const admit = admitBatch(
      {
        submits: async () => {},
        replays: async () => {},
        repeats: { end } as unknown as Repeats,
        earliest: async () => null,
        keys: { choose: () => ({ id: 'one' }) } as unknown as KeyRing,
        slots: { search: async () => {}, nextInMs: () => 0 },
        now: () => 0
      },
      over(
        ({ operation }) =>
          operation === batchRow ? { granted: false, lacks: 'novelty', earlier: { kind: 'unknown' } } : down(),
        () => true
      )
    )
    const call = {
      session: { subject: 'app:alice' },
      plan: { period: 'day', credits: null, requestsPerMinute: 9, concurrentTasks: 9 }
    }
    const order = { model: 'suno', items: [{}] }
    await t.rejects(admit(order as unknown as BatchOrder, { call } as unknown as RequestContext), {
      code: 'GW_STORE_DOWN'
    })
    t.same(ends, [], 'one with a key has taken none')
    const repeat = { fingerprint: 'print', call: 'call', arrivedAt: 0 }
    await t.rejects(admit({ ...order, repeat } as unknown as BatchOrder, { call } as unknown as RequestContext), {
      code: 'GW_STORE_DOWN'
    })
    t.same(ends, [['app:alice', repeat, false]])
  }
})

t.test("a mistake of our own in a rule is not told as the caller's", async t => {
  const rules = {
    enforceCaps: () => {},
    priceOf: () => {
      throw new TypeError('a bug')
    }
  }
  const authorize = authorizeBatch(
    batchOperations[0]!,
    {
      own: async () => {
        throw new Error('never')
      },
      keyOfReferences: async () => undefined
    },
    rules
  )
  const session = { subject: 'app:alice', scopes: ['tasks:write'], permits: () => true }
  const body = Buffer.from('{"items":[{"client_item_id":"a","idempotency_key":"k","input":{}}]}')
  const request = { query: {}, params: { model: 'suno' }, body, headers: {}, raw: { rawHeaders: [] } }
  await t.rejects(
    authorize({ request, call: { session, plan: session } } as unknown as RequestContext),
    new TypeError('a bug')
  )
})
