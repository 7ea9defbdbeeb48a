import { join } from 'node:path'
import t, { type Test } from 'tap'
import { sqliteStore } from '../../src/adapters/sqlite/store.ts'
import { everyContract } from '../contracts/every-contract.ts'
import type { OpenStore } from '../contracts/open-books.ts'

const places = {
  'SQLite in memory': () => ':memory:',
  'SQLite in a file': (t: Test) => join(t.testdir({}), 'gateway.db')
}

for (const [name, pathFor] of Object.entries(places)) {
  const open: OpenStore = (t, { terms, now }) => {
    const store = sqliteStore({ path: pathFor(t), terms, now, synchronous: 'normal' })
    t.teardown(() => store.close())
    return store
  }
  everyContract(t, name, open)
}
