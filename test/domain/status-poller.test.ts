import t from 'tap'
import { localEvents, localPollLeases } from '../../src/adapters/local.ts'
import type { Completion, Stage, Task } from '../../src/domain/ledger.ts'
import {
  type PollLeases, type RefreshTask, refreshTask, slotSearch, statusPoller, type StatusPoller
} from '../../src/domain/status-poller.ts'
import type { StatusFailure, StatusOutcome, StatusReport, TaskEvent } from '../../src/domain/task-status.ts'
import { type UpstreamAnswer, UpstreamFailure } from '../../src/domain/upstream.ts'
import { gatewayError } from '../../src/errors.ts'
import { clock } from '../helpers/clock.ts'
import { crankedTimers } from '../helpers/timers.ts'
import { until } from '../helpers/until.ts'
import { wholeAnswer, wholeKeys, wholeRecord, wholeTask, wholeUpstream } from '../helpers/whole.ts'

const intervalMs = 3000
const answerMs = 60_000
const task = wholeTask()
const said = (state: string, more = '') => `{"code":200,"data":{"taskId":"a","state":"${state}"}}${more}`

/** A ledger of one task: the first end wins. */
function oneTask () {
  let kept: Buffer | null = null
  return {
    settled: [] as string[],
    isDown: false,
    get kept () { return kept },
    set kept (answer) { kept = answer },
    async settle ({ state, answer }: Completion) {
      if (this.isDown) throw gatewayError('GW_STORE_DOWN')
      if (kept !== null) return false
      this.settled.push(state)
      kept = answer
      return true
    },
    async taskOf () { return { ...task, finalAnswer: kept } }
  }
}

/** An upstream that answers when the test says so, and the replicas that share its leases. */
function pollers ({ replicas = 1, leases: given = undefined as PollLeases | undefined } = {}) {
  const time = clock()
  const timers = crankedTimers(time)
  const calls: Array<{
    answer: (text: string, more?: Partial<UpstreamAnswer>) => void
    fail: (failure: UpstreamFailure) => void
    isCancelled: boolean
  }> = []
  const upstream = wholeUpstream(() => {
    const { promise, resolve, reject } = Promise.withResolvers<UpstreamAnswer>()
    const call = {
      isCancelled: false,
      fail: reject,
      answer: (text: string, more: Partial<UpstreamAnswer> = {}) => resolve(wholeAnswer(text, more))
    }
    calls.push(call)
    return {
      answer: promise,
      cancel () {
        call.isCancelled = true
        reject(new UpstreamFailure('cancelled'))
      }
    }
  })
  const keys = wholeKeys(['one'])
  const ledger = oneTask()
  const events = localEvents()
  const heard: TaskEvent[] = []
  events.subscribe(event => heard.push(event), () => {})
  const leases = given ?? localPollLeases({ elapsed: time.elapsed, leaseMs: 120_000 })
  const goneKeys = { ask: (_task: Task, failure: StatusFailure) => Promise.resolve<StatusOutcome>(failure) }
  const options = {
    upstream,
    keys,
    goneKeys,
    ledger,
    events,
    leases,
    timers,
    answerMs,
    intervalOf: () => intervalMs,
    now: time.now,
    elapsed: time.elapsed
  }
  const [poller, other] = Array.from({ length: Math.max(replicas, 2) }, () => statusPoller(options))
  /** The next call, when it has been made. */
  const next = async (count: number) => {
    await until(`call ${count}`, () => calls.length >= count)
    return calls[count - 1]!
  }
  return { poller: poller!, other: other!, calls, next, ledger, heard, time, timers }
}

t.test('who asks at the same time shares one call, and who asks too early gets the last answer', async t => {
  const { poller, calls, next, time, heard } = pollers()
  const inquiries = Array.from({ length: 100 }, () => poller.poll(task))
  const call = await next(1)
  call.answer(said('pending'))
  for (const report of await Promise.all(inquiries.map(({ report }) => report))) {
    t.match(report, { source: 'upstream', answer: { status: 200 } })
  }
  time.advance(intervalMs - 1)
  t.match(await poller.poll(task).report, { source: 'cached', answer: { body: Buffer.from(said('pending')) }, nextInMs: 1 })
  t.equal(calls.length, 1)
  time.advance(1)
  const { report } = poller.poll(task)
  ;(await next(2)).answer(said('processing'))
  t.match(await report, { source: 'upstream' })
  t.match(heard, [
    { state: 'pending', isFinal: false, subject: 'app:alice', model: 'nano-banana' },
    { state: 'processing' }
  ])
})

