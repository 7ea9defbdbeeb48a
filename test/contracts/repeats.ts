import type { Test } from 'tap'
import {
  type ReserveRequest,
  type StoredResponse,
  maxRepeats,
  type Repeat,
  repeatMs,
  type ReservationId,
  type Transition
} from '../../src/domain/ledger.ts'
import { demandOf } from './ledger-balance.ts'
import { type Fixture, openBooks, type OpenStore, sent } from './open-books.ts'

const subject = 'app:alice'
const kept: StoredResponse = {
  status: 201,
  contentType: 'application/json; charset=utf-8',
  body: Buffer.from(Array.from({ length: 1024 }, (_, index) => index % 256))
}
const unknown: Transition = { to: 'unknown' }
const claim = (taskId: string): Transition => ({ to: 'claimed', taskId })
let calls = 0

/** One more call with the same submit, unless another fingerprint is given. */
export function repeatOf (fingerprint = 'print'): Repeat {
  return { fingerprint, call: `call-${++calls}`, arrivedAt: performance.now() }
}

/** A submit without an idempotency key, after these steps. */
export async function submitted (
  { ledger }: Pick<Fixture, 'ledger'>,
  steps: readonly Transition[],
  more: Partial<ReserveRequest> = {}
): Promise<ReservationId> {
  const reserved = await ledger.reserve(demandOf({ repeat: repeatOf(), ...more }))
  if (!reserved.granted) throw new Error(`no ${reserved.reason}`)
  for (const step of steps) await ledger.advance(reserved.id, step)
  return reserved.id
}

/** Every store must pass this, and the ledger that looks there as well. */
export function repeatsContract (t: Test, open: OpenStore): void {
  for (const group of [living, undelivered, unknowns, serving, bounding]) group(t, open)
}

function living (t: Test, open: OpenStore): void {
  t.test('equal submits whose callers are there are each made', async t => {
    const { ledger, repeats, creditsUsed } = await openBooks(t, open)
    const all = await Promise.all(Array.from({ length: 4 }, () => ledger.reserve(demandOf({ repeat: repeatOf() }))))
    t.ok(all.every(({ granted }) => granted))
    t.equal(await repeats.take(subject, repeatOf()), null)
    t.equal(await creditsUsed(), 4)
  })

  t.test('whoever has the answer may send the same again', async t => {
    const books = await openBooks(t, open)
    books.repeats.delivered(await submitted(books, [sent, claim('one')]))
    await books.repeats.undelivered(await submitted(books, [sent, claim('two')]))
    t.same(await books.repeats.take(subject, repeatOf()), { kind: 'task', taskId: 'two' })
    t.equal(await books.repeats.take(subject, repeatOf()), null)
  })

  t.test('what was refused leaves nothing to repeat, wherever its caller is', async t => {
    const books = await openBooks(t, open)
    for (const steps of [[], [sent]]) {
      const id = await submitted(books, steps)
      await books.repeats.undelivered(id)
      const repeat = repeatOf()
      t.same(await books.repeats.take(subject, repeat), { kind: 'pending' })
      await books.ledger.advance(id, { to: 'released' })
      t.equal(await books.repeats.take(subject, repeat), null)
      t.match(await books.ledger.reserve(demandOf({ repeat, operation: String(steps.length) })), { granted: true })
    }
    await books.repeats.undelivered('no such')
    books.repeats.delivered('no such')
  })
}

