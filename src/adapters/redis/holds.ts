import { randomBytes } from 'node:crypto'
import { type CeilingAccounts, levelOf } from '../../domain/ceilings.ts'
import {
  type CeilingAccount, type LedgerTerms, type NearEnd, type Reserved, type ReserveRequest, tooMuchGranted
} from '../../domain/ledger.ts'
import type { Commands, Reply } from './client.ts'
import { decoded, encoded, keptFor, type KeyNames } from './keys.ts'
import type { HoldState, KeyRequests, ReserveFields } from './scripts.ts'

/**
 * What reservations take from the accounts above their subjects. Each account stands in a slot of its own, so no script
 * sees it together with a subject, and a replica may die between any two of them. No ceiling is passed by that:
 *
 * 1. A hold is taken in each account under a name that nothing else has: in all of them at once, and if one has no
 *    room, again from the outermost inwards. Then the reservation is made, which knows the name. Nothing is sent before
 *    all of that is done, and what is refused at one place is given back at all of them.
 * 2. The subject decides: a hold is as its reservation is. Each script that changes that says so in its answer, and the
 *    replica that has asked passes it on. Said twice it changes nothing.
 * 3. A hold has a lease. When that ends, the subject is asked by the name of the hold. If it knows none, it never will:
 *    the name is dead from then on, and the hold is given back. Else the account hears what a replica that died could
 *    not pass on. No clock has a say in this.
 *
 * So an account has at least what its reservations have, and soon no more than that. Close to a ceiling, a submit may
 * be refused for a hold that is about to be given back.
 */
export interface Holds {
  /** Takes what these, all of one subject, draw on above it, or nothing. Throws `GW_STORE_DOWN`; then it lapses. */
  take (demands: readonly ReserveRequest[]): Promise<Taken | Lack>
  /** Their reservations were not made. */
  giveBack (taken: Taken): Promise<void>
  /** Sees to holds whose lease has ended. */
  sweep (): Promise<void>
}

type Lack = Extract<Reserved, { readonly reason: 'ceiling' | 'running' }>

/** `near`: what is nearly used up, of a pool. */
interface Room {
  readonly granted: true
  readonly near: readonly NearEnd[]
}

interface Taken extends Room {
  readonly subject: string
  /** What each reservation is told of its hold; absent for one that has none. */
  readonly holds: ReadonlyArray<ReserveFields['hold']>
}

/** An account, and what draws on it. */
interface Draw { readonly account: CeilingAccount, readonly demands: readonly Named[] }
interface Named { readonly demand: ReserveRequest, readonly name: string }

const none = [] as const

/** Whether a submit takes anything above its subject. */
export function drawsAbove ({ holds = none, runningLimits = none }: ReserveRequest): boolean {
  return holds.length + runningLimits.length > 0
}

interface HoldsOptions { readonly terms: LedgerTerms, readonly now: () => number }

