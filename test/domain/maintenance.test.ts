import t from 'tap'
import { reconciler, tasksOfGoneKeys } from '../../src/domain/maintenance.ts'
import { wholeKey, wholeKeyStatus, wholeRecord, wholeTask } from '../helpers/whole.ts'

/** Unknown rows of three keys in turn; some have no task, and some tasks are no more. A page of old ones is empty. */
function rounds (rows: number) {
  const ring = new Set(['key-0'])
  const asked: string[] = []
  const reads: Array<string | null> = []
  let isDown = false
  const items = Array.from(
    { length: rows },
    (_, index) => wholeRecord({ taskId: index % 7 === 6 ? null : `task-${index}` })
  )
  const keys = {
    states: () => [...ring].map(keyId => wholeKeyStatus({ keyId })),
    byId: (keyId: string) => ring.has(keyId) ? wholeKey(keyId) : undefined
  }
  const { runOnce: round } = reconciler({
    unfinished: { page: async () => ({ items: [], next: null }) },
    records: {
      async unknowns ({ cursor, limit }) {
        if (isDown) throw new Error('down')
        reads.push(cursor)
        const start = Number(cursor)
        return { items: items.slice(start, start + limit), next: start + limit < rows ? String(start + limit) : null }
      }
    },
    ledger: {
      taskOf: async taskId =>
        taskId === 'task-3' ? null : wholeTask({ taskId, keyId: `key-${Number(taskId.slice(5)) % 3}` })
    },
    keys,
    async refreshTask ({ taskId }) {
      asked.push(taskId)
      return { source: 'none', code: 'GW_UPSTREAM_TIMEOUT' }
    },
    now: () => 0
  })
  return { ring, asked, reads, round, keys, setDown: (value: boolean) => { isDown = value } }
}

t.test(
  'after a start the tasks without a known end whose key is here are asked about once, some in each round',
  async t => {
    const { asked, reads, round } = rounds(50)
    for (let count = 0; count < 5; count++) await round()
    t.same(reads, [null, '20', '40'])
    t.same(
      asked,
      Array.from({ length: 50 }, (_, index) => index)
        .filter(index => index % 3 === 0 && index % 7 !== 6 && index !== 3)
        .map(index => `task-${index}`)
    )
  }
)

t.test('when a key comes they are looked through again, and not when one goes', async t => {
  const { ring, asked, reads, round, setDown } = rounds(9)
  await round()
  t.same(asked, ['task-0'])
  ring.delete('key-0')
  await round()
  t.equal(reads.length, 1)
  ring.add('key-1')
  setDown(true)
  await t.rejects(round())
  setDown(false)
  await round()
  await round()
  t.equal(reads.length, 2)
  t.same(asked, ['task-0', 'task-1', 'task-4', 'task-7'])
})

t.test('unfinished tasks are counted by those of their keys that are not here', async t => {
  const { keys } = rounds(0)
  const tasks = Array.from({ length: 250 }, (_, index) => wholeTask({ keyId: `key-${index % 3}` }))
  const page = async (cursor: string | null, before: number, limit: number) => {
    t.equal(before, 7)
    const start = Number(cursor)
    return {
      items: tasks.slice(start, start + limit),
      next: start + limit < tasks.length ? String(start + limit) : null
    }
  }
  t.same([...await tasksOfGoneKeys({ unfinished: { page }, keys, now: () => 7 })], [['key-1', 83], ['key-2', 83]])
})