function undelivered (t: Test, open: OpenStore): void {
  t.test(
    'a repeat of a task whose answer did not arrive gets that answer, byte for byte, and costs nothing',
    async t => {
      const books = await openBooks(t, open)
      const { ledger, repeats, creditsUsed, slotsUsed } = books
      const late = await submitted(books, [sent, claim('task')])
      await repeats.undelivered(late, kept)
      const before = await submitted(books, [sent], { repeat: repeatOf('other') })
      await repeats.undelivered(before)
      await ledger.advance(before, { ...claim('other'), answer: kept } as Transition)
      for (const print of ['print', 'other']) {
        t.same(await ledger.reserve(demandOf({ repeat: repeatOf(print) })), {
          granted: false,
          reason: 'duplicate',
          earlier: { kind: 'answered', answer: kept }
        })
      }
      t.equal(await creditsUsed(), 2)
      t.equal(await slotsUsed(), 2)
    }
  )

  t.test('one whose answer is not known is told by its task, and before a lack of credits or of a slot', async t => {
    const books = await openBooks(t, open)
    await books.repeats.undelivered(await submitted(books, [sent, claim('a task/ä')]))
    const repeat = repeatOf()
    const earlier = { kind: 'task', taskId: 'a task/ä' }
    t.same(await books.ledger.reserve(demandOf({ repeat, creditLimit: 0, taskLimit: 0 })), {
      granted: false,
      reason: 'duplicate',
      earlier
    })
    t.same(await books.repeats.take(subject, repeat), earlier, 'and the same call is told the same')
    await books.ledger.settle({ taskId: 'a task/ä', state: 'success', answer: Buffer.from('{}') })
    t.same(await books.repeats.take(subject, repeat), earlier, 'also when it has ended')
  })

  t.test('while the first still runs its repeat is told to wait, and two minutes begin with its end', async t => {
    const books = await openBooks(t, open)
    const { ledger, repeats, time } = books
    const id = await submitted(books, [sent])
    await repeats.undelivered(id)
    const repeat = repeatOf()
    t.same(await repeats.take(subject, repeat), { kind: 'pending' })
    time.advance(repeatMs - 1)
    t.same(await repeats.take(subject, repeat), { kind: 'pending' })
    await ledger.advance(id, claim('task'))
    time.advance(repeatMs - 1)
    t.same(await repeats.take(subject, repeat), { kind: 'task', taskId: 'task' })
    await repeats.end(subject, repeat, false)
    await repeats.undelivered(id)
    time.advance(1)
    t.equal(await repeats.take(subject, repeatOf()), null)
  })
}

function unknowns (t: Test, open: OpenStore): void {
  t.test('each repeat of an unknown submit is told so for two minutes, which repeats do not renew', async t => {
    const books = await openBooks(t, open)
    const { ledger, repeats, time, creditsUsed } = books
    await submitted(books, [sent, unknown])
    for (let round = 0; round < 4; round++) {
      const repeat = repeatOf()
      t.match(await ledger.reserve(demandOf({ repeat })), { reason: 'duplicate', earlier: { kind: 'unknown' } })
      await repeats.end(subject, repeat, false)
      time.advance(repeatMs / 4)
    }
    t.equal(await creditsUsed(), 1)
    t.match(await ledger.reserve(demandOf({ repeat: repeatOf() })), { granted: true })
  })

  t.test('one that is swept is unknown, too', async t => {
    const books = await openBooks(t, open)
    await submitted(books, [sent])
    books.time.advance(140_000)
    await books.ledger.sweep()
    t.match(await books.ledger.reserve(demandOf({ repeat: repeatOf() })), { earlier: { kind: 'unknown' } })
  })

  t.test('a task that is found later is told from then on, until the two minutes end', async t => {
    const books = await openBooks(t, open)
    const { ledger, repeats, time } = books
    const id = await submitted(books, [sent, unknown])
    time.advance(repeatMs / 2)
    await ledger.advance(id, claim('task'))
    const repeat = repeatOf()
    t.same(await repeats.take(subject, repeat), { kind: 'task', taskId: 'task' })
    await repeats.end(subject, repeat, false)
    time.advance(repeatMs / 2)
    t.equal(await repeats.take(subject, repeatOf()), null)
  })

  t.test('what an operator lets go may be made again, and so may what never ended', async t => {
    const books = await openBooks(t, open)
    const id = await submitted(books, [sent, unknown])
    await books.records.release(id)
    t.equal(await books.repeats.take(subject, repeatOf()), null)
    const endless = await submitted(books, [sent, claim('task')])
    books.time.advance(86_400_000)
    await books.ledger.sweep()
    await books.repeats.undelivered(endless)
    t.equal(await books.repeats.take(subject, repeatOf()), null)
  })
}

