import { StatementSync } from 'node:sqlite'
import t, { type Test } from 'tap'
import type { Hold } from '../../src/domain/ledger.ts'
import type { Store } from '../../src/domain/store.ts'
import { demandOf } from '../contracts/ledger-balance.ts'
import { answer } from '../contracts/open-books.ts'
import { claimed, fileOf, open, reserve, sentOne, smallStore, storeDown, visit } from './sqlite-files.ts'

const pool: Hold = { account: 'pool:team', window: 'day:1', endsAt: 9e12, limit: 100 }
const gateway: Hold = { account: 'gateway', window: 'none', endsAt: null, limit: 1000 }
const holds = [gateway, pool]
const runningLimits = [{ account: 'gateway', limit: 50 }] as const

const stateOf = async ({ ceilings }: Store) => [
  ...(await ceilings.stateOf(holds)).map(({ used }) => used),
  await ceilings.runningIn('gateway'),
  await ceilings.runningIn('pool:team')
]

t.test('after a crash windows have what was sent and what runs, and not what was only reserved', async t => {
  const path = fileOf(t)
  const store = open(t, path)
  await reserve(store, { holds, microcredits: 1 })
  await sentOne(store, { holds, microcredits: 2 })
  await sentOne(store, { holds: [pool], microcredits: 3 })
  await claimed(store, 'running', { holds, microcredits: 4 })
  await claimed(store, 'no window', { runningLimits, microcredits: 5 })
  await claimed(store, 'ended', { holds, microcredits: 6 })
  await store.ledger.settle({ taskId: 'ended', state: 'success', answer })
  t.same(await stateOf(store), [13, 16, 4, 4])
  await store.close()
  const next = open(t, path)
  t.equal(next.lost, 2)
  t.same(await stateOf(next), [12, 15, 2, 1])
  await next.ledger.settle({ taskId: 'running', state: 'failed', answer })
  t.same(await stateOf(next), [8, 11, 1, 0])
})

t.test('a turn that was undone leaves windows as they were', async t => {
  const store = await smallStore(t, fileOf(t))
  await claimed(store, 'before', { holds, microcredits: 4 })
  const id = await sentOne(store, { holds, microcredits: 3 })
  const before = await stateOf(store)
  const body = Buffer.alloc(1_000_000)
  const undone = [
    store.ledger.advance(id, { to: 'unknown' }),
    store.ledger.settle({ taskId: 'before', state: 'failed', answer: body })
  ]
  for (const one of undone) await t.rejects(one, storeDown)
  t.same(await stateOf(store), before)
  t.equal(await store.ledger.settle({ taskId: 'before', state: 'failed', answer }), true)
  t.same(await stateOf(store), [3, 3, 1, 1])
})

t.test('what ends in a turn counts for who asks in the same turn', async t => {
  const store = open(t, fileOf(t))
  await claimed(store, 'one', { holds, microcredits: 4 })
  const ended = store.ledger.settle({ taskId: 'one', state: 'success', answer })
  t.same(await stateOf(store), [4, 4, 0, 0])
  t.equal(await ended, true)
})

t.test('what the operator gives back beside a server is room for the next submit', async t => {
  const path = fileOf(t)
  const store = open(t, path)
  const id = await sentOne(store, { holds, microcredits: 100 })
  await store.ledger.advance(id, { to: 'unknown' })
  t.match(await store.ledger.reserve(demandOf({ holds })), { reason: 'ceiling' })
  const operator = open(t, path, { role: 'operator' })
  t.equal(await operator.records.release(id), true)
  t.same(await stateOf(operator), [0, 0, 0, 0])
  t.match(await store.ledger.reserve(demandOf({ holds })), { granted: true })
})

t.test('what was given is never changed and never deleted', async t => {
  const path = fileOf(t)
  await open(t, path).ceilings.raise({ account: 'gateway', microcredits: 1, until: null })
  const db = visit(t, path)
  t.throws(() => db.exec('UPDATE extras SET microcredits = 2'), /extras are never changed/)
  t.throws(() => db.exec('DELETE FROM extras'), /extras are never deleted/)
})

/** A store, and the statements that change rows as they are run. */
async function counted (t: Test): Promise<{ store: Store, statements: string[] }> {
  const store = open(t, fileOf(t))
  const statements: string[] = []
  const { run } = StatementSync.prototype
  t.capture(StatementSync.prototype, 'run', function (this: StatementSync, ...values: Parameters<typeof run>) {
    statements.push(this.sourceSQL)
    return run.apply(this, values)
  })
  return { store, statements }
}

/** Statements of a submit in its turn. */
async function statementsOf (t: Test, store: Store, more: object): Promise<number> {
  const spies = (['run', 'get', 'all'] as const).map(
    name => t.capture(StatementSync.prototype, name, StatementSync.prototype[name])
  )
  await claimed(store, JSON.stringify(more), more)
  for (const spy of spies) spy.restore()
  return spies.flatMap(spy => spy()).length
}

t.test('what ends in one turn is written once for each window', async t => {
  const { store, statements } = await counted(t)
  for (let task = 0; task < 12; task++) await claimed(store, `task ${task}`, { holds, microcredits: 2 })
  const settle = (task: number, state: 'success' | 'failed') =>
    store.ledger.settle({ taskId: `task ${task}`, state, answer })
  statements.length = 0
  await Promise.all(Array.from({ length: 12 }, (_, task) => settle(task, task < 10 ? 'success' : 'failed')))
  t.equal(statements.filter(sql => /(?:INTO|UPDATE) ceilings/.test(sql)).length, holds.length)
  t.same(await stateOf(store), [20, 20, 0, 0])
  const [refunded, ended] = [await sentOne(store, { holds }), await sentOne(store, { holds })]
  statements.length = 0
  await Promise.all([
    store.ledger.advance(refunded, { to: 'claimed', taskId: 'refunded' }), settle(-1, 'failed'),
    store.ledger.settle({ taskId: 'refunded', state: 'failed', answer })
  ])
  t.equal(statements.filter(sql => /(?:INTO|UPDATE) ceilings/.test(sql)).length, 0, 'nothing came of it')
  await store.ledger.advance(ended, { to: 'used', microcredits: 1, isEstimate: false })
  t.same(await stateOf(store), [21, 21, 0, 0])
})

t.test('a submit under ceilings runs no more statements than one without', async t => {
  const store = open(t, fileOf(t))
  const more = [{}, { holds, runningLimits, microcredits: 1 }, { holds, runningLimits, microcredits: 2 }]
  const counts: number[] = []
  for (const one of more) counts.push(await statementsOf(t, store, one))
  t.same(counts, [counts[0], counts[0]! + 2, counts[0]], 'the first reads what its windows have')
})
