import t from 'tap'
import { gatewayError } from '../../src/errors.ts'
import { request, scriptedLedger } from '../helpers/ledger.ts'

const answer = Buffer.from('{}')
const down = () => gatewayError('GW_STORE_DOWN')
const fail = (): never => { throw down() }

t.test('a task that is given up is one more without a known end, once', async t => {
  const answers = [true, false]
  const { counted, ledger } = scriptedLedger({ giveUp: async () => answers.shift()! })
  t.equal(await ledger.giveUp('task'), true)
  t.equal(await ledger.giveUp('task'), false)
  t.same(counted, ['unknown outcomes: 1'])
})

t.test('a reservation that is not granted moves no credits', async t => {
  const { counted, ledger } = scriptedLedger({ reserve: async () => ({ granted: false, reason: 'credits' }) })
  t.same(await ledger.reserve(request), { granted: false, reason: 'credits' })
  t.same(counted, [])
})

t.test('a reservation has one end, however often that is written', async t => {
  const { counted, ledger } = scriptedLedger({})
  await ledger.reserve(request)
  for (const keyId of ['k', 'other']) t.equal(await ledger.markSent('1', keyId), true)
  for (let count = 0; count < 2; count++) await ledger.claim('1', 'task')
  t.same(counted, ['generateTask reserved 5', 'generateTask charged 5'])
})

t.test('one that had lapsed before it was sent is released', async t => {
  const { counted, ledger } = scriptedLedger({ advance: async () => false })
  await ledger.reserve(request)
  t.equal(await ledger.markSent('1', 'k'), false)
  t.same(counted, ['generateTask reserved 5', 'generateTask released 5'])
})

t.test('one whose task belongs to somebody else is what it becomes next', async t => {
  const { counted, ledger } = scriptedLedger({ advance: async (_id, { to }) => to !== 'claimed' })
  await ledger.reserve(request)
  await ledger.markSent('1', 'k')
  t.equal(await ledger.claim('1', 'task'), false)
  t.equal(await ledger.markUnknown('1'), true)
  t.same(counted, ['generateTask reserved 5', 'generateTask unknown 5', 'unknown outcomes: 1'])
})

t.test('one that the sweep has found first is not counted twice', async t => {
  const { counted, ledger } = scriptedLedger({
    advance: async (_id, { to }) => to === 'sent',
    sweep: async () => ({ released: 1, unknown: 2 })
  })
  await ledger.reserve(request)
  await ledger.markSent('1', 'k')
  t.same(await ledger.sweep(), { released: 1, unknown: 2 })
  t.equal(await ledger.markUnknown('1'), false)
  t.same(counted, ['generateTask reserved 5', 'unknown outcomes: 2', 'generateTask unknown 5'])
})

t.test('a call that another replica has swept first is charged with what it has used once that is told', async t => {
  let isDown = true
  const { counted, ledger } = scriptedLedger({
    advance: async (_id, { to }) => to === 'used' && isDown ? fail() : true,
    sweep: async () => ({ released: 0, unknown: 1 })
  })
  await ledger.reserve(request)
  await ledger.markSent('1', 'k')
  await t.rejects(ledger.markUsed('1', 3, false), { code: 'GW_OUTCOME_UNKNOWN' })
  await ledger.sweep()
  isDown = false
  await ledger.retry()
  t.same(counted, ['generateTask reserved 5', 'unknown outcomes: 1', 'generateTask charged 3'])
})

t.test('a step that the store did not take counts when it is taken', async t => {
  let isDown = true
  const { counted, ledger } = scriptedLedger({ advance: async () => isDown ? fail() : true })
  await ledger.reserve(request)
  await t.rejects(ledger.claim('1', 'task'), { code: 'GW_OUTCOME_UNKNOWN' })
  t.same(counted, ['generateTask reserved 5'])
  isDown = false
  await ledger.retry()
  t.same(counted, ['generateTask reserved 5', 'generateTask charged 5'])
})

