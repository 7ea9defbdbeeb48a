import type { Test } from 'tap'
import { type Earlier, idempotencyMs, type StoredResponse, type Transition } from '../../src/domain/ledger.ts'
import { demandOf } from './ledger-balance.ts'
import { openBooks, type OpenStore, terms } from './open-books.ts'

const key = { key: 'one', fingerprint: 'print' }
const keyed = { idempotency: key }
const subject = 'app:alice'
const hourMs = 3_600_000
const kept: StoredResponse = {
  status: 201,
  contentType: 'application/json; charset=utf-8',
  body: Buffer.from(Array.from({ length: 1024 }, (_, index) => index % 256))
}
const other: StoredResponse = { status: 200, contentType: 'text/plain', body: Buffer.from('other') }
const claim: Transition = { to: 'claimed', taskId: 'task', answer: kept }
const sent: Transition = { to: 'sent', keyId: 'key-1' }

/** What became of a key, after these steps of its reservation. */
const fates: ReadonlyArray<readonly [string, readonly Transition[], Earlier['kind'] | 'new']> = [
  ['reserved', [], 'pending'],
  ['sent', [sent], 'pending'],
  ['sent with two keys', [sent, { to: 'sent', keyId: 'key-2' }], 'pending'],
  ['claimed', [sent, claim], 'answered'],
  ['claimed without an answer', [sent, { to: 'claimed', taskId: 'task' }], 'task'],
  ['claimed, and once more with the answer', [sent, { to: 'claimed', taskId: 'task' }, claim], 'answered'],
  ['unknown', [sent, { to: 'unknown' }], 'unknown'],
  ['unknown, and claimed late', [sent, { to: 'unknown' }, claim], 'answered'],
  ['unknown, and found by its callback', [sent, { to: 'unknown' }, { to: 'claimed', taskId: 'task' }], 'task'],
  ['refused with an answer', [sent, { to: 'released', answer: kept }], 'answered'],
  ['refused with an answer before it was sent', [{ to: 'released', answer: kept }], 'answered'],
  ['refused without an answer', [sent, { to: 'released' }], 'new'],
  ['given back before it was sent', [{ to: 'released' }], 'new']
]

/** Every IdempotencyStore, and the ledger that writes it, must pass this. */
export function idempotencyStoreContract (t: Test, open: OpenStore): void {
  for (const group of [racing, remembering, forgetting, separating]) group(t, open)
}

function racing (t: Test, open: OpenStore): void {
  t.test('with room for all, one of 50 parallel reservations with one key is granted', async t => {
    const { ledger, creditsUsed, slotsUsed } = await openBooks(t, open)
    const all = await Promise.all(
      Array.from({ length: 50 }, () => ledger.reserve(demandOf({ ...keyed, microcredits: 7 })))
    )
    t.equal(all.filter(({ granted }) => granted).length, 1)
    for (const one of all) if (!one.granted) t.match(one, { reason: 'duplicate', earlier: { kind: 'pending' } })
    t.equal(await creditsUsed(), 7)
    t.equal(await slotsUsed(), 1)
  })

  t.test('a key that was used is told before a lack of credits or of a slot', async t => {
    const { ledger, reserve } = await openBooks(t, open)
    await reserve({ ...keyed, taskLimit: 1 })
    t.match(await ledger.reserve(demandOf({ ...keyed, taskLimit: 1 })), { reason: 'duplicate' })
    t.match(await ledger.reserve(demandOf({ ...keyed, creditLimit: 0 })), { reason: 'duplicate' })
    t.match(await ledger.reserve(demandOf({ idempotency: { ...key, key: 'two' }, taskLimit: 1 })), { reason: 'slot' })
  })

  t.test('what was refused for a lack leaves its key free', async t => {
    const { ledger, idempotency } = await openBooks(t, open)
    t.match(await ledger.reserve(demandOf({ ...keyed, creditLimit: 0 })), { reason: 'credits' })
    t.match(await ledger.reserve(demandOf({ ...keyed, taskLimit: 0 })), { reason: 'slot' })
    t.equal(await idempotency.earlier(subject, key), null)
  })
}

