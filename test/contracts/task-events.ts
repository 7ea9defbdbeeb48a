import type { Test } from 'tap'
import type { TaskEvent, TaskEvents } from '../../src/domain/task-status.ts'
import { until } from '../helpers/until.ts'

export interface EventsUnderTest {
  /** Of two replicas; the same one twice when there can be no other. */
  readonly here: TaskEvents
  readonly there: TaskEvents
  /** Makes events get lost between the two for a moment; absent when none can be. */
  lose? (): Promise<void>
}

export function taskEvent (more: Partial<TaskEvent> = {}): TaskEvent {
  return {
    subject: 'app:alice',
    taskId: 'a',
    model: 'sora-2',
    state: 'pending',
    isFinal: false,
    at: 1_768_478_400_000,
    body: Buffer.from('{}'),
    ...more
  }
}

/** Every TaskEvents must pass this, whatever is behind it. `open` starts without listeners and ends with its test. */
export function taskEventsContract (t: Test, open: (t: Test) => Promise<EventsUnderTest>): void {
  const ignore = (): void => {}

  t.test('each event reaches every listener once, on every replica, as it is and in order', async t => {
    const { here, there } = await open(t)
    const heard: TaskEvent[][] = [[], [], []]
    here.subscribe(event => heard[0]!.push(event), ignore)
    here.subscribe(event => heard[1]!.push(event), ignore)
    there.subscribe(event => heard[2]!.push(event), ignore)
    const events = [
      taskEvent({ subject: 'app:ä 😀:{x}', taskId: "'; *", body: Buffer.from([0, 255, 13, 10, 34]) }),
      taskEvent({ state: '', body: Buffer.alloc(0) }),
      taskEvent({ state: 'success', isFinal: true, body: Buffer.alloc(1_000_000, 'x') })
    ]
    for (const event of events) here.publish(event)
    await until('all have heard all', () => heard.every(list => list.length >= events.length))
    for (const list of heard) t.same(list, events)
  })

  t.test('who has left hears nothing, and takes nobody along', async t => {
    const { here } = await open(t)
    const heard: string[] = []
    const listen = (event: TaskEvent): void => { heard.push(event.taskId) }
    const leave = here.subscribe(listen, ignore)
    const other = here.subscribe(event => {
      listen(event)
      other()
      leave()
    }, ignore)
    here.subscribe(listen, ignore)
    here.publish(taskEvent({ taskId: 'a' }))
    await until('they have heard it', () => heard.length >= 2)
    leave()
    here.publish(taskEvent({ taskId: 'b' }))
    await until('the third has heard it', () => heard.includes('b'))
    t.equal(heard.filter(taskId => taskId === 'b').length, 1)
  })

  t.test('a listener is told that events may have been lost', async t => {
    const { here, there, lose } = await open(t)
    if (lose === undefined) {
      t.pass('none can be')
      return
    }
    let gaps = 0
    const heard: TaskEvent[] = []
    here.subscribe(event => heard.push(event), () => gaps++)
    await lose()
    await until('it is told', () => gaps > 0)
    there.publish(taskEvent())
    await until('it hears again', () => heard.length === 1)
  })
}
