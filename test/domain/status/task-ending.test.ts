import t from 'tap'
import type { Completion, Stage, Task } from '../../../src/domain/ledger.ts'
import type { TaskRecord } from '../../../src/domain/records.ts'
import { type RefreshTask, slotSearch, type StatusPoller, refreshTask } from '../../../src/domain/status-poller.ts'
import { gatewayError } from '../../../src/errors.ts'
import { clock } from '../../helpers/clock.ts'
import { crankedTimers } from '../../helpers/timers.ts'
import { until } from '../../helpers/until.ts'

/** What is asked, and what is noted without asking. */
function ending () {
  const asked: string[] = []
  const noted: Completion[] = []
  const desk: StatusPoller = {
    ask ({ taskId }) {
      asked.push(taskId)
      return { report: Promise.resolve({ kind: 'failed', code: 'GW_UPSTREAM_TIMEOUT' }), cancel () {} }
    }
  }
  const ledger = { async settle (ending: Completion) { return noted.push(ending) > 0 } }
  return { asked, noted, end: refreshTask({ desk, ledger }) }
}

/**
 * A search over rows that stand there, the newest first; of a task that has left the ledger meanwhile there is a row
 * alone.
 */
function searching (rows: readonly Stage[], end: RefreshTask) {
  const time = clock()
  const timers = crankedTimers(time)
  const seen: number[] = []
  const items = rows.map((stage, index) => ({ stage, taskId: `task-${index}` }) as TaskRecord)
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
    ledger: { taskOf: async taskId => taskId === 'task-0' ? null : { ...task, taskId, model: 'suno' } },
    end,
    intervalOf: () => 7000,
    timers,
    elapsed: time.elapsed
  })
  return { slots, seen, time, timers }
}

const task = { taskId: 'task-1', operation: 'generateTask' } as Task

t.test('a task is asked about where everybody asks, and an upstream that can not say leaves it as it is', async t => {
  const { asked, noted, end } = ending()
  await end(task)
  t.same({ asked, noted }, { asked: ['task-1'], noted: [] })
})

t.test('a batch\'s own row is over without a question', async t => {
  const { asked, noted, end } = ending()
  await end({ ...task, operation: 'batch' })
  t.match({ asked, noted }, { asked: [], noted: [{ taskId: 'task-1', state: 'success' }] })
})

t.test(
  'a search asks about as many tasks as there are slots, looks no further back than it must, and a while later again',
  async t => {
    const asked: string[] = []
    const rows: Stage[] = Array.from({ length: 450 }, (_, index) => (index % 3 === 0 ? 'claimed' : 'settled'))
    const { slots, seen, time, timers } = searching(rows, async ({ taskId }) => {
      asked.push(taskId)
      return { kind: 'failed', code: 'GW_UPSTREAM_TIMEOUT' }
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
  const { slots, seen } = searching(Array.from({ length: 1500 }, () => 'settled' as const), async () => null)
  await slots.search('app:alice', 5)
  t.equal(seen.length, 10)
  t.equal(slots.nextInMs('app:alice'), 5000, 'there is nothing to ask about')
})

t.test('a batch\'s own row that is over needs no waiting for, and a store that is down is told', async t => {
  const { slots } = searching(['claimed', 'claimed'], async () => null)
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
      return null
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
