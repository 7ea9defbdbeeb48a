import type { Extra } from '../../src/domain/ceilings.ts'
import {
  type Abandoned,
  type AbandonRequest,
  type CeilingAccount,
  type Hold,
  type NearEnd,
  type ReserveRequest,
  type Earlier,
  type Completion,
  type IdempotencyKey,
  idempotencyMs,
  type StoredResponse,
  type LedgerTerms,
  type Repeat,
  repeatMs,
  type ReservationId,
  type Reserved,
  type SessionBudget,
  type Stage,
  type Transition
} from '../../src/domain/ledger.ts'
import { hourMs } from '../../src/domain/time.ts'

interface Entry {
  readonly demand: ReserveRequest
  /** What it costs: as it was asked for, or what was used. */
  cost: number
  fromGrants: number
  readonly createdAt: number
  stage: Stage
  taskId: string | undefined
  leaseUntil: number
  refunded: boolean
  /** Let go by the operator: no refund of the period. */
  letGo: boolean
  /** By its owner, while it ran. */
  abandonedAt: number | undefined
  /**
   * Of one without an idempotency key: its caller has gone; until when it is remembered; whom it serves; nobody any
   * more.
   */
  isUndelivered: boolean
  until: number
  takenBy: string | undefined
  isOver: boolean
  answer: StoredResponse | undefined
}

type Granted = Extract<Reserved, { readonly granted: true }>
interface UsedKey extends IdempotencyKey { readonly subject: string, readonly entry: Entry, answer?: StoredResponse }
type Owner = Pick<ReserveRequest, 'subject' | 'periodStart'>

