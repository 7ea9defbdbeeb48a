import { LRUCache } from 'lru-cache'
import { gatewayError } from '../../errors.ts'
import { globs } from '../policy/glob.ts'
import type { Store } from '../store.ts'
import type { Clock } from '../time.ts'
import { type Revocations, type Session, type SessionVerifier, standInsOf, unscoped } from './session.ts'
import { idIn, isHashOf, isTokenId, isTokenLike } from './token-form.ts'
import { type Token, type TokenBook, type TokenLookup, type TokenSecret, usedEveryMs } from './tokens.ts'

/** What was found is good for so long, ms: what another replica, or the command line, has changed counts within that. */
const freshMs = 1000
const rememberedTokens = 10_000
/** What subjects of tokens begin with; no other issuer may print one. */
const tokenIssuer = 'token'

/** Finds tokens as they were at most a second ago, so that the store is asked once a second for a token in use. */
export type RecentTokens = (id: string) => Promise<Token | null>

/** Only what was found is remembered after its look-up: made-up ids must not push real ones out. */
export function recentTokens ({ find }: Pick<TokenLookup, 'find'>, elapsed: () => number): RecentTokens {
  const known = new LRUCache<string, { readonly at: number, readonly token: Promise<Token | null> }>({ max: rememberedTokens })
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
  readonly tokens: TokenBook
}

/**
 * Sessions of tokens. A rotated secret is a session until its grace ends, and has its own `issuedAt`; the id is the
 * token's. That a token was used is noted behind the request's back, and nobody waits for it.
 */
export function tokenSessions ({ tokenOf, tokens, now, elapsed }: TokenSessionsOptions): SessionVerifier {
  const notedAt = new LRUCache<string, number>({ max: rememberedTokens })
  const note = ({ id, usedAt }: Token): void => {
    if (elapsed() - (notedAt.get(id) ?? -Infinity) < usedEveryMs) return
    notedAt.set(id, elapsed())
    const at = now()
    // Another replica may have noted it; not while the clock is behind what stands there.
    if (usedAt !== null && at >= usedAt && at - usedAt < usedEveryMs) return
    tokens.used(id, at).catch(() => { /* a store that is down says so where it counts; the next minute has its own note */ })
  }

  return {
    async verify (credential) {
      if (!isTokenLike(credential)) return null
      const id = idIn('apx', credential)
      const token = id === null ? null : await tokenOf(id)
      const session = token === null ? null : sessionOf(token, credential, now())
      if (session === null) throw gatewayError('GW_BAD_SESSION')
      note(token!)
      return session
    }
  }
}

function sessionOf (token: Token, credential: string, now: number): Session | null {
  const secret = openSecrets(token, now).find(secret => isHashOf(credential, secret))
  if (secret === undefined) return null
  const { id, subject, plan, models, scopes } = token
  const { issuedAt, until: expiresAt } = secret
  return unscoped({ id, subject, plan, models, permits: globs(models), scopes, issuedAt, expiresAt })
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
 * Revocations that know what stands in for what. A cookie ends with the session that it was swapped for. Whatever stands in
 * for a token (a cookie, a stream that is open) ends when that is revoked, or when the grace of its secret is over; and who
 * logs out with a token revokes it.
 */
function tokenRevocations (revocations: Revocations, { tokenOf, tokens, now }: TokenSessionsOptions): Revocations {
  return {
    ...revocations,
    async revoke (sessionId, expiresAt) {
      return (isTokenId(sessionId) && await tokens.revoke(sessionId, now())) || await revocations.revoke(sessionId, expiresAt)
    },
    async isRevoked (session) {
      const { id, subject, issuedAt, rootId = id } = session
      if (subject.startsWith(`${tokenIssuer}:`)) {
        const token = await tokenOf(rootId)
        if (token === null || !openSecrets(token, now()).some(secret => secret.issuedAt === issuedAt)) return true
      }
      if (rootId === id) return await revocations.isRevoked(session)
      const answers = [revocations.isRevoked(session), revocations.isRevoked({ ...session, id: standInsOf(rootId) })]
      return (await Promise.all(answers)).includes(true)
    }
  }
}

/** What the rest of the gateway has of tokens: who vouches for them, and how they end. */
export function teamTokens ({ tokens, revocations }: Pick<Store, 'tokens' | 'revocations'>, { now, elapsed }: Clock) {
  const options = { tokens, now, elapsed, tokenOf: recentTokens(tokens, elapsed) }
  return { tokenSessions: tokenSessions(options), revocations: tokenRevocations(revocations, options) }
}
