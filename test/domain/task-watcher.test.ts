import t from 'tap'
import { localEvents } from '../../src/adapters/local.ts'
import type { Task } from '../../src/domain/ledger.ts'
import type { TaskEnd } from '../../src/domain/records.ts'
import type { StatusReport, TaskEvent, TaskEvents } from '../../src/domain/task-status.ts'
import { sliceMs } from '../../src/domain/time.ts'
import { gatewayError } from '../../src/errors.ts'
import {
  endsPerPage, type EventCursor, firstDepth, replayMs, slackMs, subjectEvents, type SubjectListener, type TaskListener,
  taskWatchers
} from '../../src/features/events/watchers.ts'
import { taskEvent } from '../contracts/task-events.ts'
import { clock } from '../helpers/clock.ts'
import { crankedTimers } from '../helpers/timers.ts'
import { until } from '../helpers/until.ts'
import { wholeRecord, wholeTask } from '../helpers/whole.ts'

const intervalMs = 3000
const task = wholeTask({ model: 'sora-2' })
const body = (state: string) => Buffer.from(`{"code":200,"data":{"taskId":"a","state":"${state}"}}`)
const cached = (state: string, nextInMs: number): StatusReport =>
  ({ source: 'cached', state, answer: { status: 200, contentType: 'application/json', body: body(state), state }, nextInMs })

