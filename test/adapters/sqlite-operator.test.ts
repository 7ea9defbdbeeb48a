import { existsSync } from 'node:fs'
import { DatabaseSync } from 'node:sqlite'
import t from 'tap'
import { demandOf } from '../contracts/ledger-balance.ts'
import { answer, periodStart } from '../contracts/open-books.ts'
import { claimed, fileOf, lockHolder, open, sentOne, storeDown, time, visit } from './sqlite-files.ts'

const operator = { role: 'operator' } as const
const subject = 'app:alice'

t.test('what the operator gives and lets go counts for the server at once', async t => {
  const path = fileOf(t)
  const server = open(t, path)
  const beside = open(t, path, operator)
  const limited = { creditLimit: 10, microcredits: 8 }
  const id = await sentOne(server, limited)
  await server.ledger.advance(id, { to: 'unknown' })
  const { items } = await beside.records.unknowns({ cursor: null, limit: 10 })
  t.match(items, [{ id, subject, stage: 'unknown' }])
  t.match(await server.ledger.reserve(demandOf(limited)), { granted: false, lacks: 'credits' })
  t.equal(await beside.accounts.grant({ subject, microcredits: 6 }), 6)
  t.match(await server.ledger.reserve(demandOf(limited)), { granted: true })
  t.match(await server.accounts.balanceOf(subject, periodStart), { used: 10, granted: 0 })
  t.match(await server.ledger.reserve(demandOf(limited)), { granted: false, lacks: 'credits' })
  t.equal(await beside.records.release(id), true)
  t.match(await server.ledger.reserve(demandOf(limited)), { granted: true })
  t.equal(await server.records.release(id), false, 'once for both')
})

t.test('the operator recovers nothing, and leads nothing', async t => {
  const path = fileOf(t)
  const server = open(t, path)
  const id = await sentOne(server)
  const beside = open(t, path, operator)
  t.equal(beside.lost, 0)
  t.equal(await beside.leads(), false)
  t.equal(await server.leads(), true)
  await beside.ping()
  await beside.close()
  t.equal(await server.ledger.advance(id, { to: 'released' }), true, 'it is still under way')
})

t.test('a server starts while the operator is at work', async t => {
  const path = fileOf(t)
  await open(t, path).close()
  const beside = open(t, path, operator)
  const server = open(t, path)
  await beside.audit.append([{ at: time.now(), kind: 'grant', actor: 'cli', subject, detail: {} }])
  await claimed(server, 'one')
  t.match(await server.audit.read({ cursor: null, limit: 10 }), { items: [{ actor: 'cli' }] })
})

t.test('the operator has the patience that a server has not', async t => {
  const path = fileOf(t)
  await open(t, path).close()
  const beside = open(t, path, operator)
  const letGo = await lockHolder(t, path, 300)
  t.equal(await beside.accounts.grant({ subject, microcredits: 5 }), 5)
  await letGo()
})

t.test('the operator reads all there is beside the server', async t => {
  const path = fileOf(t)
  const server = open(t, path)
  await claimed(server, 'one', { microcredits: 5 })
  const beside = open(t, path, operator)
  t.match(await beside.accounts.balanceOf(subject, periodStart), { used: 5, granted: 0, unfinished: 1 })
  t.match(await beside.records.tasksOf(subject, { cursor: null, limit: 10 }), { items: [{ taskId: 'one' }] })
  await server.ledger.settle({ taskId: 'one', state: 'success', answer })
  t.match(await beside.records.usage({ from: '2026-01-15', to: '2026-01-15' }), [
    { tasks: 1, succeeded: 1, microcredits: 5 }
  ])
})

t.test('a ledger that is not there is not made for an operator', async t => {
  const path = fileOf(t)
  t.throws(() => open(t, path, operator), {
    message: `the ledger ${path} can not be opened: there is no such file; the gateway makes it at its first start`
  })
  t.notOk(existsSync(path))
  t.notOk(existsSync(`${path}.lock`))
  t.throws(() => open(t, ':memory:', operator), {
    message: 'the ledger :memory: can not be opened: it is in the memory of the gateway, and ends with it'
  })
})

t.test('a file of an older version is left to the gateway', async t => {
  const path = fileOf(t)
  new DatabaseSync(path).close()
  const db = visit(t, path)
  db.exec('CREATE TABLE something (id INTEGER)')
  t.throws(() => open(t, path, operator), {
    message: /it has version 0, and \d+ is needed: start the gateway once, it brings the file up to date$/
  })
  t.match(db.prepare('PRAGMA journal_mode').get(), { journal_mode: 'delete' }, 'it is not touched')
  db.exec('PRAGMA user_version = 999')
  t.throws(() => open(t, path, operator), {
    message: /it has version 999, this gateway knows \d+: a newer one wrote it$/
  })
})

t.test('an operator whose store is closed is told so', async t => {
  const path = fileOf(t)
  await open(t, path).close()
  const beside = open(t, path, operator)
  await beside.close()
  const all = { cursor: null, limit: 10 }
  const span = { from: '2026-01-01', to: '2026-01-31' }
  const asked: Array<() => Promise<unknown>> = [
    () => beside.accounts.balanceOf(subject, periodStart),
    () => beside.accounts.grant({ subject, microcredits: 1 }),
    () => beside.records.tasksOf(subject, all),
    () => beside.records.unknowns(all),
    () => beside.records.release('1'),
    () => beside.records.usage(span),
    () => beside.audit.append([{ at: 0, kind: 'grant', actor: 'cli', subject, detail: {} }]),
    () => beside.audit.read(all),
    () => beside.idempotency.earlier(subject, { key: 'one', fingerprint: 'print' }),
    () => beside.tidy()
  ]
  for (const ask of asked) await t.rejects(async () => { await ask() }, storeDown)
})
