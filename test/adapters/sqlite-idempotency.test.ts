import t from 'tap'
import { idempotencyMs } from '../../src/domain/ledger.ts'
import { demandOf } from '../contracts/ledger-balance.ts'
import { answer, sent } from '../contracts/open-books.ts'
import { claimed, fileOf, open, reserve, sentOne, smallStore, storeDown, time, visit } from './sqlite-files.ts'

const key = { key: 'one', fingerprint: 'print' }
const keyed = { idempotency: key }
const subject = 'app:alice'
const kept = { status: 200, contentType: 'application/json', body: Buffer.from('{"code":200}') }
const long = { taskId: 'long', state: 'success', answer: Buffer.alloc(1024 * 1024, 'x') } as const

t.test('a key is written with the first step, so that a crash before it leaves the key free', async t => {
  const path = fileOf(t)
  const store = open(t, path)
  const keys = () => visit(t, path).prepare('SELECT key, status FROM idempotency').all().map(row => ({ ...row }))
  const id = await reserve(store, keyed)
  t.same(keys(), [])
  await store.ledger.advance(id, sent)
  t.same(keys(), [{ key: 'one', status: null }])
  await store.ledger.advance(id, { to: 'claimed', taskId: 'task', answer: kept })
  t.same(keys(), [{ key: 'one', status: 200 }])
})

t.test('after a restart a key says what became of its request: answered, unknown, or nothing at all', async t => {
  const path = fileOf(t)
  const first = open(t, path)
  const names = ['answered', 'sent', 'reserved', 'refused']
  const keys = names.map(name => ({ key: name, fingerprint: 'print' }))
  const [answered, , reserved, refused] = keys
  await first.ledger.advance(await sentOne(first, { idempotency: answered }), {
    to: 'claimed',
    taskId: 'task',
    answer: kept
  })
  const lost = await sentOne(first, { idempotency: keys[1] })
  await reserve(first, { idempotency: reserved })
  await first.ledger.advance(await sentOne(first, { idempotency: refused }), { to: 'released', answer: kept })
  await first.close()

  const second = open(t, path)
  const known = await Promise.all(keys.map(key => second.idempotency.earlier(subject, key)))
  t.match(known, [{ kind: 'answered', answer: kept }, { kind: 'unknown' }, null, { kind: 'answered', answer: kept }])
  t.equal(await second.ledger.advance(lost, { to: 'claimed', taskId: 'late', answer: kept }), true)
  t.match(await second.idempotency.earlier(subject, keys[1]!), { kind: 'answered' })
})

t.test('a number that a kept key has is not given again, though its refused submit left no other trace', async t => {
  const path = fileOf(t)
  const first = open(t, path)
  const id = await sentOne(first, keyed)
  await first.ledger.advance(id, { to: 'released', answer: kept })
  await first.close()
  const second = open(t, path)
  const next = await sentOne(second, { idempotency: { key: 'two', fingerprint: 'print' } })
  t.not(next, id)
  t.match(await second.idempotency.earlier(subject, key), { kind: 'answered' })
})

t.test('a key whose first step was undone is free', async t => {
  const store = await smallStore(t, fileOf(t))
  await claimed(store, 'long')
  const id = await reserve(store, keyed)
  const outcomes = await Promise.allSettled([store.ledger.advance(id, sent), store.ledger.settle(long)])
  t.match(outcomes, [{ reason: storeDown }, { reason: storeDown }])
  t.equal(await store.idempotency.earlier(subject, key), null)
  t.match(await store.ledger.reserve(demandOf(keyed)), { granted: true })
})

t.test('an answer is not told before it is on disk', async t => {
  const store = await smallStore(t, fileOf(t))
  await claimed(store, 'long')
  const id = await sentOne(store, keyed)
  const claim = { to: 'claimed', taskId: 'task', answer: kept } as const
  const outcomes = await Promise.allSettled([
    store.ledger.advance(id, claim),
    store.idempotency.earlier(subject, key),
    store.ledger.reserve(demandOf(keyed)),
    store.records.tasksOf(subject, { cursor: null, limit: 10 }),
    store.ledger.settle(long)
  ])
  t.match(outcomes, Array.from({ length: 5 }, () => ({ status: 'rejected', reason: storeDown })))
  t.match(await store.idempotency.earlier(subject, key), { kind: 'pending' })
  t.equal(await store.ledger.advance(id, claim), true)
  t.match(await store.idempotency.earlier(subject, key), { kind: 'answered' })
})

t.test('a refusal whose answer could not be kept gives everything back all the same', async t => {
  const store = await smallStore(t, fileOf(t))
  const id = await reserve(store, { ...keyed, microcredits: 5 })
  await t.rejects(store.ledger.advance(id, { to: 'released', answer: { ...kept, body: long.answer } }), storeDown)
  await store.ledger.advance(id, { to: 'released' })
  t.equal(await store.idempotency.earlier(subject, key), null)
  t.same(await store.accounts.balanceOf(subject, demandOf().periodStart), { used: 0, granted: 0, unfinished: 0 })
})

t.test('an expired key that nobody has tidied away makes room for the next', async t => {
  const path = fileOf(t)
  const store = open(t, path)
  await sentOne(store, keyed)
  const later = { ...time, now: () => time.now() + idempotencyMs }
  await store.close()
  const second = open(t, path, { now: later.now })
  const id = await sentOne(second, keyed)
  t.same(visit(t, path).prepare('SELECT id FROM idempotency').all().map(row => String(row.id)), [id])
  await second.ledger.settle({ taskId: 'none', state: 'success', answer })
})
