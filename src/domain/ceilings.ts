import type { CeilingAccount, Hold } from './ledger.ts'
import type { Microcredits } from './policy.ts'

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
