import type { FastifyInstance } from 'fastify'
import Type, { type Static } from 'typebox'
import type { AuditTrail } from '../../domain/audit.ts'
import type { IssueTimes } from '../../domain/session.ts'
import { instant } from '../../domain/time.ts'
import type { Token, TokenStore } from '../../domain/tokens.ts'
import { gatewayError } from '../../errors.ts'
import type { Services } from '../../http/services.ts'
import { hashOf, idIn, isHashOf, printSecret } from './tokens.ts'

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
