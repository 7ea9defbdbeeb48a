import type { Test } from 'tap'
import type { Hold, ReserveRequest } from '../../src/domain/ledger.ts'
import { demandOf } from './ledger-balance.ts'
import { openBooks, type OpenStore, periodStart } from './open-books.ts'

const day: Hold = { account: 'pool:team', window: 'day:1', endsAt: 9e12, limit: 50 }
const hour: Hold = { ...day, window: 'hour:1', limit: 10 }
const gateway: Hold = { account: 'gateway', window: 'none', endsAt: null, limit: 10 }
const plan: Hold = { account: 'plan:default', window: 'day:1', endsAt: 9e12, limit: 10 }

/** What a reservation says of accounts that are nearly used up: every TaskLedger must pass this. */
export function nearEndsContract (t: Test, open: OpenStore): void {
  const opened = async (t: Test) => {
    const books = await openBooks(t, open)
    /** What is told with the next reservation, which has to be granted. */
    const told = async (more: Partial<ReserveRequest>) => {
      const reserved = await books.ledger.reserve(demandOf(more))
      if (!reserved.granted) throw new Error('there is no room')
      return reserved.near ?? null
    }
    return { ...books, told }
  }

  t.test('from four fifths of its period on, a subject is told with each reservation what is left', async t => {
    const { told } = await opened(t)
    t.equal(await told({ creditLimit: 10, microcredits: 7 }), null)
    t.same(await told({ creditLimit: 10, microcredits: 1 }), [{ hold: null, left: 2 }])
    t.same(await told({ creditLimit: 10, microcredits: 2 }), [{ hold: null, left: 0 }])
    t.equal(await told({ creditLimit: 10, microcredits: 0 }), null, 'what costs nothing is near no end')
    t.equal(await told({ creditLimit: null, microcredits: 5 }), null, 'nor is what has no limit')
    t.equal(await told({ creditLimit: 10, microcredits: 1, periodStart: periodStart + 1 }), null)
  })

  t.test('grants and extras are a part of what there is', async t => {
    const { told, accounts, ceilings, time } = await opened(t)
    const subject = 'app:alice'
    await accounts.grant({ subject, microcredits: 5 })
    t.equal(await told({ creditLimit: 10, microcredits: 10 }), null)
    t.same(await told({ creditLimit: 10, microcredits: 3 }), [{ hold: null, left: 2 }])
    await ceilings.raise({ account: `subject:${subject}`, microcredits: 10, until: time.now() + 1000 })
    t.equal(await told({ creditLimit: 10, microcredits: 1 }), null)
    t.same(await told({ creditLimit: 10, microcredits: 9 }), [{ hold: null, left: 2 }])
    t.same(await told({ creditLimit: 10, microcredits: 2 }), [{ hold: null, left: 0 }])
  })

  t.test('of a pool the window that has least left is told; of the plan and the gateway nothing is', async t => {
    const { told, ceilings } = await opened(t)
    const holds = [gateway, day, hour, plan]
    t.equal(await told({ holds, microcredits: 7 }), null)
    t.same(await told({ subject: 'app:bob', holds, microcredits: 1 }), [{ hold: hour, left: 2 }])
    t.same(await told({ holds: [day], microcredits: 36 }), [{ hold: day, left: 6 }])
    t.same(await told({ holds: [day, hour], microcredits: 1 }), [{ hold: hour, left: 1 }])
    t.equal(await told({ holds: [gateway, plan], microcredits: 2 }), null)
    t.equal(await told({ holds, microcredits: 0 }), null)
    await ceilings.raise({ account: 'pool:team', microcredits: 300, until: 9e12 })
    t.equal(await told({ holds: [day, hour], microcredits: 1 }), null)
    const next = { ...hour, window: 'hour:2' }
    t.same(await told({ subject: 'app:carol', holds: [next], creditLimit: 250, microcredits: 250 }), [
      { hold: null, left: 0 }, { hold: next, left: 60 }
    ])
  })

  t.test('several at a time are told of what is left when all of them have theirs', async t => {
    const { ledger } = await opened(t)
    const demand = demandOf({ creditLimit: 12, microcredits: 5, holds: [hour] })
    const own = demandOf({ microcredits: 0 })
    t.match(await ledger.reserveAll([demand, demand, own]), {
      granted: true, near: [{ hold: null, left: 2 }, { hold: hour, left: 0 }]
    })
    const far = await ledger.reserveAll([demandOf({ microcredits: 1 }), own])
    t.equal(far.granted && far.near, undefined)
  })
}
