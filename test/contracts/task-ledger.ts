import type { Test } from 'tap'
import type { ReserveRequest, SessionBudget, Transition } from '../../src/domain/ledger.ts'
import { demandOf } from './ledger-balance.ts'
import { ledgerWalk } from './ledger-walk.ts'
import {
  answer,
  type Fixture,
  openBooks,
  type OpenStore,
  periodStart,
  type Place,
  sent,
  stepTo,
  terms
} from './open-books.ts'

type Open = (t: Test) => Promise<Fixture>

/** Every TaskLedger must pass this, whatever is behind it: each promise of domain/ledger.ts once. */
export function taskLedgerContract (t: Test, open: OpenStore): void {
  for (const group of [reserving, budgeting, stepping, settling, sweeping, separating]) {
    group(t, t => openBooks(t, open))
  }
  ledgerWalk(t, open)
}

function reserving (t: Test, open: Open): void {
  t.test('with credits for one, one of 200 parallel reservations is granted', async t => {
    const { ledger, creditsUsed } = await open(t)
    const demand = demandOf({ microcredits: 7, creditLimit: 13 })
    const all = await Promise.all(Array.from({ length: 200 }, () => ledger.reserve(demand)))
    t.equal(all.filter(({ granted }) => granted).length, 1)
    t.same(new Set(all.map(one => (one.granted ? '' : one.reason))), new Set(['', 'credits']))
    t.equal(await creditsUsed(), 7)
  })

  t.test('with a slot for one, one of 200 parallel reservations is granted, and the others cost nothing', async t => {
    const { ledger, creditsUsed, slotsUsed } = await open(t)
    const all = await Promise.all(
      Array.from({ length: 200 }, () => ledger.reserve(demandOf({ microcredits: 1, taskLimit: 1 })))
    )
    t.equal(all.filter(({ granted }) => granted).length, 1)
    t.same(new Set(all.map(one => (one.granted ? '' : one.reason))), new Set(['', 'slot']))
    t.equal(await creditsUsed(), 1)
    t.equal(await slotsUsed(), 1)
  })

  t.test('credits are used to the last one and not one further', async t => {
    const { ledger, creditsUsed } = await open(t)
    t.match(await ledger.reserve(demandOf({ microcredits: 11, creditLimit: 10 })), { granted: false, reason: 'credits' })
    t.match(await ledger.reserve(demandOf({ microcredits: 10, creditLimit: 10 })), { granted: true })
    t.match(await ledger.reserve(demandOf({ microcredits: 1, creditLimit: 10 })), { granted: false, reason: 'credits' })
    t.match(
      await ledger.reserve(demandOf({ microcredits: 0, creditLimit: 10 })),
      { granted: true },
      'what costs nothing still fits'
    )
    t.equal(await creditsUsed(), 10)
  })

  t.test('unlimited credits are counted all the same', async t => {
    const { ledger, creditsUsed } = await open(t)
    const demand = demandOf({ microcredits: 1e12, creditLimit: null })
    for (let count = 0; count < 3; count++) t.match(await ledger.reserve(demand), { granted: true })
    t.equal(await creditsUsed(), 3e12)
    t.match(
      await ledger.reserve({ ...demand, creditLimit: 2e12 }),
      { granted: false, reason: 'credits' },
      'a plan may be changed'
    )
  })

  t.test(
    'a number belongs to one reservation for good, so a late step of one that is gone meets nobody else',
    async t => {
      const { ledger, at, slotsUsed } = await open(t)
      const gone = await at('released')
      const next = await at('reserved')
      t.not(gone, next)
      for (const to of ['sent', 'claimed', 'unknown', 'released'] as const) {
        t.equal(await ledger.advance(gone, stepTo(to, 'stray')), false, to)
      }
      t.equal(await slotsUsed(), 1)
      t.equal(await ledger.advance(next, sent), true)
    }
  )
}

/** A session's own limits: those that are given, and no others. */
function budget (more: Partial<SessionBudget> = {}) {
  return {
    session: { id: 'session', uses: null, creditLimit: null, expiresAt: periodStart + 90 * 86_400_000, ...more }
  }
}

