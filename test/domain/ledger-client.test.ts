import t from 'tap'
import { meteredLedger, patientLedger } from '../../src/domain/ledger-client.ts'
import type { ReservationId, ReserveRequest, TaskLedger, Transition } from '../../src/domain/ledger.ts'
import { gatewayError } from '../../src/errors.ts'
import { clock } from '../helpers/clock.ts'

const demand: ReserveRequest = {
  subject: 'app:alice',
  operation: 'generateTask',
  model: 'suno',
  keyId: 'k',
  microcredits: 5,
  refundable: true,
  periodStart: 0,
  creditLimit: null,
  taskLimit: 1
}
const answer = Buffer.from('{}')

/** A ledger that answers as it is told, and its meter. */
function metered (ledger: Partial<TaskLedger>) {
  const noted: string[] = []
  const meter = {
    credits: (operation: string, outcome: string, microcredits: number) => {
      noted.push(`${operation} ${outcome} ${microcredits}`)
    },
    unknown: (count: number) => {
      noted.push(`unknown outcomes: ${count}`)
    }
  }
  const base: TaskLedger = {
    reserve: async () => ({ granted: true, id: '1' }),
    advance: async () => true,
    settle: async () => true,
    taskOf: async () => null,
    giveUp: async () => true,
    sweep: async () => ({ released: 0, unknown: 0 })
  }
  return { noted, ledger: meteredLedger({ ...base, ...ledger }, meter) }
}

t.test('a task that is given up is one more without a known end, once', async t => {
  const answers = [true, false]
  const { noted, ledger } = metered({ giveUp: async () => answers.shift()! })
  t.equal(await ledger.giveUp('task'), true)
  t.equal(await ledger.giveUp('task'), false)
  t.same(noted, ['unknown outcomes: 1'])
})

t.test('a reservation that is not granted moves no credits', async t => {
  const { noted, ledger } = metered({ reserve: async () => ({ granted: false, reason: 'credits' }) })
  t.same(await ledger.reserve(demand), { granted: false, reason: 'credits' })
  t.same(noted, [])
})

t.test('a reservation has one end, however often that is written', async t => {
  const { noted, ledger } = metered({})
  await ledger.reserve(demand)
  for (const keyId of ['k', 'other']) t.equal(await ledger.advance('1', { to: 'sent', keyId }), true)
  for (let count = 0; count < 2; count++) await ledger.advance('1', { to: 'claimed', taskId: 'task' })
  t.same(noted, ['generateTask reserved 5', 'generateTask charged 5'])
})

t.test('one that had lapsed before it was sent is released', async t => {
  const { noted, ledger } = metered({ advance: async () => false })
  await ledger.reserve(demand)
  t.equal(await ledger.advance('1', { to: 'sent', keyId: 'k' }), false)
  t.same(noted, ['generateTask reserved 5', 'generateTask released 5'])
})

t.test('one whose task belongs to somebody else is what it becomes next', async t => {
  const { noted, ledger } = metered({ advance: async (_id, { to }) => to !== 'claimed' })
  await ledger.reserve(demand)
  await ledger.advance('1', { to: 'sent', keyId: 'k' })
  await ledger.advance('1', { to: 'claimed', taskId: 'task' })
  await ledger.advance('1', { to: 'unknown' })
  t.same(noted, ['generateTask reserved 5', 'generateTask unknown 5', 'unknown outcomes: 1'])
})

t.test('one that the sweep has found first is not counted twice', async t => {
  const { noted, ledger } = metered({
    advance: async (_id, { to }) => to === 'sent',
    sweep: async () => ({ released: 1, unknown: 2 })
  })
  await ledger.reserve(demand)
  await ledger.advance('1', { to: 'sent', keyId: 'k' })
  t.same(await ledger.sweep(), { released: 1, unknown: 2 })
  await ledger.advance('1', { to: 'unknown' })
  t.same(noted, ['generateTask reserved 5', 'unknown outcomes: 2', 'generateTask unknown 5'])
})

t.test('a step that the store did not take counts when it is taken', async t => {
  let isDown = true
  const { noted, ledger } = metered({
    advance: async () => {
      if (isDown) throw gatewayError('GW_STORE_DOWN')
      return true
    }
  })
  await ledger.reserve(demand)
  await t.rejects(ledger.advance('1', { to: 'claimed', taskId: 'task' }), { code: 'GW_STORE_DOWN' })
  isDown = false
  await ledger.advance('1', { to: 'claimed', taskId: 'task' })
  t.same(noted, ['generateTask reserved 5', 'generateTask charged 5'])
})