t.test('a task that has failed gives its credits back in the count, if anybody can say what it cost', async t => {
  const task = {
    taskId: 'task',
    subject: 'app:alice',
    operation: 'generateTask',
    model: 'suno',
    keyId: 'k',
    stage: 'settled',
    microcredits: 5,
    createdAt: 0,
    finalAnswer: answer
  } as const
  const known = scriptedLedger({ taskOf: async () => task })
  t.equal(await known.ledger.settle({ taskId: 'task', state: 'failed', answer }), true)
  t.same(known.counted, ['generateTask failed 5'])
  for (const taskOf of [async () => null, async () => fail()]) {
    const { counted, ledger } = scriptedLedger({ taskOf })
    t.equal(await ledger.settle({ taskId: 'task', state: 'failed', answer }), true)
    t.same(counted, [])
  }
})

t.test('a task that has ended well is told of once, by whoever ended it', async t => {
  const firsts = [true, false]
  const { succeeded, ledger } = scriptedLedger({ settle: async () => firsts.shift() ?? true })
  for (const isFirst of [true, false]) {
    t.equal(await ledger.settle({ taskId: 'task', state: 'success', answer }), isFirst)
  }
  await ledger.settle({ taskId: 'other', state: 'failed', answer })
  t.same(succeeded, ['task'])
})

t.test('reservations that nobody brings to an end are forgotten, the oldest first', async t => {
  let last = 0
  const { counted, ledger } = scriptedLedger({ reserve: async () => ({ granted: true, id: String(++last) }) })
  for (let count = 0; count < 10_001; count++) await ledger.reserve(request)
  counted.length = 0
  for (const id of ['1', '2', '10001']) await ledger.release(id)
  t.same(counted, ['generateTask released 5', 'generateTask released 5'])
})

t.test('a step is tried until the store is back', async t => {
  let calls = 0
  const { ledger, delayed } = scriptedLedger({ advance: async () => ++calls < 5 ? fail() : true })
  t.equal(await ledger.claim('1', 'a'), true)
  t.equal(calls, 5)
  t.same(delayed, [])
})

t.test('after ten seconds the step is kept, the operator told, and the outcome called unknown', async t => {
  let isDown = true
  const written: unknown[] = []
  const { ledger, delayed } = scriptedLedger({
    advance: async (_id, step) => {
      if (isDown) fail()
      written.push(step)
      return true
    }
  })
  const kept = { status: 200, contentType: 'application/json', body: answer }
  const claim = { to: 'claimed', taskId: 'a', answer: kept } as const
  await t.rejects(ledger.claim('1', 'a', kept), { code: 'GW_OUTCOME_UNKNOWN', detail: { shouldRetry: false } })
  t.same(delayed, [['1', claim]])
  t.equal(ledger.pending, 1)
  await t.rejects(ledger.retry(), { code: 'GW_STORE_DOWN' })
  t.equal(ledger.pending, 1, 'nothing is dropped')
  isDown = false
  await ledger.retry()
  t.same(written, [claim])
  t.equal(ledger.pending, 0)
})

t.test('an error that time does not heal is not waited for', async t => {
  const { ledger } = scriptedLedger({ advance: async () => { throw new TypeError('a bug') } })
  await t.rejects(ledger.release('1'), TypeError)
})

t.test('a store that fails when a submit is to go out is told later that nothing was sent', async t => {
  let isDown = true
  const { ledger, steps, delayed } = scriptedLedger({ advance: async () => isDown ? fail() : true })
  await t.rejects(ledger.markSent('1', 'k', 'hash'), { code: 'GW_STORE_DOWN' })
  t.equal(ledger.pending, 1)
  isDown = false
  await ledger.retry()
  t.same(steps, ['1 sent', '1 released'])
  t.same(delayed, [], 'nobody waits for it, and nobody is alarmed')
})