/** A poller that says what the test says. */
function watched () {
  const time = clock()
  const timers = crankedTimers(time)
  const questions: Array<PromiseWithResolvers<StatusReport> & { left: boolean }> = []
  const poller = {
    poll () {
      const question = { ...Promise.withResolvers<StatusReport>(), left: false }
      questions.push(question)
      return { report: question.promise, cancel () { question.left = true } }
    }
  }
  const local = localEvents()
  let gap = (): void => {}
  let listening = 0
  const events: TaskEvents = {
    ...local,
    subscribe (listener, onGap) {
      gap = onGap
      listening++
      const leave = local.subscribe(listener, onGap)
      return () => {
        listening--
        leave()
      }
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
  const it = taskWatchers({ poller, events, ledger, timers, intervalOf: () => intervalMs, ...time })
  const states: string[] = []
  const hear = ({ state }: TaskEvent): void => { states.push(state) }
  const publish = (more: Partial<TaskEvent>): void => events.publish(taskEvent({ at: time.now(), ...more }))
  const pass = (ms: number): void => {
    time.advance(ms)
    timers.run()
  }
  return {
    it, time, questions, timers, states, hear, publish, pass, ledger, lose: () => gap(), listening: () => listening
  }
}

t.test('a task is asked about by one timer, however many watch it, until nobody does', async t => {
  const { it, questions, timers, states, hear, pass } = watched()
  const leaves = Array.from({ length: 10 }, () => it.watchTask(task, hear))
  t.equal(questions.length, 1)
  questions[0]!.resolve(cached('pending', 700))
  await until('all have heard', () => states.length === 10)
  it.watchTask(task, hear)()
  t.equal(states.length, 11, 'who comes later hears it at once')
  pass(699)
  t.equal(questions.length, 1)
  pass(1)
  t.equal(questions.length, 2)
  for (const leave of leaves) leave()
  leaves[0]!()
  t.ok(questions[1]!.left)
  questions[1]!.resolve(cached('processing', 1))
  await questions[1]!.promise
  t.equal(timers.waiting, 0)
  t.equal(states.length, 11)
})

t.test('events are listened to once, and only while somebody watches', async t => {
  const { it, hear, states, publish, listening } = watched()
  const nothing = { onEvent () {}, onGap () {} }
  t.equal(listening(), 0)
  const [leaveTask, leaveSubject] = [it.watchTask(task, hear), it.watchSubject(task.subject, nothing)]
  t.equal(listening(), 1)
  leaveTask()
  t.equal(listening(), 1, 'a subject is still watched')
  leaveSubject()
  t.equal(listening(), 0)
  leaveSubject()
  t.equal(listening(), 0, 'to leave twice is to leave')
  it.watchTask(task, hear)
  t.equal(listening(), 1)
  publish({ taskId: task.taskId, subject: task.subject, state: 'success', isFinal: true })
  t.strictSame(states, ['success'])
  t.equal(listening(), 0, 'after its end nobody watches it')
  it.close()
  t.equal(listening(), 0)
})

t.test('trouble is not told, and the next question comes in its time', async t => {
  const { it, questions, timers, states, hear, pass } = watched()
  it.watchTask(task, hear)
  const troubles: Array<(question: (typeof questions)[number]) => number> = [
    question => {
      question.reject(gatewayError('GW_STORE_DOWN'))
      return intervalMs
    },
    question => {
      question.resolve({ source: 'none', code: 'GW_UPSTREAM_TIMEOUT' })
      return intervalMs
    },
    question => {
      const answer = { status: 200, contentType: 'application/json', body: Buffer.from('{}'), state: null }
      question.resolve({ source: 'cached', state: null, answer, nextInMs: 0 })
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
  it.watchTask(task, hear)
  publish({ state: 'pending' })
  publish({ state: 'pending' })
  publish({ state: '', body: Buffer.alloc(0) })
  publish({ state: 'other', taskId: 'b' })
  publish({ state: 'created', at: 0 })
  questions[0]!.resolve(cached('pending', 100))
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
    onEvent: ({ taskId, state }: TaskEvent) => {
      heard.push(taskId + state)
    },
    onGap: () => {
      missed++
    }
  }
  const [leave, other] = [it.watchSubject('app:alice', watcher), it.watchSubject('app:alice', { ...watcher })]
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
  it.watchSubject('app:alice', watcher)
  it.close()
  publish({})
  t.equal(heard.length, 3)
})

t.test('an end that was lost on the way is found in the ledger', async t => {
  const { it, states, hear, ledger, lose } = watched()
  it.watchTask(task, hear)
  lose()
  ledger.isDown = true
  lose()
  ledger.isDown = false
  ledger.ended = body('success')
  lose()
  await until('it is told', () => states.length === 1)
  t.same(states, ['success'])
})

/** A thousand watchers of the task, each of whom takes a fiftieth of a millisecond. */
function crowd () {
  const scene = watched()
  const heard = Array.from({ length: 1000 }, (): string[] => [])
  let told = 0
  const hear = (index: number) => ({ state }: TaskEvent): void => {
    heard[index]!.push(state)
    if (++told % 50 === 0) scene.time.advance(1)
  }
  const leaves = heard.map((_, index) => scene.it.watchTask(task, hear(index)))
  const hearing = (states: string) => heard.filter(list => list.join(' ') === states).length
  /** What waits has its turn, once. Says how long that took. */
  const turn = (): number => {
    const start = scene.time.elapsed()
    scene.timers.run()
    return scene.time.elapsed() - start
  }
  return { ...scene, heard, leaves, hearing, turn }
}

t.test('a change is told to a thousand watchers in slices of a few milliseconds', async t => {
  const { publish, hearing, turn, time, timers } = crowd()
  const start = time.elapsed()
  publish({ state: 'pending' })
  t.equal(time.elapsed() - start, sliceMs)
  const slices = [hearing('pending')]
  while (timers.waiting > 0) {
    t.ok(turn() <= sliceMs)
    slices.push(hearing('pending'))
  }
  t.strictSame(slices, [150, 300, 450, 600, 750, 900, 1000])
})

t.test('changes that come while one is told follow it, in their order for each, and end with the end', async t => {
  const { publish, heard, turn, timers } = crowd()
  publish({ state: 'pending' })
  publish({ state: 'processing' })
  turn()
  publish({ state: 'success', isFinal: true })
  t.notOk(heard.some(states => states.includes('processing')))
  while (timers.waiting > 0) turn()
  t.ok(heard.every(states => states.join(' ') === 'pending processing success'))
})

t.test('who leaves while a change is told hears no more of it, and who comes hears the latest, once', async t => {
  const { it, publish, leaves, heard, hearing, turn, timers, states, hear } = crowd()
  publish({ state: 'pending' })
  for (const leave of leaves.slice(500)) leave()
  it.watchTask(task, hear)
  t.strictSame(states, ['pending'])
  publish({ state: 'processing' })
  while (timers.waiting > 0) turn()
  t.equal(hearing('pending processing'), 500)
  t.ok(heard.slice(500).every(list => list.length === 0))
  t.strictSame(states, ['pending', 'processing'])
})

t.test('a stop while a change is told is the end of it', async t => {
  const { it, publish, hearing, turn, timers } = crowd()
  publish({ state: 'pending' })
  it.close()
  while (timers.waiting > 0) turn()
  t.equal(hearing('pending'), 150)
})

t.test('who leaves a subject while its watchers are told hears no more', async t => {
  const { it, time, publish, lose, timers } = watched()
  const heard: string[] = []
  const leaves = ['one', 'two'].map(name => it.watchSubject('app:alice', {
    onEvent () {
      heard.push(name)
      time.advance(sliceMs)
    },
    onGap () {
      heard.push(`${name} gap`)
      time.advance(sliceMs)
    }
  }))
  lose()
  publish({})
  t.strictSame(heard, ['one gap'])
  leaves[1]!()
  while (timers.waiting > 0) timers.run()
  t.strictSame(heard, ['one gap', 'one'])
})

interface Row {
  ended?: boolean
  operation?: string
  model?: string
  stage?: 'unknown'
  subject?: string
  endedAt?: number
}

/** A subject's tasks, the newest first, and what its feed tells of them. */
function fed (since: EventCursor | null = null, isOldStore = false) {
  const time = clock()
  const tasks = new Map<string, Row>()
  const watchers = new Map<string, TaskListener>()
  let subject: SubjectListener | undefined
  const store = { isDown: false }
  let reads = 0
  const taskOf = async (taskId: string): Promise<Task | null> => {
    if (store.isDown) throw gatewayError('GW_STORE_DOWN')
    const row = tasks.get(taskId)
    if (row === undefined) return null
    const finalAnswer = row.ended ? Buffer.from('{"code":200,"data":{"state":"success"}}') : null
    const { operation = 'generateTask', model = 'sora-2', subject = 'app:alice' } = row
    return wholeTask({ taskId, operation, model, subject, finalAnswer })
  }
  const tasksOf = async (_subject: string, { cursor, limit }: { cursor: string | null, limit: number }) => {
    if (store.isDown) throw gatewayError('GW_STORE_DOWN')
    reads++
    const start = Number(cursor)
    const rows = [...tasks].reverse().map(
      ([taskId, { ended, operation = 'generateTask', model = 'sora-2', stage, endedAt = time.now() }]) =>
        wholeRecord({
          taskId,
          operation,
          model,
          stage: stage ?? (ended ? 'settled' : 'claimed'),
          endedAt: ended ? endedAt : null
        })
    )
    return { items: rows.slice(start, start + limit), next: rows.length > start + limit ? String(start + limit) : null }
  }
  /** As a store has them: by their time, then by the id. */
  const endsOf = async (_subject: string, after: TaskEnd, limit: number): Promise<readonly TaskEnd[]> => {
    if (store.isDown) throw gatewayError('GW_STORE_DOWN')
    const ends = [...tasks].flatMap(([taskId, { ended, endedAt = time.now() }]) =>
      ended && !isOldStore ? [{ taskId, endedAt }] : []
    )
    const isAfter = (one: TaskEnd, other: TaskEnd): boolean =>
      one.endedAt > other.endedAt || (one.endedAt === other.endedAt && one.taskId > other.taskId)
    return ends
      .filter(end => isAfter(end, after))
      .sort((one, other) => (isAfter(one, other) ? 1 : -1))
      .slice(0, limit)
  }
  const told: string[] = []
  const marks: number[] = []
  const resyncs: number[] = []
  /** The reader takes so many events more, and then no other until it is let. */
  const reader = { takes: Infinity, room: Promise.withResolvers<void>() }
  const feed = subjectEvents({
    now: time.now,
    ledger: { taskOf },
    records: { tasksOf, endsOf },
    watchers: {
      watchTask ({ taskId }, watcher) {
        watchers.set(taskId, watcher)
        return () => {
          watchers.delete(taskId)
        }
      },
      watchSubject (_subject, watcher) {
        subject = watcher
        return () => {
          subject = undefined
        }
      },
      close () {}
    }
  })({
    subject: 'app:alice',
    permits: model => model === 'sora-2',
    since,
    emit: ({ taskId, state }, mark) => {
      told.push(`${taskId} ${state}`)
      marks.push(mark)
      return --reader.takes > 0 ? null : reader.room.promise
    },
    resync: from => {
      resyncs.push(from)
    }
  })
  const say = (taskId: string, more: Partial<TaskEvent> = {}): void => {
    const event = taskEvent({ taskId, ...more })
    watchers.get(taskId)?.(event)
    subject?.onEvent(event)
  }
  return {
    feed,
    time,
    tasks,
    watchers,
    told,
    marks,
    resyncs,
    reader,
    say,
    miss: () => subject?.onGap(),
    store,
    get reads () {
      return reads
    }
  }
}

const final = { state: 'success', isFinal: true } as const
/** All that was begun has been done. */
const rest = (): Promise<void> =>
  new Promise(resolve => {
    setImmediate(resolve)
  })

t.test('each unfinished task is followed once, and each end is told once', async t => {
  const { feed, tasks, watchers, told, say } = fed()
  tasks
    .set('a', {})
    .set('b', {})
    .set('old', { ended: true, endedAt: 0 })
    .set('lost', { stage: 'unknown' })
    .set('batch', { operation: 'batch' })
    .set('other', { model: 'suno' })
  feed.refresh()
  feed.refresh()
  await rest()
  t.strictSame([...watchers.keys()].sort(), ['a', 'b'])
  say('a')
  say('a', final)
  say('a', final)
  feed.refresh()
  await rest()
  t.strictSame(told, ['a pending', 'a success'])
})

t.test("a task that is heard of is followed, or told when it has ended; whoever's it is not is left out", async t => {
  const { tasks, watchers, told, say } = fed()
  tasks
    .set('new', {})
    .set('quick', { ended: true })
    .set('bob', { subject: 'app:bob' })
    .set('batch', { operation: 'batch' })
  for (const taskId of ['new', 'new', 'quick', 'quick', 'bob', 'batch', 'nobody']) say(taskId, { state: '' })
  await rest()
  t.strictSame([...watchers.keys()], ['new'])
  t.strictSame(told, ['quick success'])
})

t.test(
  'a mark moves on with each look, and what was missed while the store was down is told by the next one',
  async t => {
    const it = fed()
    const start = it.time.now()
    it.tasks.set('a', {})
    it.time.advance(1000)
    it.store.isDown = true
    it.feed.refresh()
    it.say('a', { state: '' })
    await rest()
    it.store.isDown = false
    it.tasks.set('b', { ended: true })
    it.feed.refresh()
    await rest()
    it.say('a')
    t.strictSame(it.told, ['b success', 'a pending'])
    it.time.advance(slackMs)
    it.feed.refresh()
    await rest()
    it.say('a')
    t.strictSame(
      it.marks,
      [start + slackMs, start + slackMs, start + 1000 + slackMs],
      'what may still be written is not said to be over'
    )
  }
)

t.test(
  'ends are told the oldest first, each with a mark from which a reader that was cut goes on, and never an older one',
  async t => {
    const start = clock().now() - 3600_000
    const tasks = Array.from(
      { length: 3 * endsPerPage },
      (_, index) => [`t${index}`, { ended: true, endedAt: start + Math.floor(index / 2) }] as const
    )
    const heard: string[] = []
    let since: EventCursor = { at: start, taskId: 'x' }
    for (let round = 0; heard.length < tasks.length; round++) {
      const it = fed(since)
      for (const [taskId, row] of [...tasks].reverse()) it.tasks.set(taskId, row)
      it.reader.takes = 7
      it.feed.refresh()
      await until('it has what it takes', () => it.told.length === Math.min(7, tasks.length - heard.length))
      heard.push(...it.told)
      since = { at: it.marks.at(-1)!, taskId: it.told.at(-1)!.split(' ')[0]! }
      it.feed.stop()
      it.reader.room.resolve()
      await rest()
      t.ok(round < tasks.length)
    }
    t.strictSame(heard.map(story => story.split(' ')[0]).sort(), tasks.map(([taskId]) => taskId).sort(), 'each once')
  }
)

t.test('a reader that takes its time is sent nothing more, and then the latest of each task', async t => {
  const it = fed({ at: clock().now(), taskId: '' })
  for (const taskId of ['a', 'b']) it.tasks.set(taskId, {})
  for (const taskId of ['old', 'older']) it.tasks.set(taskId, { ended: true })
  it.tasks.set('of another model', { ended: true, model: 'suno', endedAt: clock().now() - 1 })
  it.reader.takes = 1
  it.feed.refresh()
  await rest()
  t.strictSame(it.told, ['old success'])
  for (const taskId of ['a', 'b']) it.say(taskId, { state: '' })
  await rest()
  for (const state of ['pending', 'processing']) for (const taskId of ['a', 'b']) it.say(taskId, { state })
  it.say('older', { state: '' })
  it.say('b', final)
  await rest()
  t.strictSame(it.told, ['old success'])
  it.reader.takes = Infinity
  it.reader.room.resolve()
  await rest()
  t.strictSame(it.told, ['old success', 'a processing', 'b success', 'older success'])
})

t.test('of ends that are more than a day ago nothing is told, and the reader is told so', async t => {
  const now = clock().now()
  const it = fed({ at: 1, taskId: 'x' })
  for (const ago of [replayMs, replayMs - 1]) it.tasks.set(String(ago), { ended: true, endedAt: now - ago })
  it.feed.refresh()
  await rest()
  t.strictSame([it.resyncs, it.told], [[now - replayMs], [`${replayMs - 1} success`]])
  it.feed.refresh()
  await rest()
  t.equal(it.resyncs.length, 1, 'once')

  const resyncsOf = async (
    since: EventCursor | null,
    tasks: ReadonlyArray<readonly [string, Row]>
  ): Promise<number> => {
    const it = fed(since)
    for (const [taskId, row] of tasks) it.tasks.set(taskId, row)
    it.feed.refresh()
    await until('it has looked', () => it.reads >= Math.min(5, Math.ceil(tasks.length / 100)))
    await rest()
    return it.resyncs.length
  }
  const old = { ended: true, endedAt: now - replayMs - 1 }
  t.equal(await resyncsOf({ at: now + 1e9, taskId: 'x' }, [['old', old]]), 0, 'a mark in the future is one of now')
  for (const since of [null, { at: now - replayMs + slackMs, taskId: '' }]) {
    t.equal(await resyncsOf(since, [['old', old]]), 0)
  }
  t.equal(
    await resyncsOf({ at: 1, taskId: 'x' }, [
      ['other', { ...old, model: 'suno' }],
      ['running', {}]
    ]),
    0,
    'nothing was missed'
  )
  t.equal(
    await resyncsOf(
      { at: 1, taskId: 'x' },
      Array.from({ length: firstDepth + 1 }, (_, index) => [String(index), {}])
    ),
    1,
    'who knows what lies behind that'
  )
})

t.test('ends that a store has in no order are told all the same', async t => {
  const it = fed({ at: clock().now() - 1000, taskId: '' }, true)
  it.tasks.set('a', { ended: true }).set('b', { ended: true, endedAt: 0 }).set('c', { ended: true, model: 'suno' })
  it.feed.refresh()
  await rest()
  it.feed.refresh()
  await rest()
  t.strictSame(it.told, ['a success'])
})

t.test('a feed remembers ends that it has told, up to a number', async t => {
  const it = fed()
  for (let count = 0; count <= 10_000; count++) {
    it.tasks.set(String(count), { ended: true, endedAt: 0 })
    it.say(String(count), { state: '' })
  }
  await rest()
  t.equal(it.told.length, 10_001)
  for (const taskId of ['0', '1']) it.say(taskId, { state: '' })
  await rest()
  t.strictSame(it.told.slice(10_001), ['0 success'])
})

t.test('the first look goes back a long way, later ones do not, unless events were lost', async t => {
  const it = fed()
  for (let count = 0; count < firstDepth + 100; count++) it.tasks.set(String(count), {})
  it.feed.refresh()
  await until('all are followed', () => it.watchers.size === firstDepth)
  await rest()
  t.equal(it.reads, 5)
  it.feed.refresh()
  await rest()
  t.equal(it.reads, 6)
  it.tasks.set('new', { ended: true, endedAt: it.time.now() + 1 })
  it.miss()
  await until('the new one is told', () => it.told.includes('new success'))
  await rest()
  t.equal(it.reads, 11)
})

t.test('a feed that has stopped tells nothing, and follows nothing', async t => {
  const { feed, tasks, watchers, told, say } = fed()
  tasks.set('a', {}).set('b', {})
  feed.refresh()
  await rest()
  const late = watchers.get('a')!
  tasks.set('ended', { ended: true, endedAt: Infinity })
  feed.refresh()
  feed.stop()
  late(taskEvent({ taskId: 'a', ...final }))
  say('b', final)
  tasks.set('c', {})
  await rest()
  t.strictSame([told, watchers.size], [[], 0])
})
