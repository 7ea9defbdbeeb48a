import { altchaProofs } from '../adapters/altcha-proofs.ts'
import { turnstileProofs } from '../adapters/turnstile.ts'
import type { Live } from '../domain/live.ts'
import type { Secret } from '../domain/secret.ts'
import { type Guests, guests, type ProofChallenges } from '../domain/sessions/guests.ts'
import type { Store } from '../domain/store.ts'
import type { LiveSecrets, Settings } from '../settings.ts'

export interface GuestParts {
  /** `undefined`: there are none. */
  readonly guests: Guests | undefined
  /** `null`: guests solve nothing of ours. */
  readonly challenges: ProofChallenges | null
}

export interface GuestTerms {
  readonly store: Store
  readonly now: () => number
  /** In place of Cloudflare's, for tests. */
  readonly siteverifyUrl: string | undefined
  readonly secrets: Pick<LiveSecrets, 'sessionSecrets' | 'turnstileSecret'>
}

/** Sessions for anybody, when the operator has opened them. */
export function openGuests (settings: Settings, { store, now, secrets, siteverifyUrl }: GuestTerms): GuestParts {
  const { file: { guests: { enabled, proof, sessionsPerAddressPerDay } }, allowedOrigins, publicUrl } = settings
  if (!enabled) return { guests: undefined, challenges: null }
  const altcha = proof === 'work' ? altchaProofs({ secrets: secrets.sessionSecrets, now }) : null
  const hostnames = new Set([...allowedOrigins, publicUrl ?? []].flat().map(origin => new URL(origin).hostname))
  // Settings that ask for Turnstile have its secret, and a file that is emptied later changes nothing.
  const secret = secrets.turnstileSecret as Live<Secret>
  const turnstile = proof === 'turnstile' ? turnstileProofs({ secret, hostnames, now, url: siteverifyUrl }) : null
  const proofs = altcha ?? turnstile
  return { guests: guests({ proofs, spent: store.spentProofs, counts: store.guestCounts, sessionsPerAddressPerDay }), challenges: altcha }
}
