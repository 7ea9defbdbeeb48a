import { leftIn, levelOf } from '../domain/ceilings.ts'
import type { CreditsEvent } from '../domain/credit-notices.ts'
import {
  creditsFrom, creditsLeft, type CeilingAccount, leastLeft, type NearEnd, nothingSpent
} from '../domain/ledger.ts'
import { type Microcredits, periodAt } from '../domain/policy.ts'
import { instant } from '../domain/time.ts'
import { creditsHeader, type RequestContext, type SessionRequestState } from './context.ts'
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

/** The pool that a caller draws on; `null`: none. */
export function poolOf ({ session, plan }: Caller): string | null {
  return session.pool ?? plan.pool
}

/**
 * Tells a caller whose submit was accepted that its own credits, or its pool's, are nearly used up: with each such
 * submit by a header, and once for each step by an event. Not how much others have used, nor a limit.
 *
 * The header is a list of RFC 9651, `subject;used=80;left=12.5;reset=3600, pool;used=100;left=0`: `used` is the step
 * that was reached, per cent; `left` in credits, rounded down to what that RFC can write; `reset` in seconds.
 */
export function tellNearEnds (
  { creditNotices, clock }: Pick<Services, 'creditNotices' | 'clock'>,
  near: readonly NearEnd[],
  { call, reply }: Pick<RequestContext, 'call' | 'reply'>
): void {
  const now = clock.now()
  const events = near.map(end => creditsEvent(end, call, now))
  for (const event of events) creditNotices.tell(event)
  reply.header(creditsHeader, events.map(event => headerItem(event, now)).join(', '))
}

function creditsEvent ({ hold, left }: NearEnd, call: Caller, now: number): CreditsEvent {
  const { session: { subject }, plan } = call
  const of = { subject, plan: plan.name, left, usedPercent: left === 0 ? 100 : 80 } as const
  if (hold !== null) return { ...of, pool: poolOf(call), window: hold.window, resetsAt: hold.endsAt }
  const { start, end } = periodAt(plan.period, now)
  return { ...of, pool: null, window: String(start), resetsAt: end }
}

function headerItem ({ pool, usedPercent, left, resetsAt }: CreditsEvent, now: number): string {
  const reset = resetsAt === null ? '' : `;reset=${Math.max(0, Math.ceil((resetsAt - now) / 1000))}`
  return `${pool === null ? 'subject' : 'pool'};used=${usedPercent};left=${Math.floor(left / 1000) / 1000}${reset}`
}

/** As the event `credits` has it. */
export function shownCredits ({ pool, usedPercent, left, resetsAt }: CreditsEvent) {
  return {
    level: pool === null ? 'subject' : 'pool',
    usedPercent,
    left: creditsFrom(left),
    resetsAt: resetsAt === null ? null : instant(resetsAt)
  } as const
}