/** A ledger that keeps no sums: credits and slots are counted from the entries each time, so they can not drift. */
export function ledgerModel (terms: LedgerTerms, now: () => number) {
  const entries = new Map<ReservationId, Entry>()
  const grants: Array<{ readonly subject: string, readonly microcredits: number }> = []
  const extras: Extra[] = []
  let keys: UsedKey[] = []
  const all = () => [...entries.values()]
  const sum = (numbers: number[]) => numbers.reduce((one, other) => one + other, 0)
  const charged = (subject: string) => all().filter(({ demand, refunded }) => demand.subject === subject && !refunded)
  const ofOwner = ({ subject, periodStart }: Owner) =>
    all().filter(({ demand }) => demand.subject === subject && demand.periodStart === periodStart)
  const creditsUsed = (owner: Owner) =>
    sum(ofOwner(owner).map(({ cost, fromGrants, refunded }) => refunded ? 0 : cost - fromGrants))
  const creditsGranted = (subject: string) =>
    sum(grants.filter(grant => grant.subject === subject).map(grant => grant.microcredits)) -
    sum(charged(subject).map(({ fromGrants }) => fromGrants))
  const raisedBy = (account: string, isPrepaid: boolean) =>
    sum(extras.filter(extra => extra.account === account && (extra.until === null ? isPrepaid : extra.until > now()))
      .map(extra => extra.microcredits))
  const stateOf = ({ account, window, limit, endsAt }: Hold) => ({
    used: sum(all().map(({ demand: { holds = [] }, refunded, cost }) =>
      !refunded && holds.some(hold => hold.account === account && hold.window === window) ? cost : 0)),
    limit: limit + raisedBy(account, endsAt === null)
  })
  const isUnfinished = ({ stage }: Entry) => stage !== 'settled' && stage !== 'unknown'
  const runningIn = (account: CeilingAccount) =>
    all().filter(entry => isUnfinished(entry) && [...entry.demand.holds ?? [], ...entry.demand.runningLimits ?? []]
      .some(one => one.account === account)).length
  /** Of each account from the outermost on, first its running tasks, and then its windows. */
  const lackAbove = ({ microcredits, holds = [], runningLimits = [] }: ReserveRequest) => {
    for (const level of ['gateway', 'pool', 'plan']) {
      for (const { account, limit } of runningLimits.filter(one => one.account.startsWith(level))) {
        if (runningIn(account) >= limit) return { granted: false, reason: 'running', account } as const
      }
      for (const hold of holds.filter(one => one.account.startsWith(level))) {
        const { account, window, endsAt: resetsAt } = hold
        const { used, limit } = stateOf(hold)
        if (microcredits > 0 && used + microcredits > limit) {
          return { granted: false, reason: 'ceiling', account, window, resetsAt } as const
        }
      }
    }
    return null
  }
  const slotsUsed = ({ subject }: Pick<ReserveRequest, 'subject'>) =>
    all().filter(entry =>
      entry.demand.subject === subject && isUnfinished(entry) && entry.abandonedAt === undefined).length
  const holderOf = (taskId: string) => all().find(entry => entry.taskId === taskId)
  const keyOf = (entry: Entry) => keys.find(key => key.entry === entry)
  const fromGrants = (demand: ReserveRequest): number =>
    Math.min(
      demand.microcredits,
      Math.max(0, creditsUsed(demand) + demand.microcredits - (demand.creditLimit ?? Infinity) - raisedBy(`subject:${demand.subject}`, false))
    )

  /** Of a demand that is granted: of each account that is four fifths used with it, what it leaves. */
  const nearEnds = (demand: ReserveRequest): readonly NearEnd[] => {
    const { subject, microcredits, creditLimit, holds = [] } = demand
    if (microcredits === 0) return []
    const near: NearEnd[] = []
    const limit = creditLimit === null ? Infinity : creditLimit + raisedBy(`subject:${subject}`, false)
    const granted = creditsGranted(subject) - fromGrants(demand)
    const left = Math.max(0, limit - creditsUsed(demand) - microcredits + fromGrants(demand)) + granted
    if (left * 5 <= limit + granted && creditLimit !== null) near.push({ hold: null, left })
    const ofPool = holds.filter(({ account }) => account.startsWith('pool')).flatMap(hold => {
      const { used, limit } = stateOf(hold)
      const left = Math.max(0, limit - used - microcredits)
      return (used + microcredits) * 5 >= limit * 4 ? [{ hold, left }] : []
    })
    const [nearest] = ofPool.sort((one, other) => one.left - other.left)
    return nearest === undefined ? near : [...near, nearest]
  }

  const spentIn = (subject: string, id: string) => {
    const its = all().filter(({ demand }) => demand.subject === subject && demand.session?.id === id)
    return {
      uses: its.filter(({ letGo }) => !letGo).length,
      microcredits: sum(its.map(({ cost, refunded }) => refunded ? 0 : cost))
    }
  }
  const lackOf = (
    { subject, microcredits }: ReserveRequest,
    { id, uses, creditLimit }: SessionBudget
  ): 'uses' | 'credits' | null => {
    const spent = spentIn(subject, id)
    if (spent.uses >= (uses ?? Infinity)) return 'uses'
    return spent.microcredits + microcredits > (creditLimit ?? Infinity) ? 'credits' : null
  }

  const move = (entry: Entry, stage: Stage, leaseMs: number): true => {
    entry.stage = stage
    entry.leaseUntil = now() + leaseMs
    return true
  }

  const lose = (entry: Entry): true => {
    if (entry.stage === 'sent') remember(entry)
    else entry.isOver = true // it never ended, and its caller was told of it long ago
    return move(entry, 'unknown', Infinity)
  }

  const earlier = (subject: string, { key, fingerprint }: IdempotencyKey): Earlier | null => {
    const used = keys.find(one => one.subject === subject && one.key === key)
    if (used === undefined || now() >= used.entry.createdAt + idempotencyMs) return null
    if (used.fingerprint !== fingerprint) return { kind: 'mismatch' }
    if (used.answer !== undefined) return { kind: 'answered', answer: used.answer }
    return outcomeOf(used.entry)
  }
  const outcomeOf = ({ stage, taskId }: Entry): Earlier => {
    if (stage === 'reserved' || stage === 'sent') return { kind: 'pending' }
    return taskId === undefined ? { kind: 'unknown' } : { kind: 'task', taskId }
  }
  const remember = (entry: Entry): void => { entry.until = Math.min(entry.until, now() + repeatMs) }
  const take = (subject: string, { fingerprint, call }: Repeat): Earlier | null => {
    const alike = all().filter(({ demand, isOver, until }) =>
      demand.subject === subject && demand.repeat?.fingerprint === fingerprint && !isOver && until > now())
    const found = alike.find(({ takenBy }) => takenBy === call) ??
      alike.find(({ isUndelivered, until, takenBy }) => (isUndelivered || until < Infinity) && takenBy === undefined)
    if (found === undefined) return null
    found.takenBy = call
    return found.answer !== undefined && found.taskId !== undefined
      ? { kind: 'answered', answer: found.answer }
      : outcomeOf(found)
  }

  const use = (entry: Entry, microcredits: number): boolean => {
    const { demand, cost, fromGrants, stage, taskId, refunded } = entry
    if (taskId !== undefined || refunded) return false
    if (stage !== 'sent' && stage !== 'unknown') return stage === 'settled'
    const most = fromGrants === 0 ? 0 : fromGrants + Math.max(0, creditsGranted(demand.subject))
    entry.fromGrants = Math.min(most, Math.max(0, microcredits - (cost - fromGrants)))
    entry.cost = microcredits
    entry.isOver = true
    return move(entry, 'settled', Infinity)
  }

  const release = (id: ReservationId, entry: Entry, answer?: StoredResponse): true => {
    entries.delete(id)
    if (answer === undefined) keys = keys.filter(key => key.entry !== entry)
    else Object.assign(keyOf(entry) ?? {}, { answer })
    return true
  }

  return {
    creditsUsed,
    creditsGranted,
    slotsUsed,
    spentIn,
    stateOf,
    runningIn,
    extraOf: (subject: string) => raisedBy(`subject:${subject}`, false),
    earlier,
    /** What it is answered; without an id when it is granted. */
    reserve (demand: ReserveRequest): Exclude<Reserved, { granted: true }> | Omit<Granted, 'id'> {
      const { subject, idempotency, repeat } = demand
      const before =
        idempotency !== undefined ? earlier(subject, idempotency) : repeat === undefined ? null : take(subject, repeat)
      if (before !== null) return { granted: false, reason: 'duplicate', earlier: before }
      const above = lackAbove(demand)
      if (above !== null) return above
      if (slotsUsed(demand) >= demand.taskLimit) return { granted: false, reason: 'slot' }
      const lack = demand.session === undefined ? null : lackOf(demand, demand.session)
      if (lack !== null) return { granted: false, reason: lack }
      const needed = fromGrants(demand)
      if (needed > 0 && needed > creditsGranted(demand.subject)) return { granted: false, reason: 'credits' }
      const near = nearEnds(demand)
      return near.length === 0 ? { granted: true } : { granted: true, near }
    },
    add (id: ReservationId, demand: ReserveRequest): void {
      const entry: Entry = {
        demand,
        cost: demand.microcredits,
        fromGrants: fromGrants(demand),
        createdAt: now(),
        stage: 'reserved',
        taskId: undefined,
        leaseUntil: now() + terms.reservedMs,
        refunded: false,
        letGo: false,
        abandonedAt: undefined,
        isUndelivered: false,
        until: Infinity,
        takenBy: undefined,
        isOver: false,
        answer: undefined
      }
      entries.set(id, entry)
      const { subject, idempotency } = demand
      if (idempotency === undefined) return
      keys = keys.filter(key => key.subject !== subject || key.key !== idempotency.key)
      keys.push({ ...idempotency, subject, entry })
    },
    advance (id: ReservationId, step: Transition): boolean {
      const entry = entries.get(id)
      if (entry === undefined) return false
      const { stage } = entry
      switch (step.to) {
        case 'sent': return (stage === 'reserved' || stage === 'sent') && move(entry, 'sent', terms.sentMs)
        case 'released': return (stage === 'reserved' || stage === 'sent') && release(id, entry, step.answer)
        case 'unknown': return stage === 'sent' && lose(entry)
        case 'used': return use(entry, step.microcredits)
        case 'claimed': {
          const isRepeated = entry.taskId === step.taskId
          const mayClaim =
            (stage === 'sent' || stage === 'unknown') &&
            entry.taskId === undefined &&
            holderOf(step.taskId) === undefined
          if (!isRepeated && !mayClaim) return false
          const key = keyOf(entry)
          if (key !== undefined && step.answer !== undefined) key.answer ??= step.answer
          entry.answer ??= step.answer
          if (entry.isUndelivered) remember(entry)
          if (isRepeated) return true
          entry.taskId = step.taskId
          return move(entry, 'claimed', terms.giveUpMs)
        }
      }
    },
    settle ({ taskId, state }: Pick<Completion, 'taskId' | 'state'>): boolean {
      const entry = holderOf(taskId)
      if (entry === undefined || entry.stage === 'settled') return false
      const refunds = ofOwner(entry.demand).filter(({ refunded, letGo }) => refunded && !letGo).length
      if (state === 'failed' && entry.demand.refundable && refunds < terms.refundsPerPeriod) entry.refunded = true
      return move(entry, 'settled', Infinity)
    },
    abandon ({ taskId, mostPerHour }: AbandonRequest): Abandoned {
      const entry = holderOf(taskId)
      if (entry?.stage !== 'claimed') return { result: 'ended' }
      if (entry.abandonedAt === undefined) {
        const inTheHour = all()
          .filter(({ demand }) => demand.subject === entry.demand.subject)
          .map(({ abandonedAt }) => abandonedAt ?? -Infinity)
          .filter(at => at > now() - hourMs)
        const nth = inTheHour.sort((one, other) => other - one)[mostPerHour - 1]
        if (nth !== undefined) return { result: 'limited', retryAt: nth + hourMs }
        entry.abandonedAt = now()
      }
      return { result: 'abandoned', at: entry.abandonedAt }
    },
    letGo (id: ReservationId): boolean {
      const entry = entries.get(id)
      if (entry === undefined || entry.stage !== 'unknown' || entry.refunded) return false
      keys = keys.filter(key => key.entry !== entry)
      entry.letGo = true
      entry.isOver = true
      entry.refunded = true
      return true
    },
    take,
    end (subject: string, { fingerprint, call }: Repeat, isDelivered: boolean): void {
      // A call that had one which is forgotten by now may have taken another.
      for (const entry of all()) {
        const { demand, takenBy } = entry
        if (demand.subject !== subject || demand.repeat?.fingerprint !== fingerprint || takenBy !== call) continue
        if (isDelivered) entry.isOver = true
        else entry.takenBy = undefined
      }
    },
    /** Whether its caller may have been told of a task. */
    mayBeDelivered (id: ReservationId): boolean {
      const entry = entries.get(id)
      return entry?.taskId !== undefined && entry.until === Infinity && !entry.isUndelivered
    },
    delivered (id: ReservationId): void { entries.get(id)!.isOver = true },
    undelivered (id: ReservationId, answer?: StoredResponse): void {
      const entry = entries.get(id)
      if (entry === undefined || entry.isOver) return
      entry.isUndelivered = true
      entry.answer ??= answer
      if (entry.stage === 'claimed' || entry.stage === 'settled') remember(entry)
    },
    raise (extra: Extra): number {
      extras.push(extra)
      const { account, until } = extra
      return until !== null
        ? raisedBy(account, false)
        : sum(extras.map(one => one.account === account && one.until === null ? one.microcredits : 0))
    },
    grant (subject: string, microcredits: number): number {
      grants.push({ subject, microcredits })
      return creditsGranted(subject)
    },
    sweep (): { released: number, unknown: number } {
      const late = [...entries].filter(
        ([, { stage, leaseUntil }]) => leaseUntil <= now() && stage !== 'settled' && stage !== 'unknown'
      )
      const lapsed = late.filter(([, { stage }]) => stage === 'reserved')
      for (const [id, entry] of late) {
        if (entry.stage === 'reserved') release(id, entry)
        else lose(entry)
      }
      return { released: lapsed.length, unknown: late.length - lapsed.length }
    }
  }
}
