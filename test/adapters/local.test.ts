import t from 'tap'
import { localEvents, localTurns, nodeTimers } from '../../src/adapters/local.ts'
import { statusTurnsContract } from '../contracts/status-turns.ts'
import { taskEventsContract } from '../contracts/task-events.ts'
import { clock } from '../helpers/clock.ts'

t.test('the events of one process keep the promises of task events', async t =>
  taskEventsContract(t, async () => {
    const events = localEvents()
    return { here: events, there: events }
  }))

t.test('the turns of one process keep the promises of status turns', async t =>
  statusTurnsContract(t, async () => {
    const { elapsed, advance } = clock()
    const leaseMs = 60_000
    const turns = localTurns({ elapsed, leaseMs })
    return { here: turns, there: turns, leaseMs, async pass (ms) { advance(ms) } }
  }))

t.test('the answer of a turn that was forgotten meanwhile is everybody\'s all the same', async t => {
  const turns = localTurns({ elapsed: clock().elapsed, leaseMs: 60_000 })
  await turns.release('a', { status: 200, contentType: 'application/json', body: Buffer.from('{}') }, 1000)
  t.match(await turns.acquire('a', 1000), { mine: false, nextInMs: 1000 })
})

t.test('turns take a bounded amount of memory: the task asked about longest ago is forgotten', async t => {
  const turns = localTurns({ elapsed: clock().elapsed, leaseMs: 60_000 })
  const last = { status: 200, contentType: 'application/json', body: Buffer.alloc(1024 * 1024) }
  for (let task = 0; task < 100; task++) {
    await turns.acquire(String(task), 1000)
    await turns.release(String(task), last, 1000)
  }
  t.match(await turns.acquire('99', 1000), { mine: false })
  t.match(await turns.acquire('0', 1000), { mine: true })
})

t.test('a timer of Node runs once, unless it is called off', async t => {
  const timers = nodeTimers()
  const calledOff = timers.after(1, () => t.fail('it was called off'))
  calledOff()
  const alive = setInterval(() => {}, 1000) // the timer itself keeps nobody alive
  await new Promise<void>(resolve => { timers.after(5, resolve) })
  clearInterval(alive)
})
