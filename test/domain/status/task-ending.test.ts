import t from 'tap'
import type { Ending, Task } from '../../../src/domain/ledger/ledger.ts'
import type { StatusDesk } from '../../../src/domain/status/status-desk.ts'
import { taskEnding } from '../../../src/domain/status/task-ending.ts'

/** What is asked, and what is noted without asking. */
function ending () {
  const asked: string[] = []
  const noted: Ending[] = []
  const desk: StatusDesk = {
    ask ({ taskId }) {
      asked.push(taskId)
      return { report: Promise.resolve({ kind: 'failed', code: 'GW_UPSTREAM_TIMEOUT' }), leave () {} }
    }
  }
  const ledger = { async settle (ending: Ending) { return noted.push(ending) > 0 } }
  return { asked, noted, end: taskEnding({ desk, ledger }) }
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
