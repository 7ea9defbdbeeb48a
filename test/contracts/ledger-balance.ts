import type { ReserveRequest, TaskLedger } from '../../src/domain/ledger.ts'

/** A submit of alice's, for one credit of a hundred. */
export function demandOf (more: Partial<ReserveRequest> = {}): ReserveRequest {
  return {
    subject: 'app:alice',
    operation: 'generateTask',
    model: 'nano-banana',
    keyId: 'key-0',
    microcredits: 1,
    refundable: true,
    periodStart: Date.UTC(2026, 0, 15),
    creditLimit: null,
    taskLimit: 1000,
    ...more
  }
}

type Owner = Partial<Pick<ReserveRequest, 'subject' | 'periodStart'>>

/**
 * What a ledger holds to, found by trying, whatever it says of itself. Credits: of a subject without grants.
 */
export interface Balance {
  creditsUsed (owner?: Owner): Promise<number>
  slotsUsed (owner?: Owner): Promise<number>
}

/** Set aside while credits are measured, so that a balance below zero would show as one. */
const ballast = 1_000_000

export function balance (ledger: TaskLedger): Balance {
  const isGranted = async (demand: ReserveRequest): Promise<boolean> => {
    const reserved = await ledger.reserve(demand)
    if (reserved.granted) await ledger.advance(reserved.id, { to: 'released' })
    return reserved.granted
  }

  return {
    async creditsUsed (owner = {}) {
      const held = await ledger.reserve(demandOf({ ...owner, microcredits: ballast }))
      if (!held.granted) throw new Error(`no ${held.reason}`)
      const enough = await least(ballast, 2 ** 45, creditLimit =>
        isGranted(demandOf({ ...owner, microcredits: 1, creditLimit }))
      )
      await ledger.advance(held.id, { to: 'released' })
      return enough - 1 - ballast
    },
    slotsUsed: async (owner = {}) =>
      await least(0, 2000, taskLimit => isGranted(demandOf({ ...owner, microcredits: 0, taskLimit }))) - 1
  }
}

/**
 * The smallest number from 0 to `most` that is enough, looked for where it mostly is, a little above `guess`: each try
 * is two calls of a store.
 */
async function least (guess: number, most: number, isEnough: (limit: number) => Promise<boolean>): Promise<number> {
  let [low, high] = [0, guess]
  for (let step = 1; high < most && !await isEnough(high); step *= 2) {
    [low, high] = [high + 1, Math.min(most, high + step)]
  }
  while (low < high) {
    const middle = Math.floor((low + high) / 2)
    if (await isEnough(middle)) high = middle
    else low = middle + 1
  }
  return low
}
