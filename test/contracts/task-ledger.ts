import type { Test } from 'tap'
import type { Demand, LedgerTerms, ReservationId, Stage, Step, TaskLedger } from '../../src/domain/ledger.ts'
import { type Clock, clock } from '../helpers/clock.ts'
import { balance, type Balance, demandOf } from './ledger-balance.ts'
import { ledgerWalk } from './ledger-walk.ts'

/** Opens an empty ledger that ends with its test. */
export type OpenLedger = (t: Test, setup: { readonly terms: LedgerTerms, readonly now: () => number }) => TaskLedger

interface Fixture extends Balance {
  readonly ledger: TaskLedger
  readonly time: Clock
  /** A reservation at that stage; its task, when it has one, is `task`. */
  at (stage: Place, more?: Partial<Demand>, task?: string): Promise<ReservationId>
}

/** A stage, or no longer there, or unknown in one of its two ways. */
type Place = Stage | 'released' | 'given up'

const terms: LedgerTerms = { reservedMs: 30_000, sentMs: 140_000, giveUpMs: 86_400_000, refundsPerPeriod: 3 }
const periodStart = demandOf().periodStart
const sent = { to: 'sent', keyId: 'key-1' } as const
const answer = Buffer.from('{"code":200}')

const ways: Readonly<Record<Place, readonly Step['to'][]>> = {
  reserved: [],
  sent: ['sent'],
  claimed: ['sent', 'claimed'],
  settled: ['sent', 'claimed'],
  unknown: ['sent', 'unknown'],
  'given up': ['sent', 'claimed'],
  released: ['sent', 'released']
}

function stepTo (to: Step['to'], taskId: string): Step {
  if (to === 'sent') return sent
  return to === 'claimed' ? { to, taskId } : { to }
}

/** Every TaskLedger must pass this, whatever is behind it: each promise of domain/ledger.ts once. */
export function taskLedgerContract (t: Test, open: OpenLedger): void {
  const fixture = (t: Test): Fixture => {
    const time = clock()
    const ledger = open(t, { terms, now: time.now })
    return {
      ledger,
      time,
      ...balance(ledger),
      async at (stage, more = {}, task = 'task') {
        const reserved = await ledger.reserve(demandOf(more))
        if (!reserved.granted) throw new Error(`no ${reserved.lacks}`)
        for (const to of ways[stage]) await ledger.advance(reserved.id, stepTo(to, task))
        if (stage === 'settled') await ledger.settle({ taskId: task, state: 'success', answer })
        if (stage === 'given up') {
          time.advance(terms.giveUpMs)
          await ledger.sweep()
        }
        return reserved.id
      }
    }
  }
  for (const group of [reserving, stepping, settling, sweeping, separating]) group(t, fixture)
  ledgerWalk(t, open, terms)
}

type Open = (t: Test) => Fixture

function reserving (t: Test, open: Open): void {
  t.test('with credits for one, one of 200 parallel reservations is granted', async t => {
    const { ledger, creditsUsed } = open(t)
    const demand = demandOf({ microcredits: 7, creditLimit: 13 })
    const all = await Promise.all(Array.from({ length: 200 }, () => ledger.reserve(demand)))
    t.equal(all.filter(({ granted }) => granted).length, 1)
    t.same(new Set(all.map(one => one.granted ? '' : one.lacks)), new Set(['', 'credits']))
    t.equal(await creditsUsed(), 7)
  })

  t.test('with a slot for one, one of 200 parallel reservations is granted, and the others cost nothing', async t => {
    const { ledger, creditsUsed, slotsUsed } = open(t)
    const all = await Promise.all(Array.from({ length: 200 }, () => ledger.reserve(demandOf({ microcredits: 1, taskLimit: 1 }))))
    t.equal(all.filter(({ granted }) => granted).length, 1)
    t.same(new Set(all.map(one => one.granted ? '' : one.lacks)), new Set(['', 'slot']))
    t.equal(await creditsUsed(), 1)
    t.equal(await slotsUsed(), 1)
  })

  t.test('credits are used to the last one and not one further', async t => {
    const { ledger, creditsUsed } = open(t)
    t.match(await ledger.reserve(demandOf({ microcredits: 11, creditLimit: 10 })), { granted: false, lacks: 'credits' })
    t.match(await ledger.reserve(demandOf({ microcredits: 10, creditLimit: 10 })), { granted: true })
    t.match(await ledger.reserve(demandOf({ microcredits: 1, creditLimit: 10 })), { granted: false, lacks: 'credits' })
    t.match(await ledger.reserve(demandOf({ microcredits: 0, creditLimit: 10 })), { granted: true }, 'what costs nothing still fits')
    t.equal(await creditsUsed(), 10)
  })

  t.test('unlimited credits are counted all the same', async t => {
    const { ledger, creditsUsed } = open(t)
    const demand = demandOf({ microcredits: 1e12, creditLimit: null })
    for (let count = 0; count < 3; count++) t.match(await ledger.reserve(demand), { granted: true })
    t.equal(await creditsUsed(), 3e12)
    t.match(await ledger.reserve({ ...demand, creditLimit: 2e12 }), { granted: false, lacks: 'credits' }, 'a plan may be changed')
  })

  t.test('a number belongs to one reservation for good, so a late step of one that is gone meets nobody else', async t => {
    const { ledger, at, slotsUsed } = open(t)
    const gone = await at('released')
    const next = await at('reserved')
    t.not(gone, next)
    for (const to of ['sent', 'claimed', 'unknown', 'released'] as const) {
      t.equal(await ledger.advance(gone, stepTo(to, 'stray')), false, to)
    }
    t.equal(await slotsUsed(), 1)
    t.equal(await ledger.advance(next, sent), true)
  })
}

