import { badRequest } from '../../errors.ts'
import { instant } from '../instant.ts'
import type { AuditKind, AuditTrail } from '../ledger/audit.ts'
import type { Page } from '../ledger/records.ts'
import type { IssueTimes } from '../sessions/issue-times.ts'
import { hashOf, newTokenId, printSecret, type TokenKind } from '../sessions/token-form.ts'
import type { Token, TokenBook } from '../sessions/tokens.ts'
import type { PageQuery } from './operator.ts'
import { type ShownToken, shownTokens, type ShownTokensOptions, stateOf } from './shown-tokens.ts'
import { readTokenWish, type TokenRules, type TokenWish } from './token-wish.ts'

export type { ShownToken } from './shown-tokens.ts'

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

export interface PrintedInvitation extends Pick<PrintedToken, 'id' | 'subject' | 'plan' | 'expiresAt'> {
  /** Opens once. What is secret of it is in the fragment, which no server, no log and no `Referer` header ever sees. */
  readonly link: string
}

/**
 * What the operator does with tokens, the same through the admin API and the CLI. A deed is in the audit trail before it is
 * done. All methods throw `GW_STORE_DOWN`.
 */
export interface TokenDesk {
  /** Throws `GW_BAD_REQUEST`. */
  create (wish: TokenWish): Promise<PrintedToken>
  /** A token that is printed for whoever opens its link within `validSeconds`. Throws `GW_BAD_REQUEST`. */
  invite (wish: TokenWish, validSeconds?: number): Promise<PrintedInvitation>
  /** The newest first. Throws `GW_BAD_REQUEST` for a made-up cursor. */
  list (page: PageQuery): Promise<Page<ShownToken>>
  /** Ends a token or an invitation. `false`: there is none. */
  revoke (id: string): Promise<boolean>
  /** A new secret; the one before stays good for `graceSeconds`. `null`: there is no such token, or it has ended. */
  rotate (id: string, graceSeconds?: number): Promise<PrintedToken | null>
}

export interface TokenDeskOptions extends TokenRules, ShownTokensOptions {
  readonly tokens: TokenBook
  readonly times: Pick<IssueTimes, 'next'>
  readonly trail: AuditTrail
  readonly actor: 'admin' | 'cli'
  /** Our own origin, as those who are invited reach it. */
  readonly publicUrl: string | undefined
}

const needsPublicUrl = 'An invitation is a link, and needs GATEWAY_PUBLIC_URL: our origin as those who are invited reach it.'
const daySeconds = 86_400
const defaultGraceSeconds = daySeconds
const maxGraceSeconds = 30 * daySeconds
const defaultValidSeconds = 7 * daySeconds
const maxValidSeconds = 30 * daySeconds

export function tokenDesk (options: TokenDeskOptions): TokenDesk {
  const { tokens, publicUrl, now } = options
  return {
    async create (wish) {
      const { token, text } = await open(options, 'apx', wish)
      return printed(token, text)
    },
    async invite (wish, validSeconds = defaultValidSeconds) {
      if (publicUrl === undefined) throw badRequest(needsPublicUrl)
      holdSeconds('valid', validSeconds, 60, maxValidSeconds)
      const { token, text } = await open(options, 'apxi', wish, validSeconds * 1000)
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

async function note ({ trail, actor, now }: TokenDeskOptions, kind: AuditKind, { id, subject }: Token, more = {}): Promise<void> {
  await trail.append([{ at: now(), kind, actor, subject, detail: { token: id, ...more } }])
}

/** `lastsMs`: how long an invitation does. */
async function open (
  options: TokenDeskOptions, kind: TokenKind, wish: TokenWish, lastsMs?: number
): Promise<{ token: Token, text: string }> {
  const read = readTokenWish(wish, options)
  const { token, text } = newToken(kind, { ...read, lastsMs }, options.now(), await options.times.next(read.subject))
  const { plan, ttlMs, models, scopes } = token
  const facts = { plan, ttlSeconds: ttlMs / 1000, models: models.length, scopes: scopes.join(' ') }
  await note(options, kind === 'apx' ? 'create' : 'invite', token, facts)
  await options.tokens.create(token)
  return { token, text }
}

async function rotate (options: TokenDeskOptions, token: Token, graceSeconds: number): Promise<PrintedToken | null> {
  const { tokens, times, now } = options
  await note(options, 'rotate', token, { graceSeconds })
  const text = printSecret('apx', token.id)
  // Two sessions of one token are told apart by when their secrets were issued.
  const issuedAt = Math.max(await times.next(token.subject), token.secret.issuedAt + 1)
  const until = now() + graceSeconds * 1000
  const rotated = await tokens.rotate(token.id, { hash: hashOf(text), issuedAt }, until)
  return rotated && { ...printed(rotated, text), previousUntil: instant(Math.min(until, rotated.expiresAt)) }
}

type NewToken = ReturnType<typeof readTokenWish> & { readonly lastsMs: number | undefined }

function newToken (kind: TokenKind, { lastsMs, ...wish }: NewToken, now: number, issuedAt: number): { token: Token, text: string } {
  const id = newTokenId()
  const text = printSecret(kind, id)
  return {
    text,
    token: {
      ...wish,
      id,
      createdAt: now,
      expiresAt: now + (lastsMs ?? wish.ttlMs),
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
