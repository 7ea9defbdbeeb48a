import { setImmediate as nextTurn } from 'node:timers/promises'
import { isDeepStrictEqual } from 'node:util'
import type { Test } from 'tap'
import type { Extra } from '../../src/domain/ceilings.ts'
import type { Hold, StoredResponse, Repeat, ReservationId, Transition } from '../../src/domain/ledger.ts'
import { instant } from '../../src/domain/time.ts'
import { random } from '../helpers/random.ts'
import { demandOf } from './ledger-balance.ts'
import { ledgerModel } from './ledger-model.ts'
import { openBooks, type OpenStore, periodStart, terms } from './open-books.ts'

const rounds = 3000
const owners = ['app:alice', 'app:bob'].flatMap(subject =>
  [periodStart, periodStart + 1].map(start => ({ subject, periodStart: start }))
)
const moves = [
  'reserve',
  'reserve',
  'reserve',
  'advance',
  'advance',
  'advance',
  'advance',
  'advance',
  'settle',
  'settle',
  'settle',
  'abandon',
  'sweep',
  'release',
  'grant',
  'raise',
  'take',
  'end',
  'end',
  'delivered',
  'undelivered',
  'undelivered'
] as const
const steps = ['sent', 'sent', 'claimed', 'claimed', 'released', 'unknown', 'used'] as const
const budgets = [
  { id: 'many', uses: null, creditLimit: 200, expiresAt: 9e15 },
  { id: 'few', uses: 40, creditLimit: null, expiresAt: 9e15 },
  { id: 'both', uses: 60, creditLimit: 100, expiresAt: 9e15 }
]
/** What is above the subjects, each account with its windows: whose names tell which of them `now` is in. */
const hourMs = 3_600_000
const holdsAt = (now: number): readonly Hold[] => {
  const windowOf = (hours: number) => {
    const start = Math.floor(now / hours / hourMs) * hours * hourMs
    const window = hours === 24 ? `day:${instant(start).slice(0, 10)}` : `hour:${instant(start).slice(0, 16)}Z`
    return { window, endsAt: start + hours * hourMs }
  }
  return [
    { account: 'gateway', window: 'none', endsAt: null, limit: 300 },
    { account: 'gateway', ...windowOf(3), limit: 60 },
    { account: 'pool:one', ...windowOf(1), limit: 15 },
    { account: 'pool:two', ...windowOf(24), limit: 90 },
    { account: 'plan:default', ...windowOf(1), limit: 30 }
  ]
}
const runningLimits = [{ account: 'gateway', limit: 20 }, { account: 'pool:one', limit: 6 }] as const
const raised = ['gateway', 'pool:one', 'pool:two', 'subject:app:alice'] as const
const pauses = [0, 1000, 20_000, 100_000, 3_600_000]

