import { leftIn, levelOf } from '../domain/ceilings.ts'
import { creditsFrom, creditsLeft, type CeilingAccount, leastLeft, nothingSpent } from '../domain/ledger.ts'
import { type Microcredits, periodAt } from '../domain/policy.ts'
import { instant } from '../domain/time.ts'
import type { SessionRequestState } from './context.ts'
import type { Services } from './services.ts'
import { aboveOf } from './stages.ts'

/** What an account above a caller has left, in the window that has least; Unix ms, `null`: it never begins anew. */
export interface LeftAbove {
  readonly account: CeilingAccount
  readonly window: string
  readonly left: Microcredits
  readonly resetsAt: number | null
}

type Caller = Pick<SessionRequestState, 'session' | 'plan'>

/** Of each account above the caller that has ceilings, the outermost first. */
export async function leftAbove (
  { ceilings, clock }: Pick<Services, 'ceilings' | 'clock'>, call: Caller
): Promise<readonly LeftAbove[]> {
  const holds = aboveOf(ceilings, call, clock.now())?.holds ?? []
  if (ceilings === null || holds.length === 0) return []
  const states = await ceilings.stateOf(holds)
  const all = holds.map(({ account, window, endsAt: resetsAt }, index) =>
    ({ account, window, left: leftIn(states[index]!), resetsAt }))
  return [...Map.groupBy(all, ({ account }) => account).values()].map(windows =>
    windows.reduce((least, window) => window.left < least.left ? window : least))
}

type LeftServices = Pick<Services, 'accounts' | 'ceilings' | 'clock'>

/**
 * What the caller may still spend: the least of what its subject, its session and all that is above them have left.
 * `null` is unlimited.
 */
export async function creditsLeftIn (services: LeftServices, call: Caller): Promise<Microcredits | null> {
  const { session, plan } = call
  const { accounts, clock } = services
  const [balance, spent, above] = await Promise.all([
    accounts.balanceOf(session.subject, periodAt(plan.period, clock.now()).start),
    session.credits === null ? nothingSpent : accounts.spentIn(session.subject, session.rootId),
    leftAbove(services, call)
  ])
  const own = leastLeft(creditsLeft(plan, balance), session.credits, spent.microcredits)
  return above.length === 0 ? own : Math.min(own ?? Infinity, ...above.map(({ left }) => left))
}

/**
 * What a caller is told of the accounts above it: what is left of its own pool, and of its plan and the whole gateway
 * only where they have less than it has itself, for then that is what its next submit meets. Never what others have
 * used, nor a limit.
 */
export function shownAbove (above: readonly LeftAbove[], own: Microcredits | null) {
  return above
    .filter(({ account, left }) => levelOf(account) === 'pool' || own === null || left < own)
    .map(({ account, left, resetsAt }) =>
      ({ level: levelOf(account), left: creditsFrom(left), resetsAt: resetsAt === null ? null : instant(resetsAt) }))
}