export function redisHolds (commands: Commands, keys: KeyNames, { terms, now }: HoldsOptions): Holds {
  const { on, ask } = commands
  /** Accounts that had no room a moment ago. */
  const fullUntil = new Map<CeilingAccount, number>()
  const { passOn, resolve } = messenger(commands, keys, now)
  const takeFrom = taking(commands, keys, { terms, now })

  const giveBackTo = async (subject: string, draws: readonly Draw[]): Promise<void> => {
    for (const { account, demands } of draws.toReversed()) {
      await passOn(subject, demands.map(({ name }) => ({ name, accounts: [account], to: 'closed', cost: 0 })))
    }
  }
  /** From the outermost account inwards: of several that come at once with room for one, one gets through. */
  const takeInOrder = async (subject: string, draws: readonly Draw[]): Promise<Lack | Room> => {
    const near: NearEnd[] = []
    for (const [index, draw] of draws.entries()) {
      let reply = await takeFrom(subject, draw)
      if (!isRoom(reply) && reply[3].length > 0) {
        await resolve(draw.account, reply[3].map(String))
        reply = await takeFrom(subject, draw)
      }
      if (isRoom(reply)) {
        near.push(...reply.near)
        continue
      }
      fullUntil.set(draw.account, now() + fullMs)
      await giveBackTo(subject, draws.slice(0, index))
      return lackFrom(draw, reply)
    }
    return { granted: true, near }
  }
  /**
   * From all accounts at once. With room in all of them nobody is refused; else two that come at once may refuse each
   * other, and have to queue.
   */
  const takeAtOnce = async (subject: string, draws: readonly Draw[]): Promise<Room | null> => {
    const isFull = draws.some(({ account }) => now() < (fullUntil.get(account) ?? -Infinity))
    if (isFull || draws.length === 1) return null
    const replies = await Promise.all(draws.map(draw => takeFrom(subject, draw)))
    const taken = replies.filter(isRoom)
    if (taken.length === draws.length) return { granted: true, near: taken.flatMap(({ near }) => near) }
    await giveBackTo(subject, draws.filter((_, index) => isRoom(replies[index]!)))
    return null
  }

  return {
    async take (demands) {
      const { subject } = demands[0]!
      const hasted = named(demands)
      const room = await takeAtOnce(subject, drawsOf(hasted))
      if (room !== null) return takenFrom(subject, hasted, room)
      // Under other names: what gives the first ones back may be late.
      const queued = named(demands)
      const found = await takeInOrder(subject, drawsOf(queued))
      return found.granted ? takenFrom(subject, queued, found) : found
    },
    async giveBack ({ subject, holds }) {
      await passOn(subject, holds.filter(hold => hold !== undefined).map(({ name, accounts }) =>
        ({ name, accounts: accountsIn(accounts), to: 'closed', cost: 0 })))
    },
    async sweep () {
      for (const account of await ask(client => client.smembers(keys.ceilings))) {
        const key = keys.holdsOf(decoded(account) as CeilingAccount)
        let due
        do {
          due = await on(key, 'dueHolds', { now: now(), limit: sweptAtOnce }) as Buffer[]
          await resolve(decoded(account) as CeilingAccount, due.map(String))
        } while (due.length >= sweptAtOnce)
      }
    }
  }
}

type TakeFrom = (subject: string, draw: Draw) => Promise<Refusal | Room>

function taking ({ on, ask }: Commands, keys: KeyNames, { terms, now }: HoldsOptions): TakeFrom {
  const announced = new Set<CeilingAccount>()

  /** Before its first hold, so that every replica's sweep finds it. */
  const announce = async (account: CeilingAccount): Promise<void> => {
    if (announced.has(account)) return
    await ask(client => client.sadd(keys.ceilings, encoded(account)))
    announced.add(account)
  }
  return async (subject, draw) => {
    const { account, demands } = draw
    await announce(account)
    const at = now()
    const submits = demands.map(({ demand, name }) => submitFrom(account, demand, memberOf(subject, name), at, terms))
    const request = { now: at, dueAt: at + terms.reservedMs, tellsEnd: levelOf(account) === 'pool', submits }
    const reply = await on(keys.holdsOf(account), 'takeHolds', request) as Refusal | Near | 1
    if (reply === 1) return { granted: true, near: none }
    return isNear(reply) ? { granted: true, near: [nearEndFrom(draw, reply)] } : reply
  }
}

const sweptAtOnce = 100
/** From an account that had no room, holds are taken in order for so long, ms. */
const fullMs = 10_000

function named (demands: readonly ReserveRequest[]): Named[] {
  return demands.map(demand => ({ demand, name: randomBytes(12).toString('base64url') }))
}

function takenFrom (subject: string, demands: readonly Named[], { near }: Room): Taken {
  return { granted: true, near, subject, holds: demands.map(holdFrom) }
}

/** A hold as an account knows it. */
export function memberOf (subject: string, name: string): string {
  return `${encoded(subject)}#${name}`
}

/** The accounts of a request, from the outermost to the innermost. */
function accountsOf ({ holds = none, runningLimits = none }: ReserveRequest): readonly CeilingAccount[] {
  const accounts = new Set<CeilingAccount>([...holds, ...runningLimits].map(({ account }) => account))
  return [...accounts].sort((one, other) => levels.indexOf(levelOf(one)) - levels.indexOf(levelOf(other)))
}