function remembering (t: Test, open: OpenStore): void {
  for (const [name, steps, fate] of fates) {
    t.test(`a key whose first request was ${name} is ${fate}`, async t => {
      const { ledger, idempotency, reserve } = await openBooks(t, open)
      const id = await reserve(keyed)
      for (const step of steps) t.equal(await ledger.advance(id, step), true)
      const earlier = await idempotency.earlier(subject, key)
      t.equal(earlier?.kind ?? 'new', fate)
      if (earlier?.kind === 'answered') t.same(earlier.answer, kept)
      if (earlier?.kind === 'task') t.equal(earlier.taskId, 'task')
      const again = await ledger.reserve(demandOf(keyed))
      t.same(again.granted ? null : again.reason === 'duplicate' && again.earlier, earlier, 'the ledger says the same')
      if (fate !== 'new') {
        t.same(await idempotency.earlier(subject, { ...key, fingerprint: 'another' }), { kind: 'mismatch' })
      }
    })
  }

  t.test('the first answer stays', async t => {
    const { ledger, idempotency, reserve } = await openBooks(t, open)
    const id = await reserve(keyed)
    for (const step of [sent, claim, { ...claim, answer: other }, { to: 'released', answer: other }] as const) {
      await ledger.advance(id, step)
    }
    t.same(await idempotency.earlier(subject, key), { kind: 'answered', answer: kept })
  })

  t.test('a refused submit is not charged and takes no slot, and its answer stays', async t => {
    const { ledger, idempotency, reserve, creditsUsed, slotsUsed } = await openBooks(t, open)
    for (const [index, steps] of [[sent], []].entries()) {
      const twin = { key: `twin ${index}`, fingerprint: 'print' }
      const id = await reserve({ idempotency: twin, microcredits: 5 })
      for (const step of steps) await ledger.advance(id, step)
      t.equal(await ledger.advance(id, { to: 'released', answer: kept }), true)
      t.equal(await ledger.advance(id, { to: 'released', answer: other }), false)
      t.same(await idempotency.earlier(subject, twin), { kind: 'answered', answer: kept })
    }
    t.equal(await creditsUsed(), 0)
    t.equal(await slotsUsed(), 0)
  })

  t.test('a sweep makes a key unknown, or free when nothing was sent; an answer that is there stays', async t => {
    const { ledger, idempotency, reserve, time } = await openBooks(t, open)
    const [reserved, lost, claimed] = ['reserved', 'lost', 'claimed'].map(name => ({ key: name, fingerprint: 'print' }))
    await reserve({ idempotency: reserved! })
    await ledger.advance(await reserve({ idempotency: lost! }), sent)
    const id = await reserve({ idempotency: claimed! })
    await ledger.advance(id, sent)
    await ledger.advance(id, claim)
    time.advance(terms.sentMs)
    await ledger.sweep()
    t.equal(await idempotency.earlier(subject, reserved!), null)
    t.match(await idempotency.earlier(subject, lost!), { kind: 'unknown' })
    time.advance(terms.giveUpMs - terms.sentMs - 1)
    await ledger.settle({ taskId: 'task', state: 'failed', answer: Buffer.from('{}') })
    t.match(await idempotency.earlier(subject, claimed!), { kind: 'answered' })
  })
}

