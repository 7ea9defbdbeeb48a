import type { Demand, Ending, LedgerTerms, ReservationId, Reserved, Stage, Step } from '../../src/domain/ledger.ts'

interface Entry {
  readonly demand: Demand
  stage: Stage
  taskId: string | undefined
  leaseUntil: number
  refunded: boolean
}

type Owner = Pick<Demand, 'subject' | 'periodStart'>

/** A ledger that keeps no sums: credits and slots are counted from the entries each time, so they can not drift. */
export function ledgerModel (terms: LedgerTerms, now: () => number) {
  const entries = new Map<ReservationId, Entry>()
  const all = () => [...entries.values()]
  const ofOwner = ({ subject, periodStart }: Owner) =>
    all().filter(({ demand }) => demand.subject === subject && demand.periodStart === periodStart)
  const creditsUsed = (owner: Owner) =>
    ofOwner(owner).reduce((sum, { demand, refunded }) => sum + (refunded ? 0 : demand.microcredits), 0)
  const slotsUsed = ({ subject }: Pick<Demand, 'subject'>) =>
    all().filter(({ demand, stage }) => demand.subject === subject && stage !== 'settled' && stage !== 'unknown').length
  const holderOf = (taskId: string) => all().find(entry => entry.taskId === taskId)

  const move = (entry: Entry, stage: Stage, leaseMs: number): true => {
    entry.stage = stage
    entry.leaseUntil = now() + leaseMs
    return true
  }

  return {
    creditsUsed,
    slotsUsed,
    /** What is lacking, or `null`. */
    lacks (demand: Demand): Extract<Reserved, { granted: false }>['lacks'] | null {
      if (slotsUsed(demand) >= demand.taskLimit) return 'slot'
      return creditsUsed(demand) + demand.microcredits > (demand.creditLimit ?? Infinity) ? 'credits' : null
    },
    add (id: ReservationId, demand: Demand): void {
      entries.set(id, { demand, stage: 'reserved', taskId: undefined, leaseUntil: now() + terms.reservedMs, refunded: false })
    },
    advance (id: ReservationId, step: Step): boolean {
      const entry = entries.get(id)
      if (entry === undefined) return false
      const { stage } = entry
      switch (step.to) {
        case 'sent': return (stage === 'reserved' || stage === 'sent') && move(entry, 'sent', terms.sentMs)
        case 'released': return (stage === 'reserved' || stage === 'sent') && entries.delete(id)
        case 'unknown': return stage === 'sent' && move(entry, 'unknown', Infinity)
        case 'claimed': {
          if (entry.taskId === step.taskId) return true
          const mayClaim = (stage === 'sent' || stage === 'unknown') && entry.taskId === undefined && holderOf(step.taskId) === undefined
          if (mayClaim) entry.taskId = step.taskId
          return mayClaim && move(entry, 'claimed', terms.giveUpMs)
        }
      }
    },
    settle ({ taskId, state }: Pick<Ending, 'taskId' | 'state'>): boolean {
      const entry = holderOf(taskId)
      if (entry === undefined || entry.stage === 'settled') return false
      const refunds = ofOwner(entry.demand).filter(({ refunded }) => refunded).length
      entry.refunded = state === 'failed' && entry.demand.refundable && refunds < terms.refundsPerPeriod
      return move(entry, 'settled', Infinity)
    },
    sweep (): { released: number, unknown: number } {
      const late = [...entries].filter(([, { stage, leaseUntil }]) => leaseUntil <= now() && stage !== 'settled' && stage !== 'unknown')
      const lapsed = late.filter(([, { stage }]) => stage === 'reserved')
      for (const [id, entry] of late) {
        if (entry.stage === 'reserved') entries.delete(id)
        else move(entry, 'unknown', Infinity)
      }
      return { released: lapsed.length, unknown: late.length - lapsed.length }
    }
  }
}
