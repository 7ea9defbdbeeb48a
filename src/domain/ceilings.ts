import type { CeilingAccount, Hold, ReserveRequest, RunningLimit } from './ledger.ts'
import { microcredits, type Microcredits } from './policy.ts'
import { type WindowKind, type WindowRule, windowAt } from './windows.ts'

/** What can be given more than the settings say. */
export type ExtraAccount = `subject:${string}` | Exclude<CeilingAccount, `plan:${string}`>

/**
 * Credits that the operator gives on top of the settings.
 *
 * With an end it is a temporary extra: until then each limit of the account is that much higher, in every window; of a
 * subject, that of its period. Without one it is a grant, for a pool or the gateway: it raises what is prepaid,
 * the window that never ends, and that alone. (A subject's grants are `CreditAccounts.grant`.)
 */
export interface Extra {
  readonly account: ExtraAccount
  /** Above zero. */
  readonly microcredits: Microcredits
  /** Unix ms; `null`: a grant. */
  readonly until: number | null
}

/** How a window of an account above the subjects is. */
export interface WindowState {
  /** What is set aside for unfinished tasks included. */
  readonly used: Microcredits
  /** Of the settings, and what the operator gave on top. */
  readonly limit: Microcredits
}

/**
 * The accounts above the subjects. `used` of a window is the sum of `microcredits` of all rows that hold it and are not
 * refunded, whether or not they have ended; the count of an account is that of its unfinished rows.
 *
 * Every method is one atomic step and throws `GW_STORE_DOWN`.
 */
export interface CeilingAccounts {
  /** Of each of these windows, in their order. */
  stateOf (holds: readonly Hold[]): Promise<readonly WindowState[]>
  /** How many unfinished tasks the account has: of those that were made under a ceiling or a limit of it. */
  runningIn (account: CeilingAccount): Promise<number>
  /**
   * Gives an account more; resolves, when that is on disk, to all that it has of that kind now. Throws
   * `GW_BAD_REQUEST`, and gives nothing, when that would be more than can be counted.
   */
  raise (extra: Extra): Promise<Microcredits>
}

/** What is left in a window. Never below zero, though a ceiling that was lowered may have been passed before. */
export function leftIn ({ used, limit }: WindowState): Microcredits {
  return Math.max(0, limit - used)
}

/** Which of the three levels an account is of. */
export function levelOf (account: CeilingAccount): 'gateway' | 'pool' | 'plan' {
  if (account === 'gateway') return account
  return account.startsWith('pool:') ? 'pool' : 'plan'
}

/** What the operator has set for a plan, a pool or the gateway. */
interface LevelRules {
  /** Credits of each window. */
  readonly ceilings: Readonly<Partial<Record<WindowKind, number | undefined>>>
  readonly zone: string
  readonly resetHour: number
}

/** And for one whose unfinished tasks are counted together. */
interface CountedRules extends LevelRules {
  readonly concurrentTasks?: number | undefined
}

/** What a submit draws on above its subject: a part of a `ReserveRequest`. */
export type Above = Required<Pick<ReserveRequest, 'holds' | 'runningLimits'>>

/** What a request draws on above its subject. */
export interface Ceilings {
  /** Of a session of that plan and pool, at `now` (Unix ms). */
  above (plan: string, pool: string | null, now: number): Above
  /** Every window that has a ceiling, at `now` (Unix ms). */
  all (now: number): readonly Hold[]
}

export interface CeilingRules {
  readonly gateway: CountedRules
  readonly pools: Readonly<Record<string, CountedRules>>
  readonly plans: Readonly<Record<string, LevelRules>>
}

/** Of several windows that have no room, the one that lasts longest is told. */
const longestFirst: readonly WindowKind[] = ['none', 'month', 'week', 'day', 'hour']

/** What is set for one account. */
interface Level {
  readonly windows: ReadonlyArray<{ readonly rule: WindowRule, readonly hold: Pick<Hold, 'account' | 'limit'> }>
  readonly running: readonly RunningLimit[]
}

/** `null`: nothing is set above the subjects, and nothing is paid for it. */
export function ceilings ({ gateway, pools, plans }: CeilingRules): Ceilings | null {
  const levels = new Map<CeilingAccount, Level>()
  const add = (account: CeilingAccount, rules: LevelRules, running: readonly RunningLimit[]): void => {
    const windows = windowsOf(account, rules)
    if (windows.length + running.length > 0) levels.set(account, { windows, running })
  }
  add('gateway', gateway, runningIn('gateway', gateway))
  for (const [name, rules] of Object.entries(pools)) add(`pool:${name}`, rules, runningIn(`pool:${name}`, rules))
  for (const [name, rules] of Object.entries(plans)) add(`plan:${name}`, rules, [])
  if (levels.size === 0) return null
  return { above: remembered(levels), all: now => holdsOf([...levels.values()], now) }
}

function holdsOf (levels: readonly Level[], now: number): readonly Hold[] {
  return levels.flatMap(({ windows }) => windows.map(({ rule, hold }): Hold => {
    const { id: window, endsAt } = windowAt(rule, now)
    return { ...hold, window, endsAt }
  }))
}

/** The same for all requests of a plan and a pool, until one of their windows ends or the clock is put back. */
function remembered (levels: ReadonlyMap<CeilingAccount, Level>): Ceilings['above'] {
  const made = new Map<string, { readonly above: Above, readonly from: number, readonly until: number }>()
  return (plan, pool, now) => {
    const name = `${plan}\n${pool ?? ''}`
    const known = made.get(name)
    if (known !== undefined && now >= known.from && now < known.until) return known.above
    const ofPool = pool === null ? [] : [`pool:${pool}` as const]
    const accounts: readonly CeilingAccount[] = ['gateway', ...ofPool, `plan:${plan}`]
    const its = accounts.flatMap(account => levels.get(account) ?? [])
    const holds = holdsOf(its, now)
    const above = { holds, runningLimits: its.flatMap(({ running }) => running) }
    made.set(name, { above, from: now, until: Math.min(...holds.map(({ endsAt }) => endsAt ?? Infinity)) })
    return above
  }
}

function windowsOf (account: CeilingAccount, { ceilings, zone, resetHour }: LevelRules): Level['windows'] {
  return longestFirst.flatMap(kind => {
    const credits = ceilings[kind]
    return credits === undefined
      ? []
      : [{ rule: { kind, zone, resetHour }, hold: { account, limit: microcredits(credits) } }]
  })
}

function runningIn (account: RunningLimit['account'], { concurrentTasks }: CountedRules): readonly RunningLimit[] {
  return concurrentTasks === undefined ? [] : [{ account, limit: concurrentTasks }]
}