t.test('a task that has failed is settled, also when nobody can say what it cost', async t => {
  for (const taskOf of [async () => null, async () => { throw gatewayError('GW_STORE_DOWN') }]) {
    const { noted, ledger } = metered({ taskOf })
    t.equal(await ledger.settle({ taskId: 'task', state: 'failed', answer }), true)
    t.same(noted, [])
  }
})

t.test('reservations that nobody brings to an end are forgotten, the oldest first', async t => {
  let last = 0
  const { noted, ledger } = metered({ reserve: async () => ({ granted: true, id: String(++last) }) })
  for (let count = 0; count < 10_001; count++) await ledger.reserve(demand)
  noted.length = 0
  for (const id of ['1', '2', '10001']) await ledger.advance(id, { to: 'released' })
  t.same(noted, ['generateTask released 5', 'generateTask released 5'])
})

function patient (advance: TaskLedger['advance']) {
  const time = clock()
  const alarms: Array<[ReservationId, Transition]> = []
  return {
    alarms,
    it: patientLedger({
      ledger: { advance } as TaskLedger,
      elapsed: time.elapsed,
      wait: async ms => time.advance(ms),
      patienceMs: 10_000,
      onOwed: (id, step) => alarms.push([id, step])
    })
  }
}

const down = () => gatewayError('GW_STORE_DOWN')

t.test('a step is tried until the store is back', async t => {
  let calls = 0
  const { it, alarms } = patient(async () => {
    if (++calls < 5) throw down()
    return true
  })
  t.equal(await it.advance('1', { to: 'claimed', taskId: 'a' }), true)
  t.equal(calls, 5)
  t.same(alarms, [])
})

t.test('after ten seconds the step is kept, the operator told, and the outcome called unknown', async t => {
  let isDown = true
  const written: Transition[] = []
  const { it, alarms } = patient(async (_id, step) => {
    if (isDown) throw down()
    written.push(step)
    return true
  })
  const claim = { to: 'claimed', taskId: 'a' } as const
  await t.rejects(it.advance('1', claim), { code: 'GW_OUTCOME_UNKNOWN', detail: { shouldRetry: false } })
  t.same(alarms, [['1', claim]])
  t.equal(it.pending, 1)
  await t.rejects(it.retry(), { code: 'GW_STORE_DOWN' })
  t.equal(it.pending, 1, 'nothing is dropped')
  isDown = false
  await it.retry()
  t.same(written, [claim])
  t.equal(it.pending, 0)
})

t.test('an error that time does not heal is not waited for', async t => {
  const { it } = patient(async () => { throw new TypeError('a bug') })
  await t.rejects(it.advance('1', { to: 'released' }), TypeError)
})

t.test(
  'the end of a reservation without a task is kept and written later, with no alarm, and only so many of them',
  async t => {
    const written: string[] = []
    const { it, alarms } = patient(async (id, { to }) => {
      written.push(`${id} ${to}`)
      return true
    })
    it.enqueue('1', { to: 'released' })
    it.enqueue('2', { to: 'unknown' })
    await it.retry()
    t.same(written, ['1 released', '2 unknown'])
    for (let id = 0; id < 10_001; id++) it.enqueue(String(id), { to: 'released' })
    t.equal(it.pending, 10_000)
    t.same(alarms, [])
  }
)

t.test('somebody in a hurry ends all waits after one more try, and lets no other begin', async t => {
  const tries: string[] = []
  const alarms: string[] = []
  const it = patientLedger({
    ledger: { advance: async id => { tries.push(id); throw down() } } as Pick<TaskLedger, 'advance'> as TaskLedger,
    elapsed: clock().elapsed,
    wait: () => new Promise(() => {}),
    patienceMs: 10_000,
    onOwed: id => alarms.push(id)
  })
  const waiting = it.advance('1', { to: 'claimed', taskId: 'a' })
  await new Promise(resolve => setImmediate(resolve))
  it.hurry()
  await t.rejects(waiting, { code: 'GW_OUTCOME_UNKNOWN' })
  await t.rejects(it.advance('2', { to: 'unknown' }), { code: 'GW_OUTCOME_UNKNOWN' })
  t.same(tries, ['1', '1', '2'])
  t.same(alarms, ['1', '2'])
  t.equal(it.pending, 2)
})
