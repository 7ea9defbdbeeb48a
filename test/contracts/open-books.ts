import type { Test } from 'tap'
import type { ReserveRequest, LedgerTerms, ReservationId, Stage, Transition } from '../../src/domain/ledger.ts'
import type { Store } from '../../src/domain/store.ts'
import { type Clock, clock } from '../helpers/clock.ts'
import { balance, type Balance, demandOf } from './ledger-balance.ts'

/** Opens an empty store that ends with its test. */
export type OpenStore = (
  t: Test,
  setup: { readonly terms: LedgerTerms, readonly now: () => number, readonly elapsed?: () => number }
) => Promise<Store> | Store

export const terms: LedgerTerms = {
  reservedMs: 30_000, sentMs: 140_000, giveUpMs: 86_400_000, refundsPerPeriod: 3, retentionMs: 30 * 86_400_000
}
export const { periodStart } = demandOf()
export const sent = { to: 'sent', keyId: 'key-1' } as const
export const answer = Buffer.from('{"code":200}')

/** A stage, or no longer there, or unknown in one of its two ways. */
export type Place = Stage | 'released' | 'given up'
export const places: readonly Place[] = ['reserved', 'sent', 'claimed', 'settled', 'unknown', 'given up', 'released']

/** The steps that every reservation of a task may take. */
type Step = Exclude<Transition['to'], 'used'>
const ways: Readonly<Record<Place, readonly Step[]>> = {
  reserved: [],
  sent: ['sent'],
  claimed: ['sent', 'claimed'],
  settled: ['sent', 'claimed'],
  unknown: ['sent', 'unknown'],
  'given up': ['sent', 'claimed'],
  released: ['sent', 'released']
}

/** An empty store, its clock, and ways to get somewhere. */
export interface Fixture extends Store, Balance {
  readonly time: Clock
  reserve (more?: Partial<ReserveRequest>): Promise<ReservationId>
  /** A reservation at that stage; its task, when it has one, is `task`. */
  at (place: Place, more?: Partial<ReserveRequest>, task?: string): Promise<ReservationId>
  /** As often as a store may need to get through what tests have made. */
  tidyAll (): Promise<void>
}

export function stepTo (to: Step, taskId: string): Transition {
  if (to === 'sent') return sent
  return to === 'claimed' ? { to, taskId } : { to }
}

export async function openBooks (t: Test, open: OpenStore, more: Partial<LedgerTerms> = {}): Promise<Fixture> {
  const time = clock()
  const store = await open(t, { terms: { ...terms, ...more }, now: time.now, elapsed: time.elapsed })
  const { ledger } = store
  const reserve = async (more: Partial<ReserveRequest> = {}): Promise<ReservationId> => {
    const reserved = await ledger.reserve(demandOf(more))
    if (!reserved.granted) throw new Error(`no ${reserved.reason}`)
    return reserved.id
  }
  return {
    ...store,
    ...balance(ledger),
    time,
    reserve,
    async at (place, more = {}, task = 'task') {
      const id = await reserve(more)
      for (const to of ways[place]) await ledger.advance(id, stepTo(to, task))
      if (place === 'settled') await ledger.settle({ taskId: task, state: 'success', answer })
      if (place === 'given up') {
        time.advance(terms.giveUpMs)
        await ledger.sweep()
      }
      return id
    },
    async tidyAll () { for (let count = 0; count < 10; count++) await store.tidy() }
  }
}
