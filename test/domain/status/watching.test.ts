import t from 'tap'
import { localEvents } from '../../../src/adapters/local.ts'
import type { Task } from '../../../src/domain/ledger.ts'
import type { StatusReport, TaskEvent, TaskEvents } from '../../../src/domain/status-poller.ts'
import { taskWatchers } from '../../../src/domain/task-watcher.ts'
import { gatewayError } from '../../../src/errors.ts'
import { taskEvent } from '../../contracts/task-events.ts'
import { clock } from '../../helpers/clock.ts'
import { crankedTimers } from '../../helpers/timers.ts'
import { until } from '../../helpers/until.ts'

const intervalMs = 3000
const task = { taskId: 'a', subject: 'app:alice', model: 'sora-2', finalAnswer: null } as Task
const body = (state: string) => Buffer.from(`{"code":200,"data":{"taskId":"a","state":"${state}"}}`)
const last = (state: string) => ({ status: 200, contentType: 'application/json', body: body(state) })

/** A desk that says what the test says. */
function watched () {
  const time = clock()
  const timers = crankedTimers(time)
  const questions: Array<PromiseWithResolvers<StatusReport> & { left: boolean }> = []
  const desk = {
    ask () {
      const question = { ...Promise.withResolvers<StatusReport>(), left: false }
      questions.push(question)
      return { report: question.promise, cancel () { question.left = true } }
    }
  }
  const local = localEvents()
  let gap = (): void => {}
  const events: TaskEvents = {
    ...local,
    subscribe (listener, onGap) {
      gap = onGap
      return local.subscribe(listener, onGap)
    }
  }
  const ledger = {
    ended: null as Buffer | null,
    isDown: false,
    async taskOf (): Promise<Task | null> {
      if (this.isDown) throw gatewayError('GW_STORE_DOWN')
      return { ...task, finalAnswer: this.ended }
    }
  }
  const it = taskWatchers({ desk, events, ledger, timers, intervalOf: () => intervalMs, now: time.now })
  const states: string[] = []
  const hear = ({ state }: TaskEvent): void => { states.push(state) }
  const publish = (more: Partial<TaskEvent>): void => events.publish(taskEvent({ at: time.now(), ...more }))
  const pass = (ms: number): void => {
    time.advance(ms)
    timers.run()
  }
  return { it, questions, timers, states, hear, publish, pass, ledger, lose: () => gap() }
}

t.test('a task is asked about by one timer, however many watch it, until nobody does', async t => {
  const { it, questions, timers, states, hear, pass } = watched()
  const leaves = Array.from({ length: 10 }, () => it.task(task, hear))
  t.equal(questions.length, 1)
  questions[0]!.resolve({ kind: 'early', last: last('pending'), nextInMs: 700 })
  await until('all have heard', () => states.length === 10)
  it.task(task, hear)()
  t.equal(states.length, 11, 'who comes later hears it at once')
  pass(699)
  t.equal(questions.length, 1)
  pass(1)
  t.equal(questions.length, 2)
  for (const leave of leaves) leave()
  leaves[0]!()
  t.ok(questions[1]!.left)
  questions[1]!.resolve({ kind: 'early', last: last('processing'), nextInMs: 1 })
  await questions[1]!.promise
  t.equal(timers.waiting, 0)
  t.equal(states.length, 11)
})

t.test('trouble is not told, and the next question comes in its time', async t => {
  const { it, questions, timers, states, hear, pass } = watched()
  it.task(task, hear)
  const troubles: Array<(question: (typeof questions)[number]) => number> = [
    question => {
      question.reject(gatewayError('GW_STORE_DOWN'))
      return intervalMs
    },
    question => {
      question.resolve({ kind: 'failed', code: 'GW_UPSTREAM_TIMEOUT' })
      return intervalMs
    },
    question => {
      question.resolve({ kind: 'early', last: { ...last('x'), body: Buffer.from('{}') }, nextInMs: 0 })
      return 250
    }
  ]
  for (const happens of troubles) {
    const waitMs = happens(questions.at(-1)!)
    await until('it waits', () => timers.waiting === 1)
    const before = questions.length
    pass(waitMs - 1)
    t.equal(questions.length, before)
    pass(1)
    t.equal(questions.length, before + 1)
  }
  t.same(states, [])
})

t.test('a change is told once, however it comes, and nothing that is older', async t => {
  const { it, questions, states, hear, publish, pass } = watched()
  it.task(task, hear)
  publish({ state: 'pending' })
  publish({ state: 'pending' })
  publish({ state: '', body: Buffer.alloc(0) })
  publish({ state: 'other', taskId: 'b' })
  publish({ state: 'created', at: 0 })
  questions[0]!.resolve({ kind: 'early', last: last('pending'), nextInMs: 100 })
  await questions[0]!.promise
  pass(1)
  publish({ state: 'processing' })
  publish({ state: 'success', isFinal: true, at: 0 })
  publish({ state: 'failed', isFinal: true })
  t.same(states, ['pending', 'processing', 'success'], 'and after the end nothing')
})

t.test('who watches a subject hears of all its tasks, and no other\'s', async t => {
  const { it, publish, lose } = watched()
  const heard: string[] = []
  let missed = 0
  const watcher = {
    changed: ({ taskId, state }: TaskEvent) => {
      heard.push(taskId + state)
    },
    onGap: () => {
      missed++
    }
  }
  const [leave, other] = [it.subject('app:alice', watcher), it.subject('app:alice', { ...watcher })]
  publish({ state: '' })
  publish({ subject: 'app:bob' })
  lose()
  t.same([heard, missed], [['a', 'a'], 2])
  other()
  publish({ taskId: 'b', state: 'success', isFinal: true })
  leave()
  leave()
  publish({})
  t.same(heard, ['a', 'a', 'bsuccess'])
  it.subject('app:alice', watcher)
  it.close()
  publish({})
  t.equal(heard.length, 3)
})

t.test('an end that was lost on the way is found in the ledger', async t => {
  const { it, states, hear, ledger, lose } = watched()
  it.task(task, hear)
  lose()
  ledger.isDown = true
  lose()
  ledger.isDown = false
  ledger.ended = body('success')
  lose()
  await until('it is told', () => states.length === 1)
  t.same(states, ['success'])
})