function budgeting (t: Test, open: Open): void {
  const spentBy = ({ accounts }: Fixture, id = 'session', subject = 'app:alice') => accounts.spentIn(subject, id)

  t.test('of 50 parallel reservations of a single-use session one is granted, and the others cost nothing', async t => {
    const books = await open(t)
    const all = await Promise.all(
      Array.from({ length: 50 }, () => books.ledger.reserve(demandOf({ microcredits: 3, ...budget({ uses: 1 }) })))
    )
    t.equal(all.filter(({ granted }) => granted).length, 1)
    t.same(new Set(all.map(one => (one.granted ? '' : one.reason))), new Set(['', 'uses']))
    t.equal(await books.creditsUsed(), 3)
    t.equal(await books.slotsUsed(), 1)
    t.same(await spentBy(books), { uses: 1, microcredits: 3 })
  })

  t.test(
    "with a session's credits for one, one of 50 parallel reservations is granted, whatever its subject has left",
    async t => {
      const books = await open(t)
      await books.accounts.grant({ subject: 'app:alice', microcredits: 1000 })
      const demand = demandOf({ microcredits: 7, ...budget({ creditLimit: 13 }) })
      const all = await Promise.all(Array.from({ length: 50 }, () => books.ledger.reserve(demand)))
      t.same(new Set(all.map(one => (one.granted ? '' : one.reason))), new Set(['', 'credits']))
      t.same(await spentBy(books), { uses: 1, microcredits: 7 })
      t.match(await books.ledger.reserve({ ...demand, microcredits: 6 }), { granted: true }, 'to the last one')
      t.match(
        await books.ledger.reserve({ ...demand, microcredits: 0 }),
        { granted: true },
        'what costs nothing still fits'
      )
      t.match(await books.ledger.reserve({ ...demand, microcredits: 1 }), { granted: false, reason: 'credits' })
    }
  )

  t.test('what lacks several things is told of them in one order', async t => {
    const { ledger } = await open(t)
    const idempotency = { key: 'key', fingerprint: 'print' }
    const lacking = demandOf({
      microcredits: 2,
      taskLimit: 1,
      creditLimit: 3,
      ...budget({ uses: 1, creditLimit: 3 }),
      idempotency
    })
    await ledger.reserve(lacking)
    const { idempotency: _, ...another } = lacking
    t.match(await ledger.reserve(lacking), { reason: 'duplicate' })
    t.match(await ledger.reserve(another), { reason: 'slot' })
    t.match(await ledger.reserve({ ...another, taskLimit: 9 }), { reason: 'uses' })
    t.match(await ledger.reserve({ ...another, taskLimit: 9, ...budget({ uses: 2, creditLimit: 9 }) }), {
      reason: 'credits'
    })
    t.match(
      await ledger.reserve({ ...another, taskLimit: 9, creditLimit: 9, ...budget({ uses: 2, creditLimit: 3 }) }),
      { reason: 'credits' }
    )
  })

  t.test(
    'a session has its use and its credits again when nothing came of them, and its credits when they are refunded',
    async t => {
      const books = await open(t)
      const { ledger, records, at, time } = books
      const demand = { microcredits: 5, ...budget({ uses: 1, creditLimit: 5 }) }
      await at('released', demand)
      const held = await at('reserved', demand)
      t.equal(await ledger.advance(held, { to: 'released' }), true)
      const refused = await at('sent', demand)
      t.equal(
        await ledger.advance(refused, {
          to: 'released',
          answer: { status: 400, contentType: 'application/json', body: answer }
        }),
        true
      )
      await at('reserved', demand)
      time.advance(terms.reservedMs)
      await ledger.sweep()
      const unknown = await at('unknown', demand)
      t.same(await spentBy(books), { uses: 1, microcredits: 5 }, 'kept while nobody knows')
      t.equal(await records.release(unknown), true)
      t.same(await spentBy(books), { uses: 0, microcredits: 0 })
      await at('claimed', demand)
      await ledger.settle({ taskId: 'task', state: 'failed', answer })
      t.same(await spentBy(books), { uses: 1, microcredits: 0 }, 'a failed task was a use')
      t.match(await ledger.reserve(demandOf(demand)), { reason: 'uses' })
    }
  )

  t.test('what is not refunded to the subject is not refunded to the session', async t => {
    const books = await open(t)
    const fail = async (taskId: string, more: Partial<ReserveRequest>) => {
      await books.at('claimed', { microcredits: 5, ...more, ...budget() }, taskId)
      await books.ledger.settle({ taskId, state: 'failed', answer })
    }
    await fail('charged', { refundable: false })
    t.same(await spentBy(books), { uses: 1, microcredits: 5 })
    for (let count = 0; count < terms.refundsPerPeriod + 1; count++) await fail(`task ${count}`, {})
    t.same(await spentBy(books), { uses: 5, microcredits: 10 })
  })

  t.test('a session counts for its whole life, across periods, and for itself alone', async t => {
    const books = await open(t)
    await books.at('claimed', { microcredits: 5, ...budget({ uses: 2 }) }, 'today')
    books.time.advance(86_400_000)
    await books.at(
      'claimed',
      { microcredits: 5, periodStart: periodStart + 86_400_000, ...budget({ uses: 2 }) },
      'tomorrow'
    )
    t.match(await books.ledger.reserve(demandOf(budget({ uses: 2 }))), { reason: 'uses' })
    t.match(await books.ledger.reserve(demandOf(budget({ id: 'Session', uses: 2 }))), { granted: true })
    t.match(await books.ledger.reserve(demandOf()), { granted: true }, 'and its subject has sessions without limits')
    await books.tidyAll()
    t.same(await spentBy(books), { uses: 2, microcredits: 10 })
    t.same(await spentBy(books, 'session', 'app:bob'), { uses: 0, microcredits: 0 })
  })

  t.test(
    'what a session has taken is known when the clock is put a day and an hour ahead, and is right again',
    async t => {
      const books = await open(t)
      const demand = { microcredits: 5, ...budget({ uses: 1, expiresAt: books.time.now() + 3_600_000 }) }
      await books.at('claimed', demand)
      books.time.step(25 * 3_600_000)
      await books.tidyAll()
      books.time.step(-25 * 3_600_000)
      t.same(await books.ledger.reserve(demandOf(demand)), { granted: false, reason: 'uses' })
      t.same(await spentBy(books), { uses: 1, microcredits: 5 })
    }
  )

  t.test('what comes back after its session has ended and was forgotten goes to its subject', async t => {
    const books = await open(t)
    await books.at('claimed', { microcredits: 5, ...budget({ expiresAt: books.time.now() + 1000 }) })
    books.time.advance(1000)
    await books.tidyAll()
    t.equal(await books.ledger.settle({ taskId: 'task', state: 'failed', answer }), true)
    t.equal(await books.creditsUsed(), 0)
  })
}

