import type { FastifyRequest } from 'fastify'
import { type Guests, isGuest, proofHeader } from '../../domain/sessions/guests.ts'
import { gatewayError } from '../../errors.ts'
import type { Context } from '../call.ts'
import { ipOf } from '../receive.ts'

/** Part of *admit*: throws `GW_SCOPE_DENIED` unless the caller may submit now. A guest's proof is used up by asking. */
export type Prove = (context: Context) => Promise<void>

/** Each submit of a guest needs a proof of its own; of others none is asked. `undefined`: guests are off, also those of yesterday. */
export function guestProver (guests: Guests | undefined): Prove {
  return async ({ request, call: { session: { subject } } }) => {
    if (!isGuest(subject)) return
    if (guests === undefined) throw gatewayError('GW_SCOPE_DENIED', { about: 'Guests make no tasks here any more.' })
    await guests.prove(proofOf(request), subject, ipOf(request))
  }
}

export function proofOf ({ headers }: FastifyRequest): string | undefined {
  return headers[proofHeader] as string | undefined
}