function serving (t: Test, open: OpenStore): void {
  t.test('three that were lost serve three of fifty parallel repeats, the oldest first', async t => {
    const books = await openBooks(t, open)
    const ids: ReservationId[] = []
    for (const task of ['one', 'two', 'three']) ids.push(await submitted(books, [sent, claim(task)]))
    for (const id of ids.toReversed()) await books.repeats.undelivered(id)
    const all = await Promise.all(
      Array.from({ length: 50 }, () => books.ledger.reserve(demandOf({ repeat: repeatOf() })))
    )
    const told = all.flatMap(one =>
      one.granted || one.reason !== 'duplicate' || one.earlier.kind !== 'task' ? [] : one.earlier.taskId
    )
    t.same(told, ['one', 'two', 'three'])
    t.equal(all.filter(({ granted }) => granted).length, 47)
  })

  t.test('a repeat that is lost leaves its first to the next, and one that arrives ends it', async t => {
    const books = await openBooks(t, open)
    const { repeats } = books
    await repeats.undelivered(await submitted(books, [sent, claim('task')]), kept)
    const [first, second] = [repeatOf(), repeatOf()]
    t.match(await repeats.take(subject, first), { kind: 'answered' })
    t.equal(await repeats.take(subject, second), null, 'it is taken')
    await repeats.end(subject, second, true)
    await repeats.end(subject, first, false)
    t.match(await repeats.take(subject, second), { kind: 'answered' })
    await repeats.end(subject, second, true)
    t.equal(await repeats.take(subject, repeatOf()), null)
  })

  t.test('submits of others, other submits and those with a key are no repeats, and serve none', async t => {
    const books = await openBooks(t, open)
    const { ledger, repeats } = books
    const keyed = await submitted(books, [sent, claim('keyed')], {
      repeat: undefined as never,
      idempotency: { key: 'key', fingerprint: 'print' }
    })
    await repeats.undelivered(keyed)
    repeats.delivered(keyed)
    t.equal(await repeats.take(subject, repeatOf()), null)
    await repeats.undelivered(await submitted(books, [sent, claim('task')]))
    t.equal(await repeats.take('app:bob', repeatOf()), null)
    t.equal(await repeats.take(subject, repeatOf('another')), null)
    t.match(await ledger.reserve(demandOf({ idempotency: { key: 'other', fingerprint: 'print' } })), { granted: true })
    t.match(await repeats.take(subject, repeatOf()), { taskId: 'task' })
  })
}

function bounding (t: Test, open: OpenStore): void {
  t.test('of more than a hundred of one subject the oldest is forgotten, and somebody is told', async t => {
    const books = await openBooks(t, open)
    const { repeats, tidyAll, time } = books
    for (let index = 0; index < maxRepeats; index++) {
      await submitted(books, [sent, unknown], { repeat: repeatOf(`${index}`) })
    }
    await submitted(books, [sent, unknown], { subject: 'app:bob' })
    t.same(repeats.takeCrowded(), [])
    time.advance(1)
    await repeats.undelivered(await submitted(books, [sent, claim('task')]))
    t.same(repeats.takeCrowded(), [subject])
    t.same(repeats.takeCrowded(), [], 'once')
    const gone: number[] = []
    for (let index = 0; index < maxRepeats; index++) {
      if ((await repeats.take(subject, repeatOf(`${index}`))) === null) gone.push(index)
    }
    t.equal(gone.length, 1)
    time.advance(repeatMs)
    await tidyAll()
    for (let index = 0; index < maxRepeats; index++) {
      await submitted(books, [sent, unknown], { repeat: repeatOf(`${index}`) })
    }
    t.same(repeats.takeCrowded(), [], 'those whose time is over take no room')
  })
}