const levels = ['gateway', 'pool', 'plan']

function drawsOf (demands: readonly Named[]): Draw[] {
  const draws = new Map<CeilingAccount, Named[]>()
  for (const one of demands) {
    for (const account of accountsOf(one.demand)) draws.set(account, [...draws.get(account) ?? [], one])
  }
  return [...draws].map(([account, demands]) => ({ account, demands }))
}

/** What the reservation keeps: each account, and the windows in it. */
function holdFrom ({ demand, name }: Named): ReserveFields['hold'] {
  if (!drawsAbove(demand)) return undefined
  const { holds = none } = demand
  const accounts = accountsOf(demand).map(account =>
    [account, ...holds.filter(hold => hold.account === account).map(({ window }) => window)])
  return { name, accounts: JSON.stringify(accounts) }
}

function accountsIn (text: string): readonly CeilingAccount[] {
  return windowsIn(text).map(([account]) => account)
}

type Windows = readonly [account: CeilingAccount, ...windows: string[]]

function windowsIn (text: string): readonly Windows[] {
  return JSON.parse(text) as readonly Windows[]
}

/** What a row keeps of its hold. */
export function holdFromRow (text: string): { readonly name: string, readonly accounts: readonly Windows[] } {
  const space = text.indexOf(' ')
  return { name: text.slice(0, space), accounts: windowsIn(text.slice(space + 1)) }
}

function submitFrom (
  account: CeilingAccount, demand: ReserveRequest, name: string, at: number, { retentionMs }: LedgerTerms
): KeyRequests['takeHolds']['submits'][number] {
  const { microcredits, runningLimits = none } = demand
  return {
    name,
    cost: microcredits,
    runningLimit: runningLimits.find(limit => limit.account === account)?.limit,
    windows: holdsIn(account, demand).map(({ window, endsAt, limit }) => ({
      window: encoded(window),
      limit,
      isPrepaid: endsAt === null,
      keptMs: endsAt === null ? undefined : keptFor(endsAt + retentionMs - at)
    }))
  }
}

type Refusal = readonly [word: Buffer, submit: number, window: number, due: readonly Buffer[]]

type Near = readonly [taken: Buffer, window: number, left: Buffer]

function isNear (reply: Refusal | Near): reply is Near {
  return String(reply[0]) === 'taken'
}

function isRoom (found: Refusal | Room): found is Room {
  return 'granted' in found
}

function nearEndFrom ({ account, demands }: Draw, [, index, left]: Near): NearEnd {
  return { hold: holdsIn(account, demands[0]!.demand)[index]!, left: Number(left) }
}

function holdsIn (account: CeilingAccount, { holds = none }: ReserveRequest) {
  return holds.filter(hold => hold.account === account)
}

function lackFrom ({ account, demands }: Draw, [word, submit, index]: Refusal): Lack {
  if (String(word) === 'running') return { granted: false, reason: 'running', account }
  const { window, endsAt: resetsAt } = holdsIn(account, demands[submit]!.demand)[index]!
  return { granted: false, reason: 'ceiling', account, window, resetsAt }
}

/** How the reservation of a hold is, for the accounts that it was taken in. */
interface Change extends Pick<HoldState, 'name' | 'to' | 'cost'> { readonly accounts: readonly CeilingAccount[] }

/**
 * When a subject is asked about a reservation that runs, and about one that is unknown, ms: far sooner than its row is
 * forgotten.
 */
export const askAfterMs = { running: 300_000, idle: 1_200_000, closed: 0 } as const

