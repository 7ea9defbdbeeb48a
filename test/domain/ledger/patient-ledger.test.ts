import t from 'tap'
import { patientLedger } from '../../../src/domain/ledger-client.ts'
import type { ReservationId, Transition, TaskLedger } from '../../../src/domain/ledger.ts'
import { gatewayError } from '../../../src/errors.ts'
import { clock } from '../../helpers/clock.ts'

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
