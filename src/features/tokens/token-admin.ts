import type { AuditKind, AuditTrail } from '../../domain/audit.ts'
import { isPrintable, quoted } from '../../domain/json.ts'
import {
  openCursor, type Page, type PageQuery, readUsageQuery, sealCursor, type TaskRecords, usageReport
} from '../../domain/records.ts'
import {
  isModelGlob, type IssueTimes, maxModels, maxNameLength, ownPrefixes, type Revocations, type Scope, scopes as allScopes
} from '../../domain/session.ts'
import { instant } from '../../domain/time.ts'
import type { Token, TokenStore } from '../../domain/tokens.ts'
import { badRequest } from '../../errors.ts'
import { hashOf, newTokenId, printSecret, type TokenKind } from './tokens.ts'

/** A token as the operator is shown it, without anything secret. */
export interface ShownToken extends Pick<Token, 'id' | 'subject' | 'plan' | 'pool' | 'models' | 'scopes'> {
  readonly state: 'active' | 'invited' | 'expired' | 'revoked'
  readonly createdAt: string
  readonly expiresAt: string
  /** To about a minute. */
  readonly usedAt: string | null
  /** Credits that its subject, with all its tokens, was charged since the first of the month, UTC. */
  readonly spent: number
}

interface ShownTokensOptions {
  readonly tokens: Pick<TokenStore, 'list'>
  readonly records: Pick<TaskRecords, 'usage'>
  readonly revocations: Pick<Revocations, 'isRevoked'>
  readonly now: () => number
}

/**
 * A page of tokens. What their subjects have spent is summed once for the whole page, as `usage` sums it: numbers that
 * people compare come from one place.
 */
async function shownTokens (
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
  const { id, subject, plan, pool, models, scopes, createdAt, expiresAt, usedAt } = token
  return {
    id,
    subject,
    state,
    plan,
    pool,
    models,
    scopes,
    createdAt: instant(createdAt),
    expiresAt: instant(expiresAt),
    usedAt: usedAt === null ? null : instant(usedAt),
    spent
  }
}

/** Of the token alone: that all sessions of its subject were ended is not in it. */
function stateOf ({ revokedAt, expiresAt, isInvitation }: Token, now: number): ShownToken['state'] {
  if (revokedAt !== null) return 'revoked'
  if (expiresAt <= now) return 'expired'
  return isInvitation ? 'invited' : 'active'
}

/** A token as somebody outside asks for it. */
export interface TokenRequest {
  /** The name of the person it is for, without `token:`. */
  readonly subject: string
  /** `default` when absent. */
  readonly plan?: string | undefined
  /** That of the plan when absent. */
  readonly pool?: string | undefined
  /** The longest that is permitted when absent. */
  readonly ttlSeconds?: number | undefined
  /** Globs; all of the plan's when absent. */
  readonly models?: readonly string[] | undefined
  /** All when absent. */
  readonly scopes?: readonly string[] | undefined
}

/** What the operator has set. */
interface TokenRules {
  readonly plans: Readonly<Record<string, unknown>>
  readonly pools: readonly string[]
  readonly maxTtlSeconds: number
}

/** Reads what was asked for, and fills in the rest. Throws `GW_BAD_REQUEST`, which names the field. */
export function readTokenRequest (
  { subject, plan = 'default', pool, ttlSeconds, models = ['*'], scopes = allScopes }: TokenRequest,
  { plans, pools, maxTtlSeconds }: TokenRules
): Pick<Token, 'subject' | 'plan' | 'pool' | 'models' | 'scopes' | 'ttlMs'> {
  const { token: prefix } = ownPrefixes
  if (!isPrintable(subject) || [...subject].length > maxNameLength) {
    throw badRequest(`subject must be a name of 1 to ${maxNameLength} characters, none of them a control character.`)
  }
  if (subject.startsWith(prefix)) {
    throw badRequest(`subject must be the name alone: ${quoted(subject.slice(prefix.length))}.`)
  }
  const known = Object.keys(plans)
  if (!known.includes(plan)) {
    throw badRequest(`There is no plan ${quoted(plan)}: plans are ${known.map(quoted).join(', ')}.`)
  }
  if (pool !== undefined && !pools.includes(pool)) {
    const named = pools.length === 0 ? 'the config file has none' : `pools are ${pools.map(quoted).join(', ')}`
    throw badRequest(`There is no pool ${quoted(pool)}: ${named}.`)
  }
  return {
    subject: prefix + subject,
    plan,
    pool: pool ?? null,
    ttlMs: ttlOf(ttlSeconds, maxTtlSeconds) * 1000,
    models: modelsOf(models),
    scopes: scopesOf(scopes)
  }
}

