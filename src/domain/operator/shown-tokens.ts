import { instant } from '../instant.ts'
import type { Page, TaskRecords } from '../ledger/records.ts'
import type { Revocations } from '../sessions/session.ts'
import type { Token, TokenBook } from '../sessions/tokens.ts'
import { openCursor, sealCursor } from './cursor.ts'
import type { PageQuery } from './operator.ts'
import { readUsageQuery, usageReport } from './usage.ts'

/** A token as the operator is shown it, without anything secret. */
export interface ShownToken extends Pick<Token, 'id' | 'subject' | 'plan' | 'models' | 'scopes'> {
  readonly state: 'active' | 'invited' | 'expired' | 'revoked'
  readonly createdAt: string
  readonly expiresAt: string
  /** To about a minute. */
  readonly usedAt: string | null
  /** Credits that its subject, with all its tokens, was charged since the first of the month, UTC. */
  readonly spent: number
}

export interface ShownTokensOptions {
  readonly tokens: Pick<TokenBook, 'list'>
  readonly records: Pick<TaskRecords, 'usage'>
  readonly revocations: Pick<Revocations, 'isRevoked'>
  readonly now: () => number
}

/**
 * A page of tokens. What their subjects have spent is summed once for the whole page, as `usage` sums it: numbers that
 * people compare come from one place.
 */
export async function shownTokens (
  { tokens, records, revocations, now }: ShownTokensOptions, { cursor, limit }: PageQuery
): Promise<Page<ShownToken>> {
  const page = await tokens.list({ cursor: cursor === undefined ? null : openCursor('tokens', cursor), limit })
  const month = readUsageQuery({ by: 'subject' }, now())
  const rows = page.items.length === 0 ? [] : usageReport(month, await records.usage(month)).rows
  const spent = new Map(rows.map(({ subject, credits }) => [subject, credits]))
  const show = async (token: Token): Promise<ShownToken> => {
    const { id, subject, secret: { issuedAt } } = token
    const state = stateOf(token, now())
    // All sessions of a subject may have been ended together, and those of its tokens with them.
    const hasEnded = state === 'active' && await revocations.isRevoked({ id, subject, issuedAt })
    return shown(token, hasEnded ? 'revoked' : state, spent.get(subject) ?? 0)
  }
  return {
    items: await Promise.all(page.items.map(show)),
    next: page.next === null ? null : sealCursor('tokens', page.next)
  }
}

function shown (token: Token, state: ShownToken['state'], spent: number): ShownToken {
  const { id, subject, plan, models, scopes, createdAt, expiresAt, usedAt } = token
  return {
    id,
    subject,
    state,
    plan,
    models,
    scopes,
    createdAt: instant(createdAt),
    expiresAt: instant(expiresAt),
    usedAt: usedAt === null ? null : instant(usedAt),
    spent
  }
}

/** Of the token alone: that all sessions of its subject were ended is not in it. */
export function stateOf ({ revokedAt, expiresAt, isInvitation }: Token, now: number): ShownToken['state'] {
  if (revokedAt !== null) return 'revoked'
  if (expiresAt <= now) return 'expired'
  return isInvitation ? 'invited' : 'active'
}