/** The steps that are open to a reservation, by where it stands; the task id of a claim is its own. */
const openSteps: Readonly<Record<Place, readonly Transition['to'][]>> = {
  reserved: ['sent', 'released'],
  sent: ['sent', 'claimed', 'released', 'unknown'],
  claimed: ['claimed'],
  settled: ['claimed'],
  unknown: ['claimed'],
  'given up': ['claimed'],
  released: []
}

function stepping (t: Test, open: Open): void {
  for (const place of Object.keys(openSteps) as Place[]) {
    for (const to of ['sent', 'claimed', 'released', 'unknown'] as const) {
      const isOpen = openSteps[place].includes(to)
      t.test(
        `${to} is ${isOpen ? 'open' : 'not open'} to a reservation that is ${place}, and once more changes nothing`,
        async t => {
          const { ledger, at, creditsUsed, slotsUsed } = await open(t)
          const id = await at(place, { microcredits: 5 })
          const state = async () => [await creditsUsed(), await slotsUsed(), await ledger.taskOf('task')]
          const before = await state()
          t.equal(await ledger.advance(id, stepTo(to, 'task')), isOpen)
          const after = await state()
          if (!isOpen) t.same(after, before)
          await ledger.advance(id, stepTo(to, 'task'))
          t.same(await state(), after)
        }
      )
    }
  }

  t.test('a step of a reservation that never was is not open', async t => {
    const { ledger } = await open(t)
    for (const to of ['sent', 'claimed', 'released', 'unknown'] as const) {
      t.equal(await ledger.advance('4711', stepTo(to, 'task')), false)
    }
  })

  t.test('a task belongs to whoever claimed it first', async t => {
    const { ledger, at } = await open(t)
    await at('claimed', { subject: 'app:alice' }, 'one')
    const other = await at('sent', { subject: 'app:bob' })
    t.equal(await ledger.advance(other, { to: 'claimed', taskId: 'one' }), false)
    t.match(await ledger.taskOf('one'), { subject: 'app:alice' })
    t.equal(await ledger.advance(other, { to: 'unknown' }), true, 'and the other one may still be marked')
  })

  t.test('of 50 parallel claims of one task id one is taken', async t => {
    const { ledger, at } = await open(t)
    const ids = await Promise.all(Array.from({ length: 50 }, () => at('sent')))
    const taken = await Promise.all(ids.map(id => ledger.advance(id, { to: 'claimed', taskId: 'one' })))
    t.equal(taken.filter(Boolean).length, 1)
  })

  t.test('a reservation has one task: a second id is not taken', async t => {
    const { ledger, at } = await open(t)
    for (const place of ['claimed', 'settled', 'given up'] as const) {
      const id = await at(place, {}, place)
      t.equal(await ledger.advance(id, { to: 'claimed', taskId: `other than ${place}` }), false, place)
      t.equal(await ledger.taskOf(`other than ${place}`), null)
    }
  })

  t.test('a release gives credits and slot back exactly once, also when fifty ask for it', async t => {
    const { ledger, at, creditsUsed, slotsUsed } = await open(t)
    await at('sent', { microcredits: 3 })
    const id = await at('sent', { microcredits: 5 })
    const released = await Promise.all(Array.from({ length: 50 }, () => ledger.advance(id, { to: 'released' })))
    t.equal(released.filter(Boolean).length, 1)
    t.equal(await creditsUsed(), 3)
    t.equal(await slotsUsed(), 1)
  })

  t.test('what is sent may be sent again with another key, which then made the task', async t => {
    const { ledger, at } = await open(t)
    const id = await at('sent')
    t.equal(await ledger.advance(id, { to: 'sent', keyId: 'key-2' }), true)
    await ledger.advance(id, { to: 'claimed', taskId: 'task' })
    t.match(await ledger.taskOf('task'), { keyId: 'key-2' })
  })

  t.test('an unknown outcome keeps its charge and frees its slot; a late claim takes the slot again', async t => {
    const { ledger, at, creditsUsed, slotsUsed } = await open(t)
    const id = await at('unknown', { microcredits: 5 })
    t.equal(await creditsUsed(), 5)
    t.equal(await slotsUsed(), 0)
    t.equal(await ledger.advance(id, { to: 'claimed', taskId: 'late' }), true)
    t.match(await ledger.taskOf('late'), { stage: 'claimed', subject: 'app:alice' })
    t.equal(await creditsUsed(), 5)
    t.equal(await slotsUsed(), 1)
  })

  t.test('a task is known by all that was said of it, and others are not known', async t => {
    const { ledger, at, time } = await open(t)
    await at('claimed', { subject: 'app:alice', operation: 'batch', model: 'sora-2', microcredits: 5 }, 'one')
    t.same(await ledger.taskOf('one'), {
      taskId: 'one',
      subject: 'app:alice',
      operation: 'batch',
      model: 'sora-2',
      keyId: 'key-1',
      stage: 'claimed',
      microcredits: 5,
      createdAt: time.now(),
      finalAnswer: null
    })
    for (const stranger of ['', 'One', 'one ', 'o%', 'one\0', '1']) {
      t.equal(await ledger.taskOf(stranger), null, JSON.stringify(stranger))
    }
  })
}