/** Steps, endings, sweeps and grants as they fall, each held against a model that can be read in a few minutes. */
export function ledgerWalk (t: Test, open: OpenStore): void {
  const dice = random()
  t.test(`whatever happens in whatever order, who is charged is charged once (TEST_SEED=${dice.seed})`, async t => {
    const { ledger, accounts, ceilings, idempotency, repeats, records, books, time, tidyAll } = await openBooks(t, open)
    const model = ledgerModel(terms, time.now)
    const ids: ReservationId[] = []
    const calls: Array<{ readonly subject: string, readonly repeat: Repeat }> = []
    let held = 0
    /** As `t.same`. What holds is counted: as a line of TAP each, thousands of them cost more than the walk. */
    const hold = (found: unknown, expected: unknown, what = 'as the model has it'): void => {
      if (isDeepStrictEqual(found, expected)) held++
      else t.same(found, expected, what)
    }
    /** Callers that have been told of their task, or have gone: each once. */
    const over = new Set<ReservationId>()
    /** Mostly the young ones: the old have settled. */
    const anyId = () => dice.pick(dice.int(4) === 0 ? ids : ids.slice(-12)) ?? 'none'
    const anyTask = () => `task ${dice.int(rounds / 50)}`
    const anyKey = () => ({ key: `key ${dice.int(40)}`, fingerprint: `print ${Math.floor(dice.int(10) / 9)}` })
    const anyAnswer = (): StoredResponse => ({
      status: 200 + dice.int(300),
      contentType: 'application/json',
      body: Buffer.from(`${dice.int(1e9)}`)
    })
    const anyCall = (subject = dice.pick(owners).subject) => {
      const again = dice.int(3) === 0 ? calls.slice(-12).find(call => call.subject === subject) : undefined
      const call = again ?? {
        subject,
        repeat: { fingerprint: `print ${dice.int(4)}`, call: `call ${calls.length}`, arrivedAt: performance.now() }
      }
      calls.push(call)
      return call
    }
    const anyStep = (): Transition => {
      const to = dice.pick(steps)
      if (to === 'sent') return { to, keyId: 'key-1' }
      if (to === 'unknown') return { to }
      if (to === 'used') return { to, microcredits: dice.int(9), isEstimate: dice.int(2) === 0 }
      const answer = dice.int(2) === 0 ? {} : { answer: anyAnswer() }
      return to === 'claimed' ? { to, taskId: anyTask(), ...answer } : { to, ...answer }
    }

    const make = {
      async reserve () {
        const owner = dice.pick(owners)
        const demand = demandOf({
          ...owner,
          microcredits: dice.int(5),
          refundable: dice.int(3) > 0,
          creditLimit: dice.pick([40, 40, 30, null]),
          taskLimit: 12,
          ...dice.pick([{}, { idempotency: anyKey() }, { repeat: anyCall(owner.subject).repeat }]),
          ...(dice.int(2) === 0 ? {} : { session: dice.pick(budgets) }),
          ...(dice.int(4) > 0 && {
            holds: holdsAt(time.now()).filter(() => dice.int(3) > 0),
            runningLimits: runningLimits.filter(() => dice.int(2) === 0)
          })
        })
        const expected = model.reserve(demand)
        const reserved = await ledger.reserve(demand)
        const { id, ...told } = { id: undefined, ...reserved }
        hold(told, expected)
        if (id === undefined) return
        hold(ids.includes(id), false, 'no name twice')
        ids.push(id)
        model.add(id, demand)
      },
      async advance () {
        const [id, step] = [anyId(), anyStep()]
        for (let times = dice.pick([1, 1, 1, 2, 3]); times > 0; times--) {
          hold(await ledger.advance(id, step), model.advance(id, step), `${id} ${JSON.stringify(step)}`)
        }
      },
      async settle () {
        const ending = {
          taskId: anyTask(),
          state: dice.pick(['success', 'failed'] as const),
          answer: Buffer.from('{}')
        }
        hold(await ledger.settle(ending), model.settle(ending))
      },
      async abandon () {
        const request = { taskId: anyTask(), mostPerHour: dice.int(3) + 2 }
        hold(await ledger.abandon(request), model.abandon(request), `${request.taskId} given up`)
      },
      async sweep () {
        time.advance(dice.pick(pauses))
        hold(await ledger.sweep(), model.sweep())
      },
      async release () {
        const id = anyId()
        hold(await records.release(id), model.letGo(id), `${id} let go`)
      },
      async take () {
        const { subject, repeat } = anyCall()
        hold(await repeats.take(subject, repeat), model.take(subject, repeat), `${repeat.call} ${repeat.fingerprint}`)
      },
      async end () {
        const call = dice.pick(calls.slice(-12))
        const isDelivered = dice.int(2) === 0
        if (call === undefined) return
        await repeats.end(call.subject, call.repeat, isDelivered)
        model.end(call.subject, call.repeat, isDelivered)
      },
      async delivered () {
        const id = anyId()
        if (over.has(id) || !model.mayBeDelivered(id)) return
        over.add(id)
        repeats.delivered(id)
        model.delivered(id)
      },
      async undelivered () {
        const id = anyId()
        if (id === 'none' || over.has(id)) return
        over.add(id)
        const answer = dice.int(2) === 0 ? undefined : anyAnswer()
        await repeats.undelivered(id, answer)
        model.undelivered(id, answer)
      },
      async raise () {
        const account = dice.pick(raised)
        const isGrant = !account.startsWith('subject:') && dice.int(2) === 0
        const extra: Extra = {
          account, microcredits: dice.int(5) + 1, until: isGrant ? null : time.now() + dice.pick(pauses.slice(1))
        }
        hold(await ceilings.raise(extra), model.raise(extra), JSON.stringify(extra))
      },
      async grant () {
        const [{ subject }, microcredits] = [dice.pick(owners), dice.int(5) + 1]
        hold(await accounts.grant({ subject, microcredits }), model.grant(subject, microcredits))
      }
    }

    for (let round = 1; round <= rounds && t.passing(); round++) {
      await make[dice.pick(moves)]()
      if (round % 250 !== 0) continue
      await tidyAll()
      await ledger.sweep() // those that have overstayed by a walk's pause are no fault
      model.sweep()
      hold((await books.verify(nextTurn)).faults, [])
      const holds = [0, 1, 30].flatMap(hours => holdsAt(time.now() - hours * hourMs))
      hold(await ceilings.stateOf(holds), holds.map(model.stateOf))
      for (const { account } of holds) hold(await ceilings.runningIn(account), model.runningIn(account), account)
      for (const owner of owners) {
        const { subject, periodStart } = owner
        const extra = model.extraOf(subject)
        hold(await accounts.balanceOf(subject, periodStart), {
          used: model.creditsUsed(owner),
          granted: model.creditsGranted(subject),
          unfinished: model.slotsUsed(owner),
          ...(extra === 0 ? {} : { extra })
        })
        for (const { id } of budgets) hold(await accounts.spentIn(subject, id), model.spentIn(subject, id), id)
        for (let key = 0; key < 40; key++) {
          const used = { key: `key ${key}`, fingerprint: 'print 0' }
          hold(await idempotency.earlier(subject, used), model.earlier(subject, used))
        }
      }
    }
    t.ok(held > rounds, `${held} answers were the model's`)
  })
}