function forgetting (t: Test, open: OpenStore): void {
  t.test('a key is kept for 24 hours from its request, and is new after that, tidied or not', async t => {
    for (const tidies of [false, true]) {
      const { ledger, idempotency, reserve, time, tidyAll } = await openBooks(t, open)
      const id = await reserve(keyed)
      time.advance(1000)
      await ledger.advance(id, sent)
      await ledger.advance(id, claim)
      time.advance(idempotencyMs - 1001)
      await tidyAll()
      t.match(await idempotency.earlier(subject, key), { kind: 'answered' })
      time.advance(1)
      if (tidies) await tidyAll()
      t.equal(await idempotency.earlier(subject, key), null)
      t.match(await ledger.reserve(demandOf(keyed)), { granted: true })
    }
  })

  for (const [name, stepMs] of [
    ['25 hours ahead', 25 * hourMs],
    ['25 hours back', -25 * hourMs]
  ] as const) {
    t.test(
      `a key is kept when the clock is put ${name}, and when it is right again, whatever is forgotten meanwhile`,
      async t => {
        const { ledger, idempotency, reserve, creditsUsed, time, tidyAll } = await openBooks(t, open)
        const id = await reserve({ ...keyed, microcredits: 7 })
        await ledger.advance(id, sent)
        await ledger.advance(id, claim)
        const isKept = async (when: string) => {
          await tidyAll()
          t.match(await idempotency.earlier(subject, key), { kind: 'answered' }, when)
          t.match(await ledger.reserve(demandOf({ ...keyed, microcredits: 7 })), { reason: 'duplicate' }, when)
        }
        time.step(stepMs)
        await isKept('after the step')
        time.advance(idempotencyMs - 1)
        await isKept('to the end of its day')
        time.step(-stepMs)
        await isKept('after the step back')
        t.equal(await creditsUsed(), 7)
        time.advance(1)
        t.equal(await idempotency.earlier(subject, key), null, 'and no longer')
      }
    )
  }

  t.test('a late end of the first request does not touch the second that has its key', async t => {
    const { ledger, idempotency, reserve, time } = await openBooks(t, open)
    const first = await reserve(keyed)
    await ledger.advance(first, sent)
    await ledger.advance(first, { to: 'unknown' })
    time.advance(idempotencyMs)
    const second = await reserve(keyed)
    await ledger.advance(first, claim)
    t.same(await idempotency.earlier(subject, key), { kind: 'pending' })
    await ledger.advance(second, sent)
    await ledger.advance(first, claim)
    t.same(await idempotency.earlier(subject, key), { kind: 'pending' })
    await ledger.advance(second, { to: 'claimed', taskId: 'another', answer: other })
    t.same(await idempotency.earlier(subject, key), { kind: 'answered', answer: other })
  })

  t.test('what the operator lets go frees its key, and a late claim does not take it again', async t => {
    const { ledger, idempotency, records, reserve } = await openBooks(t, open)
    const id = await reserve(keyed)
    await ledger.advance(id, sent)
    await ledger.advance(id, { to: 'unknown' })
    t.equal(await records.release(id), true)
    t.equal(await idempotency.earlier(subject, key), null)
    await ledger.advance(id, claim)
    t.equal(await idempotency.earlier(subject, key), null)
    t.match(await ledger.reserve(demandOf(keyed)), { granted: true })
  })
}

function separating (t: Test, open: OpenStore): void {
  t.test('keys that look alike or are odd do not mix, nor do those of two subjects', async t => {
    const { ledger, idempotency, reserve } = await openBooks(t, open)
    const subjects = ['app:a', 'app:A', 'app:a b', 'app:%', 'app:*', 'app:{a}', 'guest:a', '']
    const keys = [
      'a',
      'A',
      'b a',
      'b',
      '%',
      '_',
      '*',
      '"',
      '\\',
      '{a}',
      ':',
      ' ',
      "'; DROP TABLE idempotency; --",
      'x'.repeat(255)
    ]
    const all = subjects.flatMap(subject =>
      keys.map(key => ({ subject, idempotency: { key, fingerprint: `${subject} ${key}` } }))
    )
    for (const demand of all) {
      t.equal(await idempotency.earlier(demand.subject, demand.idempotency), null, JSON.stringify(demand))
      const id = await reserve(demand)
      if (all.indexOf(demand) % 2 === 0) await ledger.advance(id, sent)
    }
    for (const demand of all) t.same(await idempotency.earlier(demand.subject, demand.idempotency), { kind: 'pending' })
  })
}