function settling (t: Test, open: Open): void {
  t.test('the first final state wins, whoever comes at the same time', async t => {
    const { ledger, at, creditsUsed, slotsUsed } = await open(t)
    await at('claimed', { microcredits: 5 })
    const endings = Array.from({ length: 50 }, (_, index) =>
      ledger.settle({
        taskId: 'task',
        state: index % 2 === 0 ? 'failed' : 'success',
        answer: Buffer.from(`answer ${index}`)
      })
    )
    t.same(await Promise.all(endings), [true, ...Array.from({ length: 49 }, () => false)])
    const task = await ledger.taskOf('task')
    t.equal(task?.stage, 'settled')
    t.equal(task?.finalAnswer?.toString(), 'answer 0')
    t.equal(await creditsUsed(), 0, 'refunded once')
    t.equal(await slotsUsed(), 0)
  })

  t.test('a success stays charged, whatever comes after it', async t => {
    const { ledger, at, creditsUsed } = await open(t)
    await at('settled', { microcredits: 5 })
    t.equal(await ledger.settle({ taskId: 'task', state: 'failed', answer }), false)
    t.equal(await creditsUsed(), 5)
  })

  t.test('a failed task that is not refundable stays charged', async t => {
    const { ledger, at, creditsUsed, slotsUsed } = await open(t)
    await at('claimed', { microcredits: 5, refundable: false })
    t.equal(await ledger.settle({ taskId: 'task', state: 'failed', answer }), true)
    t.equal(await creditsUsed(), 5)
    t.equal(await slotsUsed(), 0)
  })

  t.test('refunds end at their number for each subject and period', async t => {
    const { ledger, at, creditsUsed } = await open(t)
    const fail = async (taskId: string, more: Partial<ReserveRequest> = {}) => {
      await at('claimed', { microcredits: 5, ...more }, taskId)
      await ledger.settle({ taskId, state: 'failed', answer })
    }
    for (let count = 0; count < terms.refundsPerPeriod + 2; count++) await fail(`task ${count}`)
    t.equal(await creditsUsed(), 10)
    await fail('of bob', { subject: 'app:bob' })
    t.equal(await creditsUsed({ subject: 'app:bob' }), 0)
    await fail('of tomorrow', { periodStart: periodStart + 1 })
    t.equal(await creditsUsed({ periodStart: periodStart + 1 }), 0)
  })

  t.test('the final answer is kept byte for byte', async t => {
    const { ledger, at } = await open(t)
    const bytes = Buffer.from(Array.from({ length: 1024 }, (_, index) => index % 256))
    await at('claimed')
    await ledger.settle({ taskId: 'task', state: 'success', answer: bytes })
    t.ok((await ledger.taskOf('task'))?.finalAnswer?.equals(bytes))
  })

  t.test('what was given up may still end, and a failed one is refunded', async t => {
    const { ledger, at, creditsUsed, slotsUsed } = await open(t)
    await at('given up', { microcredits: 5 })
    t.match(await ledger.taskOf('task'), { stage: 'unknown' })
    t.equal(await creditsUsed(), 5)
    t.equal(await ledger.settle({ taskId: 'task', state: 'failed', answer }), true)
    t.match(await ledger.taskOf('task'), { stage: 'settled' })
    t.equal(await creditsUsed(), 0)
    t.equal(await slotsUsed(), 0)
  })

  t.test('a task that nobody claimed does not end', async t => {
    const { ledger, at } = await open(t)
    await at('sent')
    t.equal(await ledger.settle({ taskId: 'task', state: 'success', answer }), false)
    t.equal(await ledger.taskOf('task'), null)
  })
}

