import type { AuditTrail } from '../ledger/audit.ts'
import type { IssueTimes } from './issue-times.ts'
import { hashOf, idIn, isHashOf, printSecret } from './token-form.ts'
import type { Token, TokenBook } from './tokens.ts'

export interface AcceptedInvitation {
  /** Shown this once. */
  readonly text: string
  readonly token: Token
}

/**
 * Takes what was in the link of an invitation, and prints the token, once: of parallel calls one gets it. `null`: it is no
 * invitation, or was accepted, revoked, or has expired; which of these is not said. Throws `GW_STORE_DOWN`.
 */
export type AcceptInvitation = (link: string) => Promise<AcceptedInvitation | null>

export interface InvitationsOptions {
  readonly tokens: TokenBook
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
    const token = await tokens.accept(invited.id, invited.secret.hash, { hash: hashOf(text), issuedAt: await times.next(subject) })
    return token && { text, token }
  }
}
