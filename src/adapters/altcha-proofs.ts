import { hkdfSync } from 'node:crypto'
import { type Challenge, createChallenge, type Payload, randomInt, verifySolution, type VerifySolutionOptions } from 'altcha-lib'
import { deriveKey } from 'altcha-lib/algorithms/pbkdf2'
import { derived, type Live } from '../domain/live.ts'
import type { Secret } from '../domain/secret.ts'
import type { GuestProofs, Proof, ProofChallenges } from '../domain/sessions/guests.ts'

export interface AltchaProofsOptions {
  /** The session secrets, newest first: the first signs, all verify. */
  readonly secrets: Live<readonly Secret[]>
  readonly now: () => number
}

/** Long enough to solve one on an old phone, short enough that none are kept in stock, ms. */
const validMs = 300_000
/**
 * The work of one proof: up to so many keys are derived, half of them on the average, each by so many rounds. Measured on
 * two busy cores of a server, for half of the keys: 0.3 to 0.6 s in Chromium and in Node; phones take several times that.
 * Making a challenge costs one key.
 */
const maxKeys = 2000
const roundsPerKey = 2000
/** A proof has some 800 characters. */
const maxLength = 4096

/**
 * Proof of work by ALTCHA (https://github.com/altcha-org/altcha-lib): PBKDF2 with SHA-256, which browsers have built in. A
 * challenge says what it is for and until when, and is signed, so that nothing is remembered before it is solved, and of a
 * solution too, so that looking at one costs no derivation. The keys are derived for this use alone (RFC 5869
 * section 3.2), so that no challenge can pass for a session.
 */
export function altchaProofs ({ secrets, now }: AltchaProofsOptions): GuestProofs & ProofChallenges {
  const keys = derived(secrets, list => list.map(secret => ({
    hmacSignatureSecret: keyFor(secret, 'challenge'),
    hmacKeySignatureSecret: keyFor(secret, 'solution')
  })))

  return {
    challenge: purpose => createChallenge({
      algorithm: 'PBKDF2/SHA-256',
      cost: roundsPerKey,
      counter: randomInt(maxKeys),
      // Not the library's own `expiresAt`, which it holds against the clock of the machine and not against ours.
      data: { purpose, expiresAt: now() + validMs },
      deriveKey,
      ...keys.current[0]!
    }),
    async verify (proof, purpose) {
      if (proof.length > maxLength) return null
      for (const key of keys.current) {
        const challenge = await solved(proof, key)
        if (challenge !== null) return goodFor(challenge, purpose, now())
      }
      return null
    }
  }
}

function keyFor (secret: Secret, use: string): string {
  return Buffer.from(hkdfSync('sha256', secret.reveal(), '', `apixo-gateway guest ${use}`, 32)).toString('hex')
}

type Keys = Pick<VerifySolutionOptions, 'hmacSignatureSecret' | 'hmacKeySignatureSecret'>

/** The challenge of a proof as ALTCHA's widget writes it, JSON in base64; `null`: it is not solved, or not signed by us. */
async function solved (proof: string, keys: Keys): Promise<Challenge | null> {
  try {
    const { challenge, solution } = JSON.parse(Buffer.from(proof, 'base64').toString()) as Payload
    const { verified } = await verifySolution({ challenge, solution, deriveKey, ...keys })
    return verified ? challenge : null
  } catch {
    return null // the library trusts the shape of what it is given
  }
}

/** Nothing of a proof but what was signed names it: it could be written in many ways. */
function goodFor ({ parameters: { data }, signature }: Challenge, purpose: string, now: number): Proof | null {
  const expiresAt = Number(data!.expiresAt)
  return data!.purpose === purpose && expiresAt > now ? { id: signature!, expiresAt } : null
}
