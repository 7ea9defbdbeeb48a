import type { FastifyInstance } from 'fastify'
import Type, { type Static } from 'typebox'
import { instant } from '../../domain/instant.ts'
import type { KeyStatus } from '../../domain/keys/key-entry.ts'
import type { KeyRing } from '../../domain/keys/keys.ts'
import type { AuthenticateOperator } from '../sessions/operator.ts'

export interface AdminKeyRoutesOptions {
  readonly authenticate: AuthenticateOperator
  readonly keys: Pick<KeyRing, 'states' | 'byId' | 'doubt'>
}

const querystring = Type.Object({ balance: Type.Optional(Type.Enum(['true', 'false'])) }, { additionalProperties: false })

/** The upstream keys by fingerprint: which of them serve, and what money they have, for who asks for that. */
export function adminKeyRoutes (app: FastifyInstance, { authenticate, keys }: AdminKeyRoutesOptions): void {
  /** By way of a doubt: it shares the probe of others, and asks about each key once in ten seconds at the most. */
  const askForBalances = async (): Promise<void> => {
    await Promise.all(keys.states().map(({ keyId }) => keys.doubt(keys.byId(keyId)!)))
  }

  app.get<{ Querystring: Static<typeof querystring> }>('/gateway/admin/keys', {
    config: { operation: 'listKeys', opensWith: 'admin token' }, onRequest: authenticate, schema: { querystring }
  }, async request => {
    const withBalance = request.query.balance === 'true'
    if (withBalance) await askForBalances()
    return keys.states().map(status => shown(status, withBalance))
  })
}

function shown ({ keyId, state, since, restingUntil, balance }: KeyStatus, withBalance: boolean) {
  const isBenched = state === 'refused' || state === 'empty'
  return {
    keyId,
    state: isBenched ? 'benched' : state,
    ...(isBenched ? { reason: state } : {}),
    since: instant(since),
    ...(restingUntil === null ? {} : { restingUntil: instant(restingUntil) }),
    ...(withBalance ? { balance } : {})
  }
}