t.test('the end of a reservation without a task is tried once and written later, and only so many of them', async t => {
  let isDown = true
  const { ledger, steps, delayed } = scriptedLedger({ advance: async () => isDown ? fail() : true })
  await ledger.markUnknownLater('1')
  t.equal(ledger.pending, 1)
  isDown = false
  await ledger.markUnknownLater('2')
  await ledger.retry()
  t.same(steps, ['1 unknown', '2 unknown', '1 unknown'])
  isDown = true
  for (let id = 0; id < 10_001; id++) await ledger.markUnknownLater(String(id))
  t.equal(ledger.pending, 10_000)
  t.same(delayed, [])
})

t.test('somebody in a hurry ends all waits after one more try, and lets no other begin', async t => {
  const { ledger, steps, delayed } = scriptedLedger({ advance: async () => fail() }, () => new Promise(() => {}))
  const waiting = ledger.claim('1', 'a')
  await new Promise(resolve => setImmediate(resolve))
  ledger.hurry()
  await t.rejects(waiting, { code: 'GW_OUTCOME_UNKNOWN' })
  await t.rejects(ledger.markUnknown('2'), { code: 'GW_OUTCOME_UNKNOWN' })
  t.same(steps, ['1 claimed', '1 claimed', '2 unknown'])
  t.same(delayed.map(([id]) => id), ['1', '2'])
  t.equal(ledger.pending, 2)
})

const batch = [1, 2, 3].map(microcredits => ({ ...request, microcredits }))

t.test('a batch has all of its reservations, and each is counted', async t => {
  const { ledger, steps, counted } = scriptedLedger({})
  t.same(await ledger.reserveAll(batch), { granted: true, ids: ['1', '2', '3'] })
  t.equal(await ledger.markAllSent(['1', '2', '3'], 'k'), true)
  t.same(steps, ['1 sent', '2 sent', '3 sent'])
  t.same(counted, [1, 2, 3].map(microcredits => `generateTask reserved ${microcredits}`))
})

t.test('of a batch that is refused, or that the store fails at, nothing is counted or given back', async t => {
  const refused = scriptedLedger({ reserveAll: async () => ({ granted: false, reason: 'slot' }) })
  t.same(await refused.ledger.reserveAll(batch), { granted: false, reason: 'slot' })
  const failing = scriptedLedger({ reserveAll: async () => fail() })
  await t.rejects(failing.ledger.reserveAll(batch), { code: 'GW_STORE_DOWN' })
  for (const { ledger, steps, counted } of [refused, failing]) t.same([steps, counted, ledger.pending], [[], [], 0])
})

t.test('when one reservation of a batch has lapsed, or can not be noted, all are given back', async t => {
  const released = ['1 released', '2 released', '3 released']
  const lapsed = scriptedLedger({ advance: async (id, { to }) => to === 'released' || id !== '2' })
  t.equal(await lapsed.ledger.markAllSent(['1', '2', '3'], 'k'), false)
  t.same(lapsed.steps.slice(3), released)
  const failing = scriptedLedger({ advance: async id => id === '2' ? fail() : true })
  await t.rejects(failing.ledger.markAllSent(['1', '2', '3'], 'k'), { code: 'GW_STORE_DOWN' })
  t.same(failing.steps.slice(3), released)
  t.equal(failing.ledger.pending, 1, 'it may have been noted all the same')
})

t.test('a call without a task is charged with what it has used, unless it had another end', async t => {
  const answers = [true, true, false]
  const { counted, ledger, steps } = scriptedLedger({ advance: async () => answers.shift()! })
  for (const microcredits of [3, 4]) {
    await ledger.reserve(request)
    if (microcredits === 3) await ledger.markSent('1', 'k')
    await ledger.markUsed('1', microcredits, true)
  }
  t.same(steps, ['1 sent', '1 used', '1 used'])
  t.same(counted, [
    'generateTask reserved 5', 'generateTask charged 3', 'generateTask reserved 5', 'generateTask unknown 5'
  ])
})
