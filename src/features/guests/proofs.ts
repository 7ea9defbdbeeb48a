import {
  type Challenge, createChallenge, type Payload, randomInt, verifySolution, type VerifySolutionOptions
} from 'altcha-lib'
import { deriveKey } from 'altcha-lib/algorithms/pbkdf2'
import { createHash, hkdfSync } from 'node:crypto'
import { boundedText } from '../../domain/egress.ts'
import { memoized, type Secret, type SecretRef } from '../../domain/secret.ts'
import { gatewayError } from '../../errors.ts'

/** A proof that is good, and is not known to have been used. */
export interface Proof {
  /** Two proofs have two, and one has the same one however it is written. */
  readonly id: string
  /** Unix ms. It is no longer good from then on. */
  readonly expiresAt: number
}

/** What a proof is for when it is to begin a session; else it is for a submit of the guest of that name. */
export const newSession = 'session'

/** Tells whether a guest has done what is asked of guests. */
export interface GuestProofs {
  /**
   * `null`: it is none, is forged, is past its time, or is for something else. `purpose`: `newSession`, or a guest's
   * name. `ip`: the address that it comes from. Throws `GW_OVERLOADED` while it can not tell.
   */
  verify (proof: string, purpose: string, ip: string): Promise<Proof | null>
}

/** Makes what guests have to solve. */
export interface ProofChallenges {
  /** A challenge whose solution proves something for this purpose alone, as JSON. */
  challenge (purpose: string): Promise<object>
}

interface AltchaProofsOptions {
  /** The session secrets, newest first: the first signs, all verify. */
  readonly secrets: SecretRef<readonly Secret[]>
  readonly now: () => number
}

/** Long enough to solve one on an old phone, short enough that none are kept in stock, ms. */
const workValidMs = 300_000
/**
 * The work of one proof: up to so many keys are derived, half of them on the average, each by so many rounds. Measured
 * on two busy cores of a server, for half of the keys: 0.3 to 0.6 s in Chromium and in Node; phones take several times
 * that. Making a challenge costs one key.
 */
const maxKeys = 2000
const roundsPerKey = 2000
/** A proof has some 800 characters. */
const maxLength = 4096

/**
 * Proof of work by ALTCHA (https://github.com/altcha-org/altcha-lib): PBKDF2 with SHA-256, which browsers have built
 * in. A challenge says what it is for and until when, and is signed, so that nothing is remembered before it is solved,
 * and of a solution too, so that looking at one costs no derivation. The keys are derived for this use alone (RFC 5869
 * section 3.2), so that no challenge can pass for a session.
 */
export function altchaProofs ({ secrets, now }: AltchaProofsOptions): GuestProofs & ProofChallenges {
  const keys = memoized(secrets, list => list.map(secret => ({
    hmacSignatureSecret: keyFor(secret, 'challenge'),
    hmacKeySignatureSecret: keyFor(secret, 'solution')
  })))

  return {
    challenge: purpose => createChallenge({
      algorithm: 'PBKDF2/SHA-256',
      cost: roundsPerKey,
      counter: randomInt(maxKeys),
      // Not the library's own `expiresAt`, which it holds against the clock of the machine and not against ours.
      data: { purpose, expiresAt: now() + workValidMs },
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

/**
 * The challenge of a proof as ALTCHA's widget writes it, JSON in base64; `null`: it is not solved, or not signed by us.
 */
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

interface TurnstileProofsOptions {
  readonly secret: SecretRef<Secret>
  /** Hosts whose pages may show the widget; none: those that Cloudflare was told of. */
  readonly hostnames: ReadonlySet<string>
  readonly now: () => number
  /** In place of Cloudflare's own, in tests. */
  readonly url?: string | undefined
  readonly timeoutMs?: number
}

const siteverify = 'https://challenges.cloudflare.com/turnstile/v0/siteverify'
const answerMs = 5000
const maxAnswerBytes = 65_536
const maxTokenLength = 2048
/** Questions at a time. What is more than that is a flood, and no guests. */
const maxQuestions = 100
/** Tokens are good for 300 s, by Cloudflare's clock. */
const turnstileValidMs = 310_000
const retrySeconds = 5

/** What is wrong with a token. Any other code is about us, or about Cloudflare. */
const tokenErrors: ReadonlySet<string> = new Set([
  'missing-input-response',
  'invalid-input-response',
  'timeout-or-duplicate'
])

interface Verdict {
  readonly success: boolean
  readonly hostname?: string
  readonly cdata?: string
  readonly 'error-codes'?: string | readonly string[]
}

/**
 * Cloudflare's Turnstile (https://developers.cloudflare.com/turnstile/get-started/server-side-validation/). The page
 * gives what the token is for to its widget as `cData`: a token that was solved for one guest, or for a new session, is
 * no good for another. Nobody gets in while Cloudflare does not answer.
 */
export function turnstileProofs ({
  secret,
  hostnames,
  now,
  url = siteverify,
  timeoutMs = answerMs
}: TurnstileProofsOptions): GuestProofs {
  let questions = 0

  const ask = async (response: string, remoteip: string): Promise<Verdict> => {
    // A caller that has hung up has no address any more.
    const body = new URLSearchParams({ secret: secret.current.reveal(), response, ...(remoteip && { remoteip }) })
    return await read(
      await fetch(url, { method: 'POST', body, redirect: 'error', signal: AbortSignal.timeout(timeoutMs) })
    )
  }

  return {
    async verify (token, purpose, ip) {
      if (token.length > maxTokenLength) return null
      if (questions === maxQuestions) throw busy()
      questions++
      const verdict = await ask(token, ip).catch(cause => { throw busy(cause) }).finally(() => { questions-- })
      if (!verdict.success) {
        const codes = [verdict['error-codes'] ?? []].flat()
        if (codes.length > 0 && codes.every(code => tokenErrors.has(code))) return null
        throw busy(new Error(`Turnstile does not say whether a token is good: ${codes.join(', ')}`))
      }
      if (verdict.cdata !== purpose || (hostnames.size > 0 && !hostnames.has(verdict.hostname!))) return null
      return { id: createHash('sha256').update(token).digest('base64url'), expiresAt: now() + turnstileValidMs }
    }
  }
}

async function read (answer: Response): Promise<Verdict> {
  const verdict = JSON.parse(await boundedText(answer.body!, maxAnswerBytes, 'the answer')) as Verdict | null
  if (typeof verdict?.success !== 'boolean') throw new Error(`an answer with status ${answer.status} is no verdict`)
  return verdict
}

function busy (cause?: unknown) {
  return gatewayError('GW_OVERLOADED', { retryAfterSeconds: retrySeconds, cause })
}
