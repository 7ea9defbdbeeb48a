import { join } from 'node:path'
import t, { type Test } from 'tap'
import type { Role } from '../../src/adapters/sqlite/database.ts'
import { sqliteStore } from '../../src/adapters/sqlite/store.ts'
import { everyContract } from '../contracts/every-contract.ts'
import type { OpenStore } from '../contracts/open-books.ts'

const memory = ':memory:'
const places = {
  'SQLite in memory': () => memory,
  'SQLite in a file': (t: Test) => join(t.testdir({}), 'gateway.db')
}

for (const [name, pathFor] of Object.entries(places)) {
  let path = ''
  const openAs =
    (role: Role): OpenStore =>
      (t, { terms, now, elapsed }) => {
        if (role === 'server') path = pathFor(t)
        const store = sqliteStore({
          path,
          role,
          terms,
          now,
          synchronous: 'normal',
          ...(elapsed === undefined ? {} : { elapsed })
        })
        t.teardown(() => store.close())
        return store
      }
  everyContract(t, name, openAs('server'), pathFor === places['SQLite in memory'] ? undefined : openAs('operator'))
}
