import type { Test } from 'tap'
import type { LedgerTerms, ReservationId, Step } from '../../src/domain/ledger.ts'
import { clock } from '../helpers/clock.ts'
import { random } from '../helpers/random.ts'
import { balance, demandOf } from './ledger-balance.ts'
import { ledgerModel } from './ledger-model.ts'
import type { OpenLedger } from './task-ledger.ts'

const rounds = 3000
const { periodStart } = demandOf()
const owners = ['app:alice', 'app:bob'].flatMap(subject => [periodStart, periodStart + 1].map(start => ({ subject, periodStart: start })))
const moves = ['reserve', 'reserve', 'advance', 'advance', 'advance', 'advance', 'settle', 'settle', 'sweep'] as const
const steps = ['sent', 'sent', 'claimed', 'claimed', 'released', 'unknown'] as const

/** Steps, endings and sweeps as they fall, each held against a model that can be read in a minute. */
export function ledgerWalk (t: Test, open: OpenLedger, terms: LedgerTerms): void {
  const dice = random()
  t.test(`whatever happens in whatever order, who is charged is charged once (TEST_SEED=${dice.seed})`, async t => {
    const time = clock()
    const ledger = open(t, { terms, now: time.now })
    const model = ledgerModel(terms, time.now)
    const { creditsUsed, slotsUsed } = balance(ledger)
    const ids: ReservationId[] = []
    const anyTask = () => `task ${dice.int(rounds / 50)}`

    const make = {
      async reserve () {
        const demand = demandOf({
          ...dice.pick(owners), microcredits: dice.int(5), refundable: dice.int(3) > 0, creditLimit: 40, taskLimit: 12
        })
        const lacks = model.lacks(demand)
        const reserved = await ledger.reserve(demand)
        t.equal(reserved.granted ? null : reserved.lacks, lacks)
        if (!reserved.granted) return
        t.notOk(ids.includes(reserved.id), 'no number twice')
        ids.push(reserved.id)
        model.add(reserved.id, demand)
      },
      async advance () {
        // Mostly the young ones: the old have settled.
        const id = dice.pick(dice.int(4) === 0 ? ids : ids.slice(-12)) ?? 0
        const to = dice.pick(steps)
        const step: Step = to === 'sent' ? { to, keyId: 'key-1' } : to === 'claimed' ? { to, taskId: anyTask() } : { to }
        for (let times = dice.pick([1, 1, 1, 2, 3]); times > 0; times--) {
          t.equal(await ledger.advance(id, step), model.advance(id, step), `${id} ${JSON.stringify(step)}`)
        }
      },
      async settle () {
        const ending = { taskId: anyTask(), state: dice.pick(['success', 'failed'] as const), answer: Buffer.from('{}') }
        t.equal(await ledger.settle(ending), model.settle(ending))
      },
      async sweep () {
        time.advance(dice.pick([0, 1000, 20_000, 100_000]))
        t.same(await ledger.sweep(), model.sweep())
      }
    }

    for (let round = 1; round <= rounds && t.passing(); round++) {
      await make[dice.pick(moves)]()
      if (round % 250 !== 0) continue
      for (const owner of owners) {
        t.equal(await creditsUsed(owner), model.creditsUsed(owner))
        t.equal(await slotsUsed(owner), model.slotsUsed(owner))
      }
    }
  })
}