function ttlOf (ttlSeconds: number | undefined, maxTtlSeconds: number): number {
  if (ttlSeconds === undefined) return maxTtlSeconds
  if (Number.isInteger(ttlSeconds) && ttlSeconds >= 1 && ttlSeconds <= maxTtlSeconds) return ttlSeconds
  throw badRequest(
    `ttl must be from 1 second to ${shownDuration(maxTtlSeconds)}, the longest that sessions.maxTtlSeconds permits.`
  )
}

function shownDuration (seconds: number): string {
  return seconds % 86_400 === 0 ? `${seconds / 86_400} days` : `${seconds} seconds`
}

function modelsOf (models: readonly string[]): readonly string[] {
  if (models.length > maxModels) throw badRequest(`models must be at most ${maxModels}.`)
  const odd = models.find(model => !isModelGlob(model))
  if (odd !== undefined) throw badRequest(`models must be names or globs such as sora-2*: ${quoted(odd)} is none.`)
  return models
}

function scopesOf (scopes: readonly string[]): readonly Scope[] {
  const isScope = (scope: string): scope is Scope => allScopes.some(known => known === scope)
  if (!scopes.every(isScope)) throw badRequest(`scopes must be some of ${allScopes.join(', ')}.`)
  return [...new Set(scopes)]
}

/** A token that was printed: the one time that somebody sees it. Instants are in ISO 8601. */
export interface PrintedToken {
  readonly id: string
  readonly token: string
  readonly subject: string
  readonly plan: string
  readonly expiresAt: string
  /** After a rotation: until when the one before is good. */
  readonly previousUntil?: string
}

interface PrintedInvitation extends Pick<PrintedToken, 'id' | 'subject' | 'plan' | 'expiresAt'> {
  /** Opens once. What is secret of it is in the fragment, which no server, no log and no `Referer` header ever sees. */
  readonly link: string
}

/**
 * What the operator does with tokens, the same through the admin API and the CLI. A deed is in the audit trail before
 * it is done. All methods throw `GW_STORE_DOWN`.
 */
export interface PersonalTokens {
  /** Throws `GW_BAD_REQUEST`. */
  create (request: TokenRequest): Promise<PrintedToken>
  /** A token that is printed for the first person to open its link within `validSeconds`. Throws `GW_BAD_REQUEST`. */
  invite (request: TokenRequest, validSeconds?: number): Promise<PrintedInvitation>
  /** The newest first. Throws `GW_BAD_REQUEST` for a made-up cursor. */
  list (page: PageQuery): Promise<Page<ShownToken>>
  /** Ends a token or an invitation. `false`: there is none. */
  revoke (id: string): Promise<boolean>
  /** A new secret; the one before stays good for `graceSeconds`. `null`: there is no such token, or it has ended. */
  rotate (id: string, graceSeconds?: number): Promise<PrintedToken | null>
}

interface PersonalTokensOptions extends TokenRules, ShownTokensOptions {
  readonly tokens: TokenStore
  readonly times: Pick<IssueTimes, 'next'>
  readonly trail: AuditTrail
  readonly actor: 'admin' | 'cli'
  /** Our own origin, as invited people reach it. */
  readonly publicUrl: string | undefined
}

const needsPublicUrl =
  'An invitation is a link, and needs GATEWAY_PUBLIC_URL: our origin as those who are invited reach it.'
const daySeconds = 86_400
const defaultGraceSeconds = daySeconds
const maxGraceSeconds = 30 * daySeconds
const defaultValidSeconds = 7 * daySeconds
const maxValidSeconds = 30 * daySeconds