t.test('a state that has not changed is no event', async t => {
  const { poller, next, time, heard } = pollers()
  for (let count = 1; count <= 3; count++) {
    const { report } = poller.poll(task)
    ;(await next(count)).answer(said('pending'))
    await report
    time.advance(intervalMs)
  }
  t.equal(heard.length, 1)
})

t.test('an end is in the ledger before anybody hears of it, and the first one wins', async t => {
  const { poller, other, next, ledger, heard, time } = pollers()
  const first = poller.poll(task)
  ;(await next(1)).answer(said('success'))
  t.match(await first.report, { source: 'upstream' })
  t.same(ledger.settled, ['success'])
  t.match(heard, [{ state: 'success', isFinal: true }])
  t.match(
    await other.poll(task).report,
    { source: 'ledger', answer: { body: Buffer.from(said('success')) } },
    'for who does not know it yet'
  )
  time.advance(intervalMs)
  const second = other.poll(task)
  ;(await next(2)).answer(said('failed'))
  t.match(await second.report, { source: 'ledger', answer: { body: Buffer.from(said('success')) } }, 'whatever the upstream says now')
  t.same(ledger.settled, ['success'])
  const ended = poller.poll({ ...task, finalAnswer: Buffer.from('x') })
  t.match(await ended.report, { source: 'ledger', answer: { body: Buffer.from('x') } })
  ended.cancel()
})

t.test('an end that the ledger does not take is passed on all the same', async t => {
  const { poller, next, ledger } = pollers()
  ledger.settle = async () => false
  const { report } = poller.poll(task)
  ;(await next(1)).answer(said('success'))
  t.match(await report, { source: 'upstream' })
})

t.test('trouble is told to all who waited, and is nobody\'s after that', async t => {
  const { poller, next, ledger, heard } = pollers()
  const troubles: Array<[(call: Awaited<ReturnType<typeof next>>) => void, string]> = [
    [call => call.fail(new UpstreamFailure('unreachable')), 'GW_UPSTREAM_UNREACHABLE'],
    [call => call.fail(new UpstreamFailure('timeout')), 'GW_UPSTREAM_TIMEOUT'],
    [call => call.answer('<html>'), 'GW_UPSTREAM_INVALID'],
    [call => call.answer(said('success'), { status: 302 }), 'GW_UPSTREAM_INVALID'],
    [call => call.answer(said('success'), { leaksKey: true }), 'GW_UPSTREAM_INVALID'],
    [call => call.answer('{"code":401}'), 'GW_UPSTREAM_REFUSED_KEY']
  ]
  let count = 0
  for (const [happens, code] of troubles) {
    const inquiries = [poller.poll(task), poller.poll(task)]
    happens(await next(++count))
    for (const { report } of inquiries) t.match(await report, { source: 'none', code })
  }
  const refused = poller.poll(task)
  ;(await next(++count)).answer('{"code":500,"message":"no","data":null}', { status: 500 })
  t.match(await refused.report, { source: 'upstream', answer: { status: 500 } })
  const odd = poller.poll(task)
  ;(await next(++count)).answer('{"code":200,"data":{"taskId":"another","state":"success"}}')
  t.match(await odd.report, { source: 'upstream' }, 'an answer about another task is passed on, and no more')
  const keyless = poller.poll({ ...task, keyId: 'two' })
  setImmediate(keyless.cancel)
  t.same(await keyless.report, { source: 'none', code: 'GW_NO_KEY' })
  const { report } = poller.poll(task)
  ;(await next(++count)).answer(said('pending'))
  t.match(await report, { source: 'upstream', answer: { status: 200 } }, 'the turn was free each time')
  t.same([ledger.settled, heard.length], [[], 1])
})

