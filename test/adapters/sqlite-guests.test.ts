import t from 'tap'
import { forgetSlackMs } from '../../src/domain/session.ts'
import { fileOf, open, storeDown, time, visit } from './sqlite-files.ts'

const dayMs = 86_400_000

t.test('what guests have used is known after a restart', async t => {
  const path = fileOf(t)
  const end = time.now() + 300_000
  const before = open(t, path)
  t.equal(await before.spentProofs.spend('one', end), true)
  t.equal(await before.guestCounts.take('address 192.0.2.1', 1, dayMs), 0)
  await before.close()
  const after = open(t, path)
  t.equal(await after.spentProofs.spend('one', end), false)
  t.equal(await after.guestCounts.take('address 192.0.2.1', 1, dayMs), dayMs)
})

t.test('a count begins anew when its window has ended, and has a window of its own then', async t => {
  const { guestCounts: it } = open(t, ':memory:')
  t.equal(await it.take('one', 1, 1000), 0)
  time.advance(999)
  t.equal(await it.take('one', 1, 1000), 1)
  time.advance(1)
  t.equal(await it.take('one', 1, 1000), 0)
  time.advance(400)
  t.equal(await it.take('one', 1, 1000), 600)
})

t.test('what has ended goes, however much it is, and the rest stays', async t => {
  const path = fileOf(t)
  const store = open(t, path)
  const many = Array.from({ length: 120 }, (_, index) => `n${index}`)
  await Promise.all(
    many.flatMap(name => [store.spentProofs.spend(name, time.now() + 1000), store.guestCounts.take(name, 1, 1000)])
  )
  await store.spentProofs.spend('long', time.now() + 1001)
  await store.guestCounts.take('long', 1, 1001)
  const count = (table: string) => visit(t, path).prepare(`SELECT count(*) AS rows FROM ${table}`).get()
  await store.tidy()
  t.match([count('spent_proofs'), count('guest_counts')], [{ rows: 121 }, { rows: 121 }])
  time.advance(1000)
  await store.tidy()
  t.match(
    [count('spent_proofs'), count('guest_counts')],
    [{ rows: 121 }, { rows: 121 }],
    'a clock may be wrong for a while'
  )
  time.advance(forgetSlackMs)
  await store.tidy()
  t.match([count('spent_proofs'), count('guest_counts')], [{ rows: 1 }, { rows: 1 }])
})

t.test('while nothing can be written nobody is let in', async t => {
  const path = fileOf(t)
  const store = open(t, path)
  const other = visit(t, path)
  other.exec('BEGIN IMMEDIATE')
  await t.rejects(store.spentProofs.spend('one', time.now() + 1000), storeDown)
  await t.rejects(store.guestCounts.take('one', 1, 1000), storeDown)
  other.exec('COMMIT')
  t.equal(await store.spentProofs.spend('one', time.now() + 1000), true)
})
