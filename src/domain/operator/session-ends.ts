import { badRequest } from '../../errors.ts'
import { endOfTime, instant } from '../instant.ts'
import type { AuditEntry, AuditTrail } from '../ledger/audit.ts'
import type { IssueTimes } from '../sessions/issue-times.ts'
import { type Revocations, standInsOf } from '../sessions/session.ts'
import { isTokenId } from '../sessions/token-form.ts'
import type { TokenBook } from '../sessions/tokens.ts'
import { checkSubject } from './subject-form.ts'

/**
 * How the operator ends sessions before their time: those that we have minted, cookies, tokens, and those of other issuers.
 * Within a second every replica refuses their next request, and their streams close with the next look at them; a request
 * that runs is finished. All methods throw `GW_STORE_DOWN` and `GW_BAD_REQUEST`.
 *
 * It is never forgotten: our own sessions end by `sessions.maxTtlSeconds` as it was when they were minted, but nothing
 * bounds the `exp` of another issuer, and a session that was ended must not come back.
 */
export interface SessionEnds {
  /**
   * Ends all sessions of a subject in its stored form, `app:alice`, that were issued until now; resolves to that instant, in
   * ISO 8601. Sessions issued later are good, but for two kinds of another issuer's tokens: those that do not say when they
   * were issued, and those of the same second, for most issuers count whole seconds.
   *
   * The instant is by our own clock, or later where that has been put back since. A clock that is ahead, another replica's or an issuer's, may have dated a session after
   * it: whoever has to be sure ends them again when the difference has passed.
   */
  endSessions (subject: string): Promise<string>
  /**
   * Ends one session by its id, as the audit trail has it, with the cookie that it was swapped for; or a token by its id,
   * with all its secrets. Of another issuer's token the id is the issuer's name (or `subjectPrefix`), a colon, and its `jti`.
   * Nobody has a list of sessions: an id that is none, or not yet, is ended like any other.
   */
  endSession (id: string): Promise<void>
}

export interface SessionEndsOptions {
  readonly revocations: Pick<Revocations, 'revoke' | 'revokeSubject'>
  readonly times: Pick<IssueTimes, 'end'>
  readonly tokens: Pick<TokenBook, 'find' | 'revoke'>
  readonly trail: AuditTrail
  /** How the audit trail names who did it. */
  readonly actor: 'admin' | 'cli'
  readonly now: () => number
}

/** An issuer's name, a colon, and the longest `jti` that stands for itself are shorter. */
const maxIdLength = 256
const printable = /^[^\p{Cc}\p{Cs}]+$/u
/** The beginning of a token, as it is sent: it must not get into the audit trail. `eyJ` is how JWTs begin. */
const secret = /apxi?_[0-9A-Za-z]{11}_|(?:^|[\s="'])eyJ/
/** No session has such an id: other issuers can't have these names. */
const ownSubject = /^(?:app|guest|token):/

export function sessionEnds ({ revocations, times, tokens, trail, actor, now }: SessionEndsOptions): SessionEnds {
  const note = (subject: string | null, detail: AuditEntry['detail']) =>
    trail.append([{ at: now(), kind: 'revoke', actor, subject, detail }])

  return {
    async endSessions (subject) {
      checkSubject(subject)
      await note(subject, { everywhere: true })
      const before = await times.end()
      await revocations.revokeSubject(subject, before, endOfTime)
      return instant(before)
    },
    async endSession (id) {
      checkSessionId(id)
      // Looked for here and not left to `revocations`: those of a bare store, as the command line has it, know no tokens.
      const token = isTokenId(id) ? await tokens.find(id) : null
      await note(token === null ? null : token.subject, { session: id })
      if (token === null) await Promise.all([id, standInsOf(id)].map(name => revocations.revoke(name, endOfTime)))
      else await tokens.revoke(id, now())
    }
  }
}

/** Throws `GW_BAD_REQUEST` for what can't be the id of a session. */
export function checkSessionId (id: string): void {
  if (secret.test(id)) throw badRequest('session must be the id of a session, and never its token.')
  if (ownSubject.test(id)) throw badRequest('session must be the id of a session: to end all sessions of a subject, name it as subject.')
  if (id.length > maxIdLength || !printable.test(id)) {
    throw badRequest(`session must be the id of a session: at most ${maxIdLength} printable characters.`)
  }
}
