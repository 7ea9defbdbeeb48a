import type { FastifyInstance } from 'fastify'
import { hash, randomBytes, timingSafeEqual } from 'node:crypto'
import { crc32 } from 'node:zlib'
import Type, { type Static } from 'typebox'
import type { AuditTrail } from '../../domain/audit.ts'
import { globs } from '../../domain/policy.ts'
import { recent } from '../../domain/recent.ts'
import {
  cookieRevocationId, type IssueTimes, ownPrefixes, type RevocableSession, type Revocations, type Session,
  type SessionVerifier, unscoped, type Verdict
} from '../../domain/session.ts'
import type { Store } from '../../domain/store.ts'
import { type Clock, instant } from '../../domain/time.ts'
import {
  isTokenId, type Token, tokenIdDigits, type TokenSecret, type TokenStore, usedEveryMs
} from '../../domain/tokens.ts'
import { gatewayError } from '../../errors.ts'
import type { Services } from '../../http/services.ts'

/** `apx`: a token. `apxi`: the secret of an invitation's link, which is no token. */
export type TokenKind = 'apx' | 'apxi'

const digits = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'
/** Digits to the base 62 of 256 random bits, and of a CRC-32. */
const [secretDigits, checkDigits] = [43, 6]
const form = new RegExp(`^(apxi?)_([0-9A-Za-z]{${tokenIdDigits}})_[0-9A-Za-z]{${secretDigits + checkDigits}}$`)

/** Any other text is not to be looked up. */
export function newTokenId (): string {
  return inDigits(randomBytes(8), tokenIdDigits)
}

/**
 * Prints a new secret: `apx_<id>_<secret><checksum>`. The prefix and the fixed length are for programs that look for
 * secrets in repositories and logs; the checksum tells them, and us before any look-up, a real one from a made-up text.
 * Letters and digits alone: a double click selects the whole.
 */
export function printSecret (kind: TokenKind, id: string): string {
  const text = `${kind}_${id}_${inDigits(randomBytes(32), secretDigits)}`
  return text + checksum(text)
}

/** Whether a credential claims to be a token. */
export function isTokenLike (credential: string): boolean {
  return credential.startsWith('apx_')
}

/** The token that this is the secret of; `null`: it was never printed by us, or not in one piece. */
export function idIn (kind: TokenKind, text: string): string | null {
  const [, foundKind, id] = form.exec(text) ?? []
  if (foundKind !== kind) return null
  return checksum(text.slice(0, -checkDigits)) === text.slice(-checkDigits) ? id! : null
}

/** The hash covers the whole printed form, so that the secret of one kind, or of one id, is none of another. */
export function hashOf (text: string): string {
  return hash('sha256', text, 'base64url')
}

/** In a time that says nothing about how much of it is right. */
export function isHashOf (text: string, { hash }: TokenSecret): boolean {
  return timingSafeEqual(Buffer.from(hashOf(text)), Buffer.from(hash))
}

/** With every request: numbers are quicker than big ones. */
function checksum (text: string): string {
  let [rest, check] = [crc32(text), '']
  for (; check.length < checkDigits; rest = Math.floor(rest / 62)) check = digits[rest % 62] + check
  return check
}

function inDigits (bytes: Buffer, length: number): string {
  let [rest, text] = [BigInt(`0x${bytes.toString('hex')}`), '']
  for (; text.length < length; rest /= 62n) text = digits[Number(rest % 62n)] + text
  return text
}

/**
 * What was found is good for so long, ms: what another replica, or the command line, has changed counts within that.
 */
const freshMs = 1000
const rememberedTokens = 10_000

/** Finds tokens as they were at most a second ago, so that the store is asked once a second for a token in use. */
type RecentTokens = (id: string) => Promise<Token | null>

