import type { FastifyInstance } from 'fastify'
import Type, { type Static } from 'typebox'
import { instant } from '../../domain/instant.ts'
import type { AcceptInvitation } from '../../domain/sessions/invitations.ts'
import { gatewayError } from '../../errors.ts'
import { sendPage, type ServedPage } from './pages.ts'

export interface InvitationRoutesOptions {
  readonly accept: AcceptInvitation
  readonly page: ServedPage
}

/** Longer than any, and shorter than what is worth hashing. */
const body = Type.Object({ invitation: Type.String({ maxLength: 256 }) }, { additionalProperties: false })

/**
 * The two doors of an invitation. The page is the same for everybody and takes nothing: programs that preview links, and
 * scanners of mail, fetch it as they like. What it opens is in the link's fragment, which only the browser knows, and is
 * sent when somebody presses the button.
 */
export function invitationRoutes (app: FastifyInstance, { accept, page }: InvitationRoutesOptions): void {
  app.get('/gateway/invitation', { config: { operation: 'showInvitation' } }, (_request, reply) => sendPage(reply, page))

  // One 404 for what was never printed, is used up, or has expired; it counts against the address, as each 404 does.
  app.post<{ Body: Static<typeof body> }>('/gateway/invitations/accept', {
    config: { operation: 'acceptInvitation', opensWith: 'invitation' },
    schema: { body }
  }, async (request, reply) => {
    request.call.stage = 'authenticate'
    const accepted = await accept(request.body.invitation)
    if (accepted === null) throw gatewayError('GW_NOT_FOUND')
    const { text, token: { id, subject, plan, expiresAt } } = accepted
    reply.code(201)
    return { id, token: text, subject, plan, expiresAt: instant(expiresAt) }
  })
}
