import t from 'tap'
import type { Task } from '../../../src/domain/ledger/ledger.ts'
import type { TaskRecord } from '../../../src/domain/ledger/records.ts'
import type { TaskEvent } from '../../../src/domain/status/events.ts'
import { feedDepth, subjectFeed } from '../../../src/domain/status/subject-feed.ts'
import type { SubjectWatcher, TaskWatcher } from '../../../src/domain/status/watching.ts'
import { gatewayError } from '../../../src/errors.ts'
import { taskEvent } from '../../contracts/task-events.ts'
import { clock } from '../../helpers/clock.ts'
import { until } from '../../helpers/until.ts'

interface Row { ended?: boolean, operation?: string, model?: string, stage?: 'unknown', subject?: string, endedAt?: number }

/** A subject's tasks, the newest first, and what its feed tells of them. */
function fed (since: number | null = null) {
  const time = clock()
  const tasks = new Map<string, Row>()
  const watchers = new Map<string, TaskWatcher>()
  let subject: SubjectWatcher | undefined
  const store = { isDown: false }
  let reads = 0
  const taskOf = async (taskId: string): Promise<Task | null> => {
    if (store.isDown) throw gatewayError('GW_STORE_DOWN')
    const row = tasks.get(taskId)
    if (row === undefined) return null
    const finalAnswer = row.ended ? Buffer.from('{"code":200,"data":{"state":"success"}}') : null
    return { taskId, subject: 'app:alice', operation: 'generateTask', model: 'sora-2', ...row, finalAnswer } as unknown as Task
  }
  const tasksOf = async (_subject: string, { cursor, limit }: { cursor: string | null, limit: number }) => {
    if (store.isDown) throw gatewayError('GW_STORE_DOWN')
    reads++
    const start = Number(cursor)
    const rows = [...tasks].reverse().map(([taskId, { ended, operation = 'generateTask', stage, endedAt = time.now() }]) => ({
      taskId, operation, stage: stage ?? (ended ? 'settled' : 'claimed'), endedAt: ended ? endedAt : null
    }) as TaskRecord)
    return { items: rows.slice(start, start + limit), next: rows.length > start + limit ? String(start + limit) : null }
  }
  const told: string[] = []
  const marks: number[] = []
  const feed = subjectFeed({
    now: time.now,
    ledger: { taskOf },
    records: { tasksOf },
    watching: {
      task ({ taskId }, watcher) {
        watchers.set(taskId, watcher)
        return () => { watchers.delete(taskId) }
      },
      subject (_subject, watcher) {
        subject = watcher
        return () => { subject = undefined }
      },
      close () {}
    }
  })({
    subject: 'app:alice',
    permits: model => model === 'sora-2',
    since,
    tell: ({ taskId, state }, mark) => {
      told.push(`${taskId} ${state}`)
      marks.push(mark)
    }
  })
  const say = (taskId: string, more: Partial<TaskEvent> = {}): void => {
    const event = taskEvent({ taskId, ...more })
    watchers.get(taskId)?.(event)
    subject?.changed(event)
  }
  return { feed, time, tasks, watchers, told, marks, say, miss: () => subject?.missed(), store, get reads () { return reads } }
}

const final = { state: 'success', isFinal: true } as const
/** All that was begun has been done. */
const rest = (): Promise<void> => new Promise(resolve => { setImmediate(resolve) })

t.test('each unfinished task is followed once, and each end is told once', async t => {
  const { feed, tasks, watchers, told, say } = fed()
  tasks.set('a', {}).set('b', {}).set('old', { ended: true, endedAt: 0 }).set('lost', { stage: 'unknown' }).set('batch', { operation: 'batch' }).set('other', { model: 'suno' })
  feed.look()
  feed.look()
  await rest()
  t.strictSame([...watchers.keys()].sort(), ['a', 'b'])
  say('a')
  say('a', final)
  say('a', final)
  feed.look()
  await rest()
  t.strictSame(told, ['a pending', 'a success'])
})

t.test('a task that is heard of is followed, or told when it has ended; whoever\'s it is not is left out', async t => {
  const { tasks, watchers, told, say } = fed()
  tasks.set('new', {}).set('quick', { ended: true }).set('bob', { subject: 'app:bob' }).set('batch', { operation: 'batch' })
  for (const taskId of ['new', 'new', 'quick', 'quick', 'bob', 'batch', 'nobody']) say(taskId, { state: '' })
  await rest()
  t.strictSame([...watchers.keys()], ['new'])
  t.strictSame(told, ['quick success'])
})

t.test('a mark moves on with each look, and what was missed while the store was down is told by the next one', async t => {
  const it = fed()
  const start = it.time.now()
  it.tasks.set('a', {})
  it.time.advance(1000)
  it.store.isDown = true
  it.feed.look()
  it.say('a', { state: '' })
  await rest()
  it.store.isDown = false
  it.tasks.set('b', { ended: true })
  it.feed.look()
  await rest()
  it.say('a')
  t.strictSame(it.told, ['b success', 'a pending'])
  t.strictSame(it.marks, [start, start + 1000], 'while it looks, nothing is said to be over')
})

t.test('the first look goes back a long way, later ones do not, unless events were lost', async t => {
  const it = fed(clock().now() - 60_000)
  for (let count = 0; count < feedDepth + 100; count++) it.tasks.set(String(count), { ended: true })
  const ends = async (taskId: string): Promise<void> => {
    it.tasks.set(taskId, { ended: true })
  }
  it.feed.look()
  await until('all are told', () => it.told.length === feedDepth)
  await rest()
  t.equal(it.reads, 5)
  it.feed.look()
  await rest()
  t.equal(it.reads, 6)
  await ends('new')
  it.miss()
  await until('the new one is told', () => it.told.includes('new success'))
  await rest()
  t.equal(it.reads, 11)
})

t.test('a feed that has stopped tells nothing, and follows nothing', async t => {
  const { feed, tasks, watchers, told, say } = fed()
  tasks.set('a', {}).set('b', {})
  feed.look()
  await rest()
  const late = watchers.get('a')!
  feed.look()
  feed.stop()
  late(taskEvent({ taskId: 'a', ...final }))
  say('b', final)
  tasks.set('c', {})
  await rest()
  t.strictSame([told, watchers.size], [[], 0])
})
