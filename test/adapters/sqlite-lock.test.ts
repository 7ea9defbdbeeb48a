import t from 'tap'
import { sent } from '../contracts/open-books.ts'
import { claimed, fileOf, lockHolder, open, reserve, storeDown } from './sqlite-files.ts'

t.test(
  'a file that another process keeps locked holds up the event loop once, and is taken again the moment it is free',
  async t => {
    const path = fileOf(t)
    const store = open(t, path)
    await claimed(store, 'one')
    const id = await reserve(store)
    for (let times = 0; times < 2; times++) {
      const letGo = await lockHolder(t, path)
      const start = performance.now()
      await t.rejects(store.ledger.advance(id, sent), storeDown)
      const first = performance.now() - start
      for (let count = 0; count < 99; count++) await t.rejects(store.ledger.advance(id, sent), storeDown)
      const all = performance.now() - start
      t.ok(first > 20, `${first} ms: a lock that is held for a moment is waited for`)
      t.ok(all < 2000, `${all} ms: a hundred waits would have been 5000`)
      await t.rejects(store.ping(), storeDown)
      t.match(await store.ledger.taskOf('one'), { stage: 'claimed' }, 'reading goes on')
      await letGo()
      t.equal(await store.ledger.advance(id, sent), true)
      await store.ping()
    }
  }
)