t.test('a store that is down is told to all who waited, and the turn is free', async t => {
  const { poller, next, ledger, heard } = pollers()
  ledger.isDown = true
  const inquiries = [poller.poll(task), poller.poll(task)]
  ;(await next(1)).answer(said('success'))
  for (const { report } of inquiries) await t.rejects(report, { code: 'GW_STORE_DOWN' })
  t.same(heard, [])
  ledger.isDown = false
  const { report } = poller.poll(task)
  ;(await next(2)).answer(said('success'))
  t.match(await report, { source: 'upstream' })
})

t.test('an answer is not lost when the next turn can not be set', async t => {
  const turns: PollLeases = {
    acquire: async () => ({ acquired: true }),
    release: async () => {
      throw gatewayError('GW_STORE_DOWN')
    }
  }
  const { poller, next } = pollers({ leases: turns })
  const { report } = poller.poll(task)
  ;(await next(1)).answer(said('pending'))
  t.match(await report, { source: 'upstream' })
})

t.test('the call goes on while anybody waits for it, and is cancelled with the last', async t => {
  const { poller, calls, next, time, timers } = pollers()
  const [first, second] = [poller.poll(task), poller.poll(task)]
  const call = await next(1)
  first.cancel()
  first.cancel()
  t.notOk(call.isCancelled, 'leaving twice is once')
  second.cancel()
  t.ok(call.isCancelled)
  t.match(await second.report, { source: 'none' })
  const again = poller.poll(task)
  await until('it is asked again', () => {
    time.advance(50)
    timers.run()
    return calls.length === 2
  })
  ;(await next(2)).answer(said('pending'))
  t.match(await again.report, { source: 'upstream' })
  again.cancel()
  t.notOk(calls[1]!.isCancelled, 'what is over is not cancelled')
})

t.test('who is gone before the call is made costs none', async t => {
  const { poller, next, calls } = pollers()
  const gone = poller.poll(task)
  gone.cancel()
  t.match(await gone.report, { source: 'none' })
  t.equal(calls.length, 0)
  const { report } = poller.poll(task)
  ;(await next(1)).answer(said('pending'))
  t.match(await report, { source: 'upstream' })
})

t.test('while the first answer is on its way to another replica, it is waited for', async t => {
  const { poller, other, next, calls, time, timers } = pollers({ replicas: 2 })
  const [here, there] = [poller.poll(task), other.poll(task)]
  const call = await next(1)
  await until('the other waits', () => timers.waiting === 1)
  time.advance(50)
  timers.run()
  await until('it waits on', () => timers.waiting === 1)
  call.answer(said('pending'))
  t.match(await here.report, { source: 'upstream' })
  time.advance(100)
  timers.run()
  t.match(await there.report, { source: 'cached', answer: { body: Buffer.from(said('pending')) } })
  t.equal(calls.length, 1)
})

t.test('nobody waits for another replica for ever, nor when nobody waits', async t => {
  const { poller, other, next, time, timers } = pollers({ replicas: 2 })
  const first = poller.poll(task)
  await next(1)
  const late = other.poll(task)
  await until('it waits', () => timers.waiting === 1)
  time.advance(answerMs)
  timers.run()
  t.match(await late.report, { source: 'none', code: 'GW_UPSTREAM_TIMEOUT' })
  const gone = other.poll(task)
  gone.cancel()
  t.match(await gone.report, { source: 'none' })
  first.cancel()
})

const over: StatusReport = { source: 'ledger', state: 'success', answer: { body: Buffer.from('{}') } }

/** What is asked, and what is noted without asking. */
function ending () {
  const asked: string[] = []
  const noted: Completion[] = []
  const poller: StatusPoller = {
    poll ({ taskId }) {
      asked.push(taskId)
      return { report: Promise.resolve({ source: 'none', code: 'GW_UPSTREAM_TIMEOUT' }), cancel () {} }
    }
  }
  const ledger = { async settle (ending: Completion) { return noted.push(ending) > 0 } }
  return { asked, noted, end: refreshTask({ poller, ledger }) }
}

/**
 * A search over rows that stand there, the newest first; of a task that has left the ledger meanwhile there is a row
 * alone.
 */