function sweeping (t: Test, open: Open): void {
  t.test('what is reserved lapses with its lease, and everything is given back', async t => {
    const { ledger, at, time, creditsUsed, slotsUsed } = await open(t)
    const id = await at('reserved', { microcredits: 5 })
    time.advance(terms.reservedMs - 1)
    t.same(await ledger.sweep(), { released: 0, unknown: 0 })
    time.advance(1)
    t.same(await ledger.sweep(), { released: 1, unknown: 0 })
    t.equal(await creditsUsed(), 0)
    t.equal(await slotsUsed(), 0)
    t.equal(await ledger.advance(id, sent), false, 'nothing is sent for it any more')
    t.same(await ledger.sweep(), { released: 0, unknown: 0 })
  })

  t.test('what was sent becomes unknown with its lease: charged, its slot free', async t => {
    const { ledger, at, time, creditsUsed, slotsUsed } = await open(t)
    await at('sent', { microcredits: 5 })
    time.advance(terms.sentMs - 1)
    t.same(await ledger.sweep(), { released: 0, unknown: 0 })
    time.advance(1)
    t.same(await ledger.sweep(), { released: 0, unknown: 1 })
    t.equal(await creditsUsed(), 5)
    t.equal(await slotsUsed(), 0)
    t.same(await ledger.sweep(), { released: 0, unknown: 0 })
  })

  t.test('a task that never ends is given up: charged, its slot free, its owner known', async t => {
    const { ledger, at, time, creditsUsed, slotsUsed } = await open(t)
    await at('claimed', { microcredits: 5 })
    time.advance(terms.giveUpMs - 1)
    t.same(await ledger.sweep(), { released: 0, unknown: 0 })
    time.advance(1)
    t.same(await ledger.sweep(), { released: 0, unknown: 1 })
    t.match(await ledger.taskOf('task'), { stage: 'unknown', subject: 'app:alice' })
    t.equal(await creditsUsed(), 5)
    t.equal(await slotsUsed(), 0)
  })

  t.test('a task whose end nobody can find out is given up before its time, once; nothing else is', async t => {
    const { ledger, records, at, creditsUsed, slotsUsed } = await open(t)
    await at('claimed', { microcredits: 5 })
    t.equal(await ledger.giveUp('another'), false)
    t.same(await Promise.all(Array.from({ length: 20 }, () => ledger.giveUp('task'))), [
      true,
      ...Array.from({ length: 19 }, () => false)
    ])
    t.same([await creditsUsed(), await slotsUsed()], [5, 0])
    t.match(await ledger.taskOf('task'), { stage: 'unknown', finalAnswer: null })
    t.match((await records.unknowns({ cursor: null, limit: 9 })).items, [{ taskId: 'task' }])
    t.equal(await ledger.settle({ taskId: 'task', state: 'failed', answer }), true, 'its key may come back')
    t.equal(await creditsUsed(), 0)
    t.equal(await ledger.giveUp('task'), false)
    await at('settled', {}, 'ended')
    t.equal(await ledger.giveUp('ended'), false)
  })

  t.test('each step begins a lease of its own, and a late claim as well', async t => {
    const { ledger, at, time } = await open(t)
    const id = await at('reserved')
    time.advance(terms.reservedMs - 1)
    await ledger.advance(id, sent)
    time.advance(terms.sentMs - 1)
    t.same(await ledger.sweep(), { released: 0, unknown: 0 })
    time.advance(1)
    await ledger.sweep()
    await ledger.advance(id, { to: 'claimed', taskId: 'task' })
    time.advance(terms.giveUpMs - 1)
    t.same(await ledger.sweep(), { released: 0, unknown: 0 })
  })

  t.test('what has ended is left alone for ever', async t => {
    const { ledger, at, time, creditsUsed } = await open(t)
    await at('settled', { microcredits: 5 })
    time.advance(10 * terms.giveUpMs)
    t.same(await ledger.sweep(), { released: 0, unknown: 0 })
    t.match(await ledger.taskOf('task'), { stage: 'settled' })
    t.equal(await creditsUsed(), 5)
  })
}