/**
 * Only what was found is remembered after its look-up: made-up ids must not push real ones out.
 *
 * lru-cache's own `fetchMethod` and `ttl` would not do: the age of an answer counts from when the store was asked, so
 * that a slow store does not make it older than a second, and a look-up that is pushed out is answered all the same.
 */
export function recentTokens ({ find }: Pick<TokenStore, 'find'>, elapsed: () => number): RecentTokens {
  const known = recent<{ readonly at: number, readonly token: Promise<Token | null> }>(rememberedTokens)
  return async id => {
    const at = elapsed()
    const recent = known.get(id)
    if (recent !== undefined && at - recent.at < freshMs) return await recent.token
    const asked = { at, token: find(id) }
    known.set(id, asked)
    const token = await asked.token.catch(error => {
      known.delete(id)
      throw error
    })
    if (token === null) known.delete(id)
    return token
  }
}

interface TokenSessionsOptions extends Clock {
  readonly tokenOf: RecentTokens
  readonly tokens: TokenStore
}

/**
 * Sessions of tokens. A rotated secret is a session until its grace ends, and has its own `issuedAt`; the id is the
 * token's. That a token was used is noted behind the request's back, and nobody waits for it.
 */
export function tokenSessions ({ tokenOf, tokens, now, elapsed }: TokenSessionsOptions): SessionVerifier {
  const notedAt = recent<number>(rememberedTokens)
  const note = ({ id, usedAt }: Token): void => {
    if (elapsed() - (notedAt.get(id) ?? -Infinity) < usedEveryMs) return
    notedAt.set(id, elapsed())
    const at = now()
    // Another replica may have noted it; not while the clock is behind what stands there.
    if (usedAt !== null && at >= usedAt && at - usedAt < usedEveryMs) return
    tokens.used(id, at).catch(() => {
      /* a store that is down says so where it counts; the next minute has its own note */
    })
  }

  const verifyToken = async (credential: string): Promise<Verdict> => {
    const id = idIn('apx', credential)
    const token = id === null ? null : await tokenOf(id)
    const session = token === null ? null : sessionOf(token, credential, now())
    if (session === null) return 'bad'
    note(token!)
    return session
  }

  return { verify: credential => isTokenLike(credential) ? verifyToken(credential) : null }
}

function sessionOf (token: Token, credential: string, now: number): Session | null {
  const secret = openSecrets(token, now).find(secret => isHashOf(credential, secret))
  if (secret === undefined) return null
  const { id, subject, plan, pool, models, scopes } = token
  const { issuedAt, until: expiresAt } = secret
  return { ...unscoped({ id, subject, plan, models, permits: globs(models), scopes, issuedAt, expiresAt }), pool }
}

interface OpenSecret extends TokenSecret { readonly until: number }

/** Those that are sessions now, and until when. */
function openSecrets ({ isInvitation, revokedAt, expiresAt, secret, previous }: Token, now: number): OpenSecret[] {
  if (isInvitation || revokedAt !== null) return []
  const secrets = [{ ...secret, until: expiresAt }]
  if (previous !== null) secrets.push({ ...previous, until: Math.min(previous.until, expiresAt) })
  return secrets.filter(({ until }) => now < until)
}

/**
 * Revocations that know what was exchanged for what. A cookie ends with the session that it was exchanged for.
 * Everything that depends on a token (a cookie, a stream that is open) ends when that is revoked, or when the grace of
 * its secret is over; logging out with a token revokes it.
 */
