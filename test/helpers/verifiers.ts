import { jwtSessions as jwts, type JwtSessionsOptions } from '../../src/adapters/jwt-sessions/jwt-sessions.ts'
import { signedSessions as signed } from '../../src/adapters/signed-sessions.ts'
import type { Session, SessionIssuer, SessionVerifier } from '../../src/domain/session.ts'
import { gatewayError } from '../../src/errors.ts'

/** A verifier as a caller meets it: what is bad is an error. */
export interface Throwing {
  /** Rejects with `GW_BAD_SESSION`. */
  verify (credential: string): Promise<Session | null>
}

export function throwing (verifier: SessionVerifier): Throwing {
  return {
    async verify (credential) {
      const verdict = await verifier.verify(credential)
      if (verdict === 'bad') throw gatewayError('GW_BAD_SESSION')
      return verdict
    }
  }
}

export function jwtSessions (options: JwtSessionsOptions): Throwing {
  return throwing(jwts(options))
}

export function signedSessions (options: Parameters<typeof signed>[0]): Throwing & SessionIssuer {
  const { mint, printCookie, ...verifier } = signed(options)
  return { mint, printCookie, ...throwing(verifier) }
}
