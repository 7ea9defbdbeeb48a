import t from 'tap'
import {
  type BookEntry, type BookTerms, faultText, SubjectBooks, type SubjectSums, windowFaults, windowStart
} from '../../src/domain/books.ts'
import { dayMs } from '../../src/domain/time.ts'

const now = Date.UTC(2026, 0, 15, 12)
const terms: BookTerms = { now, retentionMs: 30 * dayMs, sentMs: 1000, periodsHoldOpen: false, isSwept: true }
const period = Date.UTC(2026, 0, 15)

const entry = (more: Partial<BookEntry> = {}): BookEntry => ({
  name: '1',
  stage: 'settled',
  state: 'success',
  taskId: 'task',
  periodStart: period,
  fromPeriod: 5_000_000,
  fromGrants: 0,
  refunded: false,
  sessionId: null,
  isOpen: false,
  leaseUntil: now,
  ...more
})

const sums = (more: Partial<SubjectSums> = {}): SubjectSums => ({
  periods: new Map([[period, 5_000_000]]),
  isPeriodKept: () => true,
  granted: 0,
  grants: { sum: 0, since: now },
  sessions: new Map(),
  forgotten: () => ({ uses: 0, microcredits: 0 }),
  ...more
})

const problems = (entries: readonly BookEntry[], more: Partial<SubjectSums> = {}, with_: Partial<BookTerms> = {}) => {
  const books = new SubjectBooks('app:alice', { ...terms, ...with_ })
  for (const one of entries) books.add(one)
  return books.faults(sums(more)).map(({ kind, problem }) => `${kind}: ${problem}`)
}

t.test('what is unfinished is in the sum of its period, or is not, as the store has it', t => {
  const open = entry({ stage: 'claimed', state: null, isOpen: true, fromPeriod: 1 })
  t.same(problems([entry(), open]), [])
  t.match(problems([entry(), open], {}, { periodsHoldOpen: true }), [/^period: .* 5 credits are used.* come to 5\.000001$/])
  t.end()
})

t.test('a sum may be higher by what was forgotten, and by no more', t => {
  const forgotten = (microcredits: number) => ({ forgotten: () => ({ uses: 0, microcredits }) })
  t.same(problems([], forgotten(5_000_000)), [])
  t.same(problems([], forgotten(2_000_000)),
    ['period: of its period since 2026-01-15T00:00:00.000Z 5 credits are used, and its tasks come to at most 2'])
  t.same(problems([entry(), entry()], forgotten(5_000_000)),
    ['period: of its period since 2026-01-15T00:00:00.000Z 5 credits are used, and its tasks come to 10'], 'nor lower at all')
  t.end()
})

t.test('a period that the store may have let go is not missed', t => {
  t.same(problems([entry()], { periods: new Map(), isPeriodKept: () => false }), [])
  t.equal(problems([entry()], { periods: new Map() }).length, 1)
  t.end()
})

t.test('a sum that has come to the end of all numbers says nothing any more', t => {
  t.same(problems([entry({ fromPeriod: Number.MAX_SAFE_INTEGER })]), [])
  t.same(windowFaults({ account: 'gateway', window: 'none', used: Number.MAX_SAFE_INTEGER, rows: 1 }, () => 0), [])
  t.end()
})

t.test('the use of what an operator has let go, and failed later, is in doubt', t => {
  const own = { sessionId: 'few', refunded: true, stage: 'settled', state: 'failed' } as const
  const session = (uses: number) =>
    ({ periods: new Map([[period, 0]]), sessions: new Map([['few', { uses, microcredits: 0 }]]) })
  t.same(problems([entry(own)], session(0)), [])
  t.same(problems([entry(own)], session(1)), [])
  t.same(problems([entry(own)], session(2)), ['session: the session few has taken 2 uses, and its tasks come to at most 1'])
  t.same(problems([entry({ ...own, state: 'success' })], session(1)).length, 1)
  t.same(problems([], session(1)).length, 1)
  t.end()
})

t.test('of nobody is what is charged to nobody', t => {
  const books = new SubjectBooks('', terms)
  books.add(entry())
  const faults = books.faults(sums())
  t.match(faults, [{ kind: 'owner', subject: null }])
  t.equal(faultText(faults[0]!),
    'task task is of no subject. Nobody can read that task: bring back the store from a copy, or tell its caller.')
  t.end()
})

t.test('a key that is past its time, or has its answer, needs no reservation', t => {
  const books = new SubjectBooks('app:alice', { ...terms, retentionMs: dayMs / 2 })
  books.add(entry())
  books.addKey({ key: 'old', createdAt: now - dayMs / 2, isAnswered: false, owner: null })
  books.addKey({ key: 'answered', createdAt: now, isAnswered: true, owner: null })
  books.addKey({ key: 'own', createdAt: now, isAnswered: false, owner: 'app:alice' })
  t.same(books.faults(sums()), [])
  books.addKey({ key: 'lost', createdAt: now, isAnswered: true, owner: '' })
  t.match(books.faults(sums()), [{ problem: 'its idempotency key "lost" leads to a reservation of nobody' }])
  t.end()
})

t.test('rows are lost where older ones are there, or where they are too young to be forgotten', t => {
  const lost = (...days: ReadonlyArray<readonly [ago: number, counted: number, rows: number]>) => {
    const books = new SubjectBooks('app:alice', terms)
    books.add(entry())
    books.addDays(days.map(([ago, counted, rows]) => ({ start: period - ago * dayMs, counted, rows })))
    return books.faults(sums()).map(({ problem }) => problem.slice(-22))
  }
  t.same(lost([0, 3, 3], [20, 3, 1], [40, 3, 0]), [], 'the oldest go first')
  t.same(lost([0, 3, 2]).length, 1)
  t.same(lost([10, 3, 2], [20, 3, 3]).length, 1)
  t.same(lost([10, 3, 0]), [], 'by a shorter retention')
  t.same(lost([10, 3, 4]).length, 1, 'more than were counted')
  t.end()
})

t.test('what is used of a window is what its rows come to, and what was forgotten of them', t => {
  const faults = (used: number, rows: number, forgotten = 0) =>
    windowFaults({ account: 'pool:one', window: 'month:2026-01', used, rows }, () => forgotten).map(({ problem }) => problem)
  t.same([faults(3e6, 3e6), faults(3e6, 2e6, 1e6)], [[], []])
  t.same(faults(3e6, 1e6, 1e6),
    ['of pool:one 3 credits are used in month:2026-01, and its tasks come to 1 and what was forgotten'])
  t.same(faults(1e6, 2e6, 5e6), ['of pool:one 1 credits are used in month:2026-01, and its tasks come to 2'])
  t.equal(windowStart('none', null), 0)
  t.equal(windowStart('week:2026-01-12', period), period - 7 * dayMs - 3_600_000)
  t.equal(windowStart('century:20', period), windowStart('month:2026-01', period), 'a name that is not known')
  t.end()
})