export function personalTokens (options: PersonalTokensOptions): PersonalTokens {
  const { tokens, publicUrl, now } = options
  return {
    async create (request) {
      const { token, text } = await open(options, 'apx', request)
      return printed(token, text)
    },
    async invite (request, validSeconds = defaultValidSeconds) {
      if (publicUrl === undefined) throw badRequest(needsPublicUrl)
      holdSeconds('valid', validSeconds, 60, maxValidSeconds)
      const { token, text } = await open(options, 'apxi', request, validSeconds * 1000)
      const { token: secret, ...shown } = printed(token, text)
      return { ...shown, link: `${publicUrl}/gateway/invitation#${secret}` }
    },
    list: page => shownTokens(options, page),
    async revoke (id) {
      const token = await tokens.find(id)
      if (token === null) return false
      await note(options, 'revoke', token)
      return await tokens.revoke(id, now())
    },
    async rotate (id, graceSeconds = defaultGraceSeconds) {
      holdSeconds('grace', graceSeconds, 0, maxGraceSeconds)
      const token = await tokens.find(id)
      return token === null || stateOf(token, now()) !== 'active' ? null : await rotate(options, token, graceSeconds)
    }
  }
}

async function note (
  { trail, actor, now }: PersonalTokensOptions,
  kind: AuditKind,
  { id, subject }: Token,
  more = {}
): Promise<void> {
  await trail.append([{ at: now(), kind, actor, subject, detail: { token: id, ...more } }])
}

/** `lastsMs`: how long an invitation does. */
async function open (
  options: PersonalTokensOptions, kind: TokenKind, request: TokenRequest, lastsMs?: number
): Promise<{ token: Token, text: string }> {
  const read = readTokenRequest(request, options)
  const { token, text } = newToken(kind, { ...read, lastsMs }, options.now(), await options.times.next(read.subject))
  const { plan, pool, ttlMs, models, scopes } = token
  const facts = { plan, ttlSeconds: ttlMs / 1000, models: models.length, scopes: scopes.join(' '), ...pool && { pool } }
  await note(options, kind === 'apx' ? 'create' : 'invite', token, facts)
  await options.tokens.create(token)
  return { token, text }
}

async function rotate (
  options: PersonalTokensOptions, token: Token, graceSeconds: number
): Promise<PrintedToken | null> {
  const { tokens, times, now } = options
  await note(options, 'rotate', token, { graceSeconds })
  const text = printSecret('apx', token.id)
  // Two sessions of one token are told apart by when their secrets were issued.
  const issuedAt = Math.max(await times.next(token.subject), token.secret.issuedAt + 1)
  const until = now() + graceSeconds * 1000
  const rotated = await tokens.rotate(token.id, { hash: hashOf(text), issuedAt }, until)
  return rotated && { ...printed(rotated, text), previousUntil: instant(Math.min(until, rotated.expiresAt)) }
}

type NewToken = ReturnType<typeof readTokenRequest> & { readonly lastsMs: number | undefined }

function newToken (
  kind: TokenKind,
  { lastsMs, ...request }: NewToken,
  now: number,
  issuedAt: number
): { token: Token, text: string } {
  const id = newTokenId()
  const text = printSecret(kind, id)
  return {
    text,
    token: {
      ...request,
      id,
      createdAt: now,
      expiresAt: now + (lastsMs ?? request.ttlMs),
      isInvitation: kind === 'apxi',
      secret: { hash: hashOf(text), issuedAt },
      previous: null,
      revokedAt: null,
      usedAt: null
    }
  }
}

function printed ({ id, subject, plan, expiresAt }: Token, token: string): PrintedToken {
  return { id, token, subject, plan, expiresAt: instant(expiresAt) }
}

function holdSeconds (name: string, seconds: number, least: number, most: number): void {
  if (Number.isInteger(seconds) && seconds >= least && seconds <= most) return
  throw badRequest(`${name} must be from ${least} seconds to ${most / daySeconds} days.`)
}