function messenger ({ on, ofSubject }: Commands, keys: KeyNames, now: () => number) {
  const tell = async (account: CeilingAccount, states: ReadonlyArray<Omit<HoldState, 'dueAt'>>): Promise<void> => {
    const at = now()
    const holds = states.map(({ name, to, cost }) => ({ name, to, cost, dueAt: at + askAfterMs[to] }))
    await on(keys.holdsOf(account), 'setHolds', { holds })
  }
  const ask = async (account: CeilingAccount, subject: string, names: readonly string[]): Promise<void> => {
    const found = await ofSubject(subject, 'resolveHolds', { names }) as ReadonlyArray<readonly [Buffer, Buffer]>
    await tell(account, found.map((state, index) => ({ name: memberOf(subject, names[index]!), ...stateFrom(state) })))
  }

  return {
    /** What an account does not hear, for whatever reason, it asks for later: the step has been taken. */
    async passOn (subject: string, changes: readonly Change[]): Promise<void> {
      const byAccount = new Map<CeilingAccount, Array<Omit<HoldState, 'dueAt'>>>()
      for (const { name, to, cost, accounts } of changes) {
        const state = { name: memberOf(subject, name), to, cost }
        for (const account of accounts) byAccount.set(account, [...byAccount.get(account) ?? [], state])
      }
      await Promise.all([...byAccount].map(([account, states]) => tell(account, states).catch(() => {})))
    },
    /** Asks the subjects of these holds about them, and tells the account. */
    async resolve (account: CeilingAccount, members: readonly string[]): Promise<void> {
      const bySubject = Map.groupBy(members, member => member.slice(0, member.lastIndexOf('#')))
      await Promise.all([...bySubject].map(([subject, its]) =>
        ask(account, decoded(subject), its.map(member => member.slice(subject.length + 1)))))
    }
  }
}

function stateFrom ([to, cost]: readonly [Buffer, Buffer]): Pick<HoldState, 'to' | 'cost'> {
  return { to: String(to) as HoldState['to'], cost: cost.length === 0 ? undefined : Number(cost) }
}

/**
 * The commands, but what a script of a subject says of its holds is passed on before it has an answer. Without holds no
 * script says any.
 */
export function passingOn (commands: Commands, keys: KeyNames, now: () => number): Commands {
  const { on, ask, ofSubject } = commands
  const { passOn } = messenger(commands, keys, now)
  return {
    on,
    ask,
    async ofSubject (subject, script, request, body) {
      const reply = await ofSubject(subject, script, request, body)
      if (!isOwed(reply)) return reply
      await passOn(subject, reply[2].map(([hold, ...state]) => changeFrom(String(hold), state)))
      return reply[1]
    }
  }
}

type Owed = readonly [
  word: Buffer, reply: Reply, changes: ReadonlyArray<readonly [hold: Buffer, to: Buffer, cost: Buffer]>
]

function isOwed (reply: Reply): reply is Owed {
  return Array.isArray(reply) && Array.isArray(reply[2]) && String(reply[0]) === 'owed'
}

function changeFrom (hold: string, state: readonly [Buffer, Buffer]): Change {
  const { name, accounts } = holdFromRow(hold)
  return { name, accounts: accounts.map(([account]) => account), ...stateFrom(state) }
}

export function redisCeilings (
  { on, ofSubject }: Commands, keys: KeyNames, { terms, now }: HoldsOptions
): CeilingAccounts {
  return {
    stateOf: holds => Promise.all(holds.map(async ({ account, window, endsAt, limit }) => {
      const request = { now: now(), window: encoded(window), isPrepaid: endsAt === null }
      const [, used, raised] = (await on(keys.holdsOf(account), 'readAccount', request) as Reply[]).map(Number)
      const isForgotten = endsAt !== null && endsAt + terms.retentionMs <= now()
      return { used: isForgotten ? 0 : used!, limit: limit + raised! }
    })),
    async runningIn (account) {
      const [running] = await on(keys.holdsOf(account), 'readAccount', { now: now() }) as Reply[]
      return Number(running)
    },
    async raise ({ account, microcredits, until }) {
      const at = now()
      const given = { name: randomBytes(12).toString('base64url'), microcredits, limit: Number.MAX_SAFE_INTEGER }
      const extra = { ...given, endsAt: until ?? at, keptMs: keptFor((until ?? at) - at) }
      const all = isOfSubject(account)
        ? await ofSubject(account.slice('subject:'.length), 'raiseSubject', extra)
        : await on(keys.holdsOf(account), 'raiseAccount', { now: at, given: until === null ? given : extra })
      if (all === null) throw tooMuchGranted()
      return Number(all)
    }
  }
}

function isOfSubject (account: string): account is `subject:${string}` {
  return account.startsWith('subject:')
}