function searching (rows: readonly Stage[], refreshTask: RefreshTask) {
  const time = clock()
  const timers = crankedTimers(time)
  const seen: number[] = []
  const items = rows.map((stage, index) => wholeRecord({ stage, taskId: `task-${index}` }))
  const slots = slotSearch({
    records: {
      async tasksOf (_subject, { cursor, limit }) {
        const start = Number(cursor)
        seen.push(start)
        return {
          items: items.slice(start, start + limit),
          next: start + limit < items.length ? String(start + limit) : null
        }
      }
    },
    ledger: { taskOf: async taskId => taskId === 'task-0' ? null : { ...knownTask, taskId, model: 'suno' } },
    refreshTask,
    intervalOf: () => 7000,
    timers,
    elapsed: time.elapsed
  })
  return { slots, seen, time, timers }
}

const knownTask = wholeTask({ taskId: 'task-1' })

t.test('a task is asked about where everybody asks, and an upstream that can not say leaves it as it is', async t => {
  const { asked, noted, end } = ending()
  await end(knownTask)
  t.same({ asked, noted }, { asked: ['task-1'], noted: [] })
})

t.test('a batch\'s own row is over without a question', async t => {
  const { asked, noted, end } = ending()
  await end({ ...knownTask, operation: 'batch' })
  t.match({ asked, noted }, { asked: [], noted: [{ taskId: 'task-1', state: 'success' }] })
})

t.test(
  'a search asks about as many tasks as there are slots, looks no further back than it must, and a while later again',
  async t => {
    const asked: string[] = []
    const rows: Stage[] = Array.from({ length: 450 }, (_, index) => (index % 3 === 0 ? 'claimed' : 'settled'))
    const { slots, seen, time, timers } = searching(rows, async ({ taskId }) => {
      asked.push(taskId)
      return { source: 'none', code: 'GW_UPSTREAM_TIMEOUT' }
    })
    await Promise.all([slots.search('app:alice', 50), slots.search('app:alice', 50)])
    t.equal(asked.length, 50)
    t.same(seen, [0, 100])
    t.equal(slots.nextInMs('app:alice'), 7000)
    t.equal(slots.nextInMs('app:bob'), 0)
    t.equal(timers.waiting, 0)
    time.advance(6999)
    await slots.search('app:alice', 50)
    t.equal(asked.length, 50)
    time.advance(1)
    await slots.search('app:alice', 50)
    t.equal(asked.length, 100)
  }
)

t.test('a search goes back a thousand tasks and no further', async t => {
  const { slots, seen } = searching(Array.from({ length: 1500 }, () => 'settled' as const), async () => over)
  await slots.search('app:alice', 5)
  t.equal(seen.length, 10)
  t.equal(slots.nextInMs('app:alice'), 5000, 'there is nothing to ask about')
})

t.test('a batch\'s own row that is over needs no waiting for, and a store that is down is told', async t => {
  const { slots } = searching(['claimed', 'claimed'], async () => over)
  await slots.search('app:alice', 5)
  t.equal(slots.nextInMs('app:alice'), 5000)
  const failing = searching(['claimed', 'claimed'], async () => { throw gatewayError('GW_STORE_DOWN') })
  await t.rejects(failing.slots.search('app:alice', 5), { code: 'GW_STORE_DOWN' })
  t.equal(failing.timers.waiting, 0)
  await t.rejects(failing.slots.search('app:alice', 5), { code: 'GW_STORE_DOWN' }, 'it is tried again')
})

t.test('after a search that was not over in time no further task is asked about', async t => {
  const asked: string[] = []
  const answers: Array<() => void> = []
  const { slots, time, timers } = searching(
    Array.from({ length: 40 }, () => 'claimed' as const),
    async ({ taskId }) => {
      asked.push(taskId)
      await new Promise<void>(resolve => answers.push(resolve))
      return over
    }
  )
  const search = slots.search('app:alice', 40)
  await until('ten are asked about', () => asked.length === 10)
  time.advance(3000)
  timers.run()
  await search
  t.equal(slots.nextInMs('app:alice'), 1000)
  for (const answer of answers) answer()
  await new Promise(setImmediate)
  t.equal(asked.length, 10)
})