/** The steps that are open to a reservation, by where it stands; the task id of a claim is its own. */
const openSteps: Readonly<Record<Place, readonly Step['to'][]>> = {
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
      t.test(`${to} is ${isOpen ? 'open' : 'not open'} to a reservation that is ${place}, and once more changes nothing`, async t => {
        const { ledger, at, creditsUsed, slotsUsed } = open(t)
        const id = await at(place, { microcredits: 5 })
        const state = async () => [await creditsUsed(), await slotsUsed(), await ledger.taskOf('task')]
        const before = await state()
        t.equal(await ledger.advance(id, stepTo(to, 'task')), isOpen)
        const after = await state()
        if (!isOpen) t.same(after, before)
        await ledger.advance(id, stepTo(to, 'task'))
        t.same(await state(), after)
      })
    }
  }

  t.test('a step of a reservation that never was is not open', async t => {
    const { ledger } = open(t)
    for (const to of ['sent', 'claimed', 'released', 'unknown'] as const) t.equal(await ledger.advance(4711, stepTo(to, 'task')), false)
  })

  t.test('a task belongs to whoever claimed it first', async t => {
    const { ledger, at } = open(t)
    await at('claimed', { subject: 'app:alice' }, 'one')
    const other = await at('sent', { subject: 'app:bob' })
    t.equal(await ledger.advance(other, { to: 'claimed', taskId: 'one' }), false)
    t.match(await ledger.taskOf('one'), { subject: 'app:alice' })
    t.equal(await ledger.advance(other, { to: 'unknown' }), true, 'and the other one may still be marked')
  })

  t.test('of 50 parallel claims of one task id one is taken', async t => {
    const { ledger, at } = open(t)
    const ids = await Promise.all(Array.from({ length: 50 }, () => at('sent')))
    const taken = await Promise.all(ids.map(id => ledger.advance(id, { to: 'claimed', taskId: 'one' })))
    t.equal(taken.filter(Boolean).length, 1)
  })

  t.test('a reservation has one task: a second id is not taken', async t => {
    const { ledger, at } = open(t)
    for (const place of ['claimed', 'settled', 'given up'] as const) {
      const id = await at(place, {}, place)
      t.equal(await ledger.advance(id, { to: 'claimed', taskId: `other than ${place}` }), false, place)
      t.equal(await ledger.taskOf(`other than ${place}`), null)
    }
  })

  t.test('a release gives credits and slot back exactly once, also when fifty ask for it', async t => {
    const { ledger, at, creditsUsed, slotsUsed } = open(t)
    await at('sent', { microcredits: 3 })
    const id = await at('sent', { microcredits: 5 })
    const released = await Promise.all(Array.from({ length: 50 }, () => ledger.advance(id, { to: 'released' })))
    t.equal(released.filter(Boolean).length, 1)
    t.equal(await creditsUsed(), 3)
    t.equal(await slotsUsed(), 1)
  })

  t.test('what is sent may be sent again with another key, which then made the task', async t => {
    const { ledger, at } = open(t)
    const id = await at('sent')
    t.equal(await ledger.advance(id, { to: 'sent', keyId: 'key-2' }), true)
    await ledger.advance(id, { to: 'claimed', taskId: 'task' })
    t.match(await ledger.taskOf('task'), { keyId: 'key-2' })
  })

  t.test('an unknown outcome keeps its charge and frees its slot; a late claim takes the slot again', async t => {
    const { ledger, at, creditsUsed, slotsUsed } = open(t)
    const id = await at('unknown', { microcredits: 5 })
    t.equal(await creditsUsed(), 5)
    t.equal(await slotsUsed(), 0)
    t.equal(await ledger.advance(id, { to: 'claimed', taskId: 'late' }), true)
    t.match(await ledger.taskOf('late'), { stage: 'claimed', subject: 'app:alice' })
    t.equal(await creditsUsed(), 5)
    t.equal(await slotsUsed(), 1)
  })

  t.test('a task is known by all that was said of it, and others are not known', async t => {
    const { ledger, at, time } = open(t)
    await at('claimed', { subject: 'app:alice', model: 'sora-2', microcredits: 5 }, 'one')
    t.same(await ledger.taskOf('one'), {
      taskId: 'one', subject: 'app:alice', model: 'sora-2', keyId: 'key-1', stage: 'claimed', microcredits: 5, createdAt: time.now(), finalAnswer: null
    })
    for (const stranger of ['', 'One', 'one ', 'o%', 'one\0', '1']) t.equal(await ledger.taskOf(stranger), null, JSON.stringify(stranger))
  })
}