function separating (t: Test, open: Open): void {
  t.test('subjects that look alike or are odd do not mix', async t => {
    const { ledger, at, creditsUsed, slotsUsed } = await open(t)
    const subjects = [
      'app:a',
      'app:A',
      'app:a ',
      'app:ä',
      'app:a\u0308',
      "app:a'; DROP TABLE tasks; --",
      'app:%',
      'app:_',
      'app:"',
      'app:{a}',
      'app:a:b',
      'app:*',
      'app:[a-z]',
      'app:\\',
      'app:😀',
      'app:\u200ba',
      'app:ſ',
      'app:s',
      'app:0',
      'app:00',
      'guest:a',
      '',
      ' ',
      'NULL',
      'app:' + 'x'.repeat(156)
    ]
    for (const [index, subject] of subjects.entries()) {
      await at('claimed', { subject, microcredits: index + 1 }, `task of ${subject}`)
    }
    for (const [index, subject] of subjects.entries()) {
      t.equal(await creditsUsed({ subject }), index + 1, JSON.stringify(subject))
      t.equal(await slotsUsed({ subject }), 1)
      t.equal((await ledger.taskOf(`task of ${subject}`))?.subject, subject)
    }
  })

  t.test('each period has its own credits, and gets its own back', async t => {
    const { ledger, at, creditsUsed, slotsUsed } = await open(t)
    const tomorrow = { periodStart: periodStart + 86_400_000 }
    const today = await at('sent', { microcredits: 5 })
    await at('claimed', { microcredits: 3, ...tomorrow })
    t.equal(await creditsUsed(), 5)
    t.equal(await creditsUsed(tomorrow), 3)
    t.equal(await slotsUsed(), 2, 'slots know no periods')
    await ledger.advance(today, { to: 'released' })
    t.equal(await creditsUsed(), 0)
    await ledger.settle({ taskId: 'task', state: 'failed', answer })
    t.equal(await creditsUsed(tomorrow), 0)
  })
}
