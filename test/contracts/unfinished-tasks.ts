import type { Test } from 'tap'
import type { TaskLedger, UnfinishedTasks } from '../../src/domain/ledger.ts'
import { clock } from '../helpers/clock.ts'
import { demandOf } from './ledger-balance.ts'

/** Opens an empty ledger and the look-out over it; both end with their test. */
export type OpenUnfinished = (t: Test, now: () => number) => { readonly ledger: TaskLedger, readonly unfinished: UnfinishedTasks }

/** Every UnfinishedTasks must pass this, whatever is behind it. */
export function unfinishedTasksContract (t: Test, open: OpenUnfinished): void {
  t.test('claimed tasks are found in pages, in the order of their reservations, and no others', async t => {
    const time = clock()
    const { ledger, unfinished } = open(t, time.now)
    const claimed: string[] = []
    const endings = ['claimed', 'settled', 'unknown', 'sent', 'reserved'] as const
    for (let count = 0; count < 25; count++) {
      const taskId = `task ${count}`
      const ending = endings[count % endings.length]!
      const reserved = await ledger.reserve(demandOf({ subject: `app:${count}`, model: 'suno' }))
      if (!reserved.granted) throw new Error(`no ${reserved.lacks}`)
      if (ending !== 'reserved') await ledger.advance(reserved.id, { to: 'sent', keyId: 'key-1' })
      if (ending === 'unknown') await ledger.advance(reserved.id, { to: 'unknown' })
      if (ending === 'claimed' || ending === 'settled') await ledger.advance(reserved.id, { to: 'claimed', taskId })
      if (ending === 'settled') await ledger.settle({ taskId, state: 'success', answer: Buffer.from('{}') })
      if (ending === 'claimed') claimed.push(taskId)
    }
    const found: string[] = []
    let last = 0
    for (;;) {
      const page = await unfinished.after(last, time.now(), 2)
      t.ok(page.length <= 2)
      if (page.length === 0) break
      for (const { id, ...task } of page) {
        t.ok(id > last)
        t.same(task, await ledger.taskOf(task.taskId))
        last = id
        found.push(task.taskId)
      }
    }
    t.same(found, claimed)
  })

  t.test('tasks that are too young are left out', async t => {
    const time = clock()
    const { ledger, unfinished } = open(t, time.now)
    const reserved = await ledger.reserve(demandOf())
    if (!reserved.granted) throw new Error(`no ${reserved.lacks}`)
    await ledger.advance(reserved.id, { to: 'sent', keyId: 'key-1' })
    await ledger.advance(reserved.id, { to: 'claimed', taskId: 'one' })
    t.same(await unfinished.after(0, time.now() - 1, 10), [])
    t.match(await unfinished.after(0, time.now() + 1, 10), [{ taskId: 'one', id: reserved.id }])
    t.same(await unfinished.after(reserved.id, time.now() + 1, 10), [])
  })
}
