import type { AuditEntry, AuditTrail } from '../../domain/audit.ts'
import type { CeilingAccounts, CeilingRules, Extra, ExtraAccount } from '../../domain/ceilings.ts'
import { quoted } from '../../domain/json.ts'
import { creditsFrom } from '../../domain/ledger.ts'
import { microcredits } from '../../domain/policy.ts'
import { endOfTime, instant } from '../../domain/time.ts'
import { badRequest } from '../../errors.ts'
import { checkCredits, checkSubject } from './admin.ts'

/** What can be raised, by exactly one of these names. */
export interface ExtraTarget {
  /** In its stored form. */
  readonly subject?: string | undefined
  readonly pool?: string | undefined
  readonly gateway?: boolean | undefined
}

/** More than the settings say, as the operator asks for it. */
export interface ExtraRequest extends ExtraTarget {
  readonly credits: number
  /** An instant in ISO 8601, UTC; absent: a grant, for a pool or the gateway, which lasts until it is spent. */
  readonly until?: string | undefined
}

/** What was given, and all of its kind that there is in force now, in credits. */
export interface GivenExtra extends ExtraTarget {
  readonly total: number
  readonly until: string | null
}

/** Where extras go, and what of them can count. */
export interface ExtraAccounts extends Pick<CeilingAccounts, 'raise'> {
  readonly rules: Pick<CeilingRules, 'pools' | 'gateway'>
}

interface CreditExtrasOptions {
  readonly accounts: ExtraAccounts
  readonly trail: AuditTrail
  readonly actor: 'admin' | 'cli'
  readonly now: () => number
}

/**
 * Gives a subject, a pool or the gateway more, the same through the admin API and the CLI. The deed is in the audit
 * trail before it is done. Throws `GW_BAD_REQUEST` and `GW_STORE_DOWN`.
 */
export function creditExtras ({ accounts, trail, actor, now }: CreditExtrasOptions) {
  return async (request: ExtraRequest): Promise<GivenExtra> => {
    const extra = readExtra(request, accounts.rules, now())
    const { subject, pool, gateway, credits } = request
    const until = extra.until === null ? null : instant(extra.until)
    const target = { ...pool !== undefined && { pool }, ...gateway === true && { gateway } }
    const detail: AuditEntry['detail'] = { credits, ...target, ...until !== null && { until } }
    const kind = until === null ? 'grant' : 'extra'
    await trail.append([{ at: now(), kind, actor, subject: subject ?? null, detail }])
    const total = creditsFrom(await accounts.raise(extra))
    return { ...subject !== undefined && { subject }, ...target, total, until }
  }
}

/** Throws `GW_BAD_REQUEST` for what can't be given, or would not count. */
export function readExtra (request: ExtraRequest, rules: ExtraAccounts['rules'], now: number): Extra {
  const { credits, until } = request
  const account = accountOf(request, rules)
  checkCredits(credits)
  if (until === undefined) checkPrepaid(account, rules)
  return { account, microcredits: microcredits(credits), until: until === undefined ? null : instantOf(until, now) }
}

function accountOf ({ subject, pool, gateway }: ExtraTarget, { pools }: ExtraAccounts['rules']): ExtraAccount {
  if ([subject !== undefined, pool !== undefined, gateway === true].filter(Boolean).length !== 1) {
    throw badRequest('Say whose it is to be, by one of these: subject, pool, gateway.')
  }
  if (subject !== undefined) {
    checkSubject(subject)
    return `subject:${subject}`
  }
  if (pool === undefined) return 'gateway'
  if (pools[pool] === undefined) {
    const known = Object.keys(pools)
    const named = known.length === 0 ? 'the config file has none' : `pools are ${known.map(quoted).join(', ')}`
    throw badRequest(`There is no pool ${quoted(pool)}: ${named}.`)
  }
  return `pool:${pool}`
}

/** A grant raises what is prepaid, and nothing else. */
function checkPrepaid (account: ExtraAccount, { pools, gateway }: ExtraAccounts['rules']): void {
  if (account.startsWith('subject:')) throw badRequest('An extra of a subject has an end: until must say when.')
  const isPrepaid = (account === 'gateway' ? gateway : pools[account.slice('pool:'.length)])?.ceilings.none !== undefined
  if (isPrepaid) return
  const setting = account.replace(':', 's.')
  throw badRequest(`It would not count: ${setting} has no ceilings.none in the config file. Or say until when, by until.`)
}

const instantForm = /^\d{4}-\d{2}-\d{2}(?:T\d{2}:\d{2}(?::\d{2}(?:\.\d{1,3})?)?Z)?$/

function instantOf (text: string, now: number): number {
  const at = instantForm.test(text) ? Date.parse(text) : NaN
  // JavaScript takes 30 February for 2 March.
  if (at > now && at <= endOfTime && instant(at).startsWith(text.slice(0, 10))) return at
  throw badRequest('until must be an instant to come, in UTC: 2026-12-24 or 2026-12-24T18:00Z.')
}