function tokenRevocations (revocations: Revocations, { tokenOf, tokens, now }: TokenSessionsOptions): Revocations {
  const isRevokedWithToken = async (session: RevocableSession, rootId: string): Promise<boolean> => {
    const { id, subject, issuedAt } = session
    if (subject.startsWith(ownPrefixes.token)) {
      const token = await tokenOf(rootId)
      if (token === null || !openSecrets(token, now()).some(secret => secret.issuedAt === issuedAt)) return true
    }
    if (rootId === id) return await revocations.isRevoked(session)
    const answers = [
      revocations.isRevoked(session),
      revocations.isRevoked({ ...session, id: cookieRevocationId(rootId) })
    ]
    return (await Promise.all(answers)).includes(true)
  }

  return {
    ...revocations,
    async revoke (sessionId, expiresAt) {
      return (
        (isTokenId(sessionId) && (await tokens.revoke(sessionId, now()))) ||
        (await revocations.revoke(sessionId, expiresAt))
      )
    },
    isRevoked (session) {
      const { id, subject, rootId = id } = session
      const isAlone = rootId === id && !subject.startsWith(ownPrefixes.token)
      return isAlone ? revocations.isRevoked(session) : isRevokedWithToken(session, rootId)
    }
  }
}

/** What the rest of the gateway has of tokens. */
export interface TeamTokens {
  readonly tokenSessions: SessionVerifier
  /** Of all sessions. */
  readonly revocations: Revocations
}

export function teamTokens (
  { tokens, revocations }: Pick<Store, 'tokens' | 'revocations'>, { now, elapsed }: Clock
): TeamTokens {
  const options = { tokens, now, elapsed, tokenOf: recentTokens(tokens, elapsed) }
  return { tokenSessions: tokenSessions(options), revocations: tokenRevocations(revocations, options) }
}

interface AcceptedInvitation {
  /** Shown this once. */
  readonly text: string
  readonly token: Token
}

/**
 * Takes what was in the link of an invitation, and prints the token, once: of parallel calls one gets it. `null`: it is
 * no invitation, or was accepted, revoked, or has expired; which of these is not said. Throws `GW_STORE_DOWN`.
 */
type AcceptInvitation = (link: string) => Promise<AcceptedInvitation | null>

interface InvitationsOptions {
  readonly tokens: TokenStore
  readonly trail: AuditTrail
  readonly times: Pick<IssueTimes, 'next'>
  readonly now: () => number
}

export function invitations (
  { tokens, trail, times, now }: InvitationsOptions
): AcceptInvitation {
  return async link => {
    const id = idIn('apxi', link)
    const invited = id === null ? null : await tokens.find(id)
    if (invited === null || !invited.isInvitation || !isHashOf(link, invited.secret)) return null
    if (invited.revokedAt !== null || invited.expiresAt <= now()) return null
    const { subject } = invited
    await trail.append([{ at: now(), kind: 'accept', actor: subject, subject, detail: { token: invited.id } }])
    const text = printSecret('apx', invited.id)
    const token = await tokens.accept(invited.id, invited.secret.hash, {
      hash: hashOf(text),
      issuedAt: await times.next(subject)
    })
    return token && { text, token }
  }
}

/** Longer than any, and shorter than what is worth hashing. */
const body = Type.Object({ invitation: Type.String({ maxLength: 256 }) }, { additionalProperties: false })

/** Where the page of an invitation sends what was in the link's fragment, when somebody presses its button. */
export function invitationRoutes (
  app: FastifyInstance,
  { tokens, audit, issueTimes, clock: { now } }: Pick<Services, 'tokens' | 'audit' | 'issueTimes' | 'clock'>
): void {
  const accept = invitations({ tokens, trail: audit, times: issueTimes, now })

  // One 404 for what was never printed, is used up, or has expired; it counts against the address, as each 404 does.
  app.post<{ Body: Static<typeof body> }>(
    '/gateway/invitations/accept',
    {
      config: { operation: 'acceptInvitation', opensWith: 'invitation' },
      schema: { body }
    },
    async (request, reply) => {
      request.call.enter('authenticate')
      const accepted = await accept(request.body.invitation)
      if (accepted === null) throw gatewayError('GW_NOT_FOUND')
      const {
        text,
        token: { id, subject, plan, expiresAt }
      } = accepted
      reply.code(201)
      return { id, token: text, subject, plan, expiresAt: instant(expiresAt) }
    }
  )
}
