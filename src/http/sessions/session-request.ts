import Type, { type Static } from 'typebox'
import { microcredits } from '../../domain/policy/pricing.ts'
import { readAddressRange } from '../../domain/sessions/address-range.ts'
import { scopes, type SessionRequest } from '../../domain/sessions/session.ts'
import { isAppOrigin, isWebOrigin } from '../../domain/sessions/web-origin.ts'
import { badRequest } from '../../errors.ts'

const maxOrigins = 20

/** The body of a minting. Lists of models and scopes may be empty, which means none; one of origins is not left empty. */
export function sessionRequestSchema (maxTtlSeconds: number) {
  return Type.Object({
    // No control characters, and no half of a surrogate pair: a store writes every such half down as the same sign, and
    // two subjects would be one.
    subject: Type.String({ minLength: 1, maxLength: 128, pattern: '^[^\\p{Cc}\\p{Cs}]+$' }),
    ttlSeconds: Type.Optional(Type.Integer({ minimum: 1, maximum: maxTtlSeconds })),
    models: Type.Optional(Type.Array(Type.String({ pattern: '^[A-Za-z0-9._*-]{1,64}$' }), { maxItems: 100 })),
    scopes: Type.Optional(Type.Array(Type.Enum([...scopes]), { maxItems: scopes.length })),
    origins: Type.Optional(Type.Array(Type.String({ maxLength: 256 }), { minItems: 1, maxItems: maxOrigins })),
    uses: Type.Optional(Type.Integer({ minimum: 1, maximum: 1_000_000_000 })),
    plan: Type.Optional(Type.String({ maxLength: 64 })),
    addressPrefix: Type.Optional(Type.String({ maxLength: 64 })),
    // Less than a microcredit is nothing that can be counted.
    credits: Type.Optional(Type.Number({ minimum: 0.000_001, maximum: 100_000_000 }))
  }, { additionalProperties: false })
}

export type SessionRequestBody = Static<ReturnType<typeof sessionRequestSchema>>

/** What is minted for a body that its schema has let through. Throws `GW_BAD_REQUEST`. */
export function readSessionRequest (body: SessionRequestBody, defaultTtlSeconds: number): SessionRequest {
  const { subject, plan = 'default', models = ['*'], ttlSeconds = defaultTtlSeconds, origins, uses, addressPrefix, credits } = body
  for (const origin of origins ?? []) {
    if (!isWebOrigin(origin) && !isAppOrigin(origin)) throw badRequest('origins must be exact and https (http on this machine alone): https://app.example')
  }
  const addressRange = addressPrefix === undefined ? undefined : readAddressRange(addressPrefix)
  if (addressRange === null) throw badRequest('addressPrefix must be a network: 203.0.113.0/24 or 2001:db8::/48')
  return {
    subject,
    plan,
    models,
    ttlSeconds,
    scopes: body.scopes ?? scopes,
    ...(origins === undefined ? {} : { origins }),
    ...(addressRange === undefined ? {} : { addressRange }),
    ...(uses === undefined ? {} : { uses }),
    ...(credits === undefined ? {} : { credits: microcredits(credits) })
  }
}