function settling (t: Test, open: Open): void {
  t.test('the first final state wins, whoever comes at the same time', async t => {
    const { ledger, at, creditsUsed, slotsUsed } = open(t)
    await at('claimed', { microcredits: 5 })
    const endings = Array.from({ length: 50 }, (_, index) =>
      ledger.settle({ taskId: 'task', state: index % 2 === 0 ? 'failed' : 'success', answer: Buffer.from(`answer ${index}`) }))
    t.same(await Promise.all(endings), [true, ...Array.from({ length: 49 }, () => false)])
    const task = await ledger.taskOf('task')
    t.equal(task?.stage, 'settled')
    t.equal(task?.finalAnswer?.toString(), 'answer 0')
    t.equal(await creditsUsed(), 0, 'refunded once')
    t.equal(await slotsUsed(), 0)
  })

  t.test('a success stays charged, whatever comes after it', async t => {
    const { ledger, at, creditsUsed } = open(t)
    await at('settled', { microcredits: 5 })
    t.equal(await ledger.settle({ taskId: 'task', state: 'failed', answer }), false)
    t.equal(await creditsUsed(), 5)
  })

  t.test('a failed task that is not refundable stays charged', async t => {
    const { ledger, at, creditsUsed, slotsUsed } = open(t)
    await at('claimed', { microcredits: 5, refundable: false })
    t.equal(await ledger.settle({ taskId: 'task', state: 'failed', answer }), true)
    t.equal(await creditsUsed(), 5)
    t.equal(await slotsUsed(), 0)
  })

  t.test('refunds end at their number for each subject and period', async t => {
    const { ledger, at, creditsUsed } = open(t)
    const fail = async (taskId: string, more: Partial<Demand> = {}) => {
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
    const { ledger, at } = open(t)
    const bytes = Buffer.from(Array.from({ length: 1024 }, (_, index) => index % 256))
    await at('claimed')
    await ledger.settle({ taskId: 'task', state: 'success', answer: bytes })
    t.ok((await ledger.taskOf('task'))?.finalAnswer?.equals(bytes))
  })

  t.test('what was given up may still end, and a failed one is refunded', async t => {
    const { ledger, at, creditsUsed, slotsUsed } = open(t)
    await at('given up', { microcredits: 5 })
    t.match(await ledger.taskOf('task'), { stage: 'unknown' })
    t.equal(await creditsUsed(), 5)
    t.equal(await ledger.settle({ taskId: 'task', state: 'failed', answer }), true)
    t.match(await ledger.taskOf('task'), { stage: 'settled' })
    t.equal(await creditsUsed(), 0)
    t.equal(await slotsUsed(), 0)
  })

  t.test('a task that nobody claimed does not end', async t => {
    const { ledger, at } = open(t)
    await at('sent')
    t.equal(await ledger.settle({ taskId: 'task', state: 'success', answer }), false)
    t.equal(await ledger.taskOf('task'), null)
  })
}

function sweeping (t: Test, open: Open): void {
  t.test('what is reserved lapses with its lease, and everything is given back', async t => {
    const { ledger, at, time, creditsUsed, slotsUsed } = open(t)
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
    const { ledger, at, time, creditsUsed, slotsUsed } = open(t)
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
    const { ledger, at, time, creditsUsed, slotsUsed } = open(t)
    await at('claimed', { microcredits: 5 })
    time.advance(terms.giveUpMs - 1)
    t.same(await ledger.sweep(), { released: 0, unknown: 0 })
    time.advance(1)
    t.same(await ledger.sweep(), { released: 0, unknown: 1 })
    t.match(await ledger.taskOf('task'), { stage: 'unknown', subject: 'app:alice' })
    t.equal(await creditsUsed(), 5)
    t.equal(await slotsUsed(), 0)
  })

  t.test('each step begins a lease of its own, and a late claim as well', async t => {
    const { ledger, at, time } = open(t)
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
    const { ledger, at, time, creditsUsed } = open(t)
    await at('settled', { microcredits: 5 })
    time.advance(10 * terms.giveUpMs)
    t.same(await ledger.sweep(), { released: 0, unknown: 0 })
    t.match(await ledger.taskOf('task'), { stage: 'settled' })
    t.equal(await creditsUsed(), 5)
  })
}

function separating (t: Test, open: Open): void {
  t.test('subjects that look alike or are odd do not mix', async t => {
    const { ledger, at, creditsUsed, slotsUsed } = open(t)
    const subjects = ['app:a', 'app:A', 'app:a ', 'app:ä', 'app:a\u0308', "app:a'; DROP TABLE tasks; --", 'app:%', 'app:_', 'app:"', 'app:{a}',
      'app:a:b', 'app:*', 'app:[a-z]', 'app:\\', 'app:😀', 'app:\u200ba', 'app:ſ', 'app:s', 'app:0', 'app:00', 'guest:a', '', ' ', 'NULL', 'app:' + 'x'.repeat(156)]
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
    const { ledger, at, creditsUsed, slotsUsed } = open(t)
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
