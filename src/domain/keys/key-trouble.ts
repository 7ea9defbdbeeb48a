import type { ErrorCode } from '../../errors.ts'
import type { Envelope } from '../bodies/envelope.ts'
import type { UpstreamAnswer, UpstreamKey } from '../upstream.ts'
import { castsDoubt, type KeyChoice } from './keys.ts'

/** As much of an answer as casts doubt on a key. */
interface Doubtful {
  readonly status: number
  readonly envelope: Envelope
  readonly answer?: Pick<UpstreamAnswer, 'retryAfter'>
}
export interface KeyTrouble { readonly code: ErrorCode, readonly mayTryAnother: boolean }

/**
 * Our key's trouble is not the caller's, and the caller's is not our key's. A doubtful answer makes the ring probe the
 * key. `null`: the answer is the caller's own business and passes. `model`: of a submit.
 */
export async function keyTrouble (
  { status, envelope, answer }: Doubtful, key: UpstreamKey, keys: KeyChoice, model?: string
): Promise<KeyTrouble | null> {
  // The next caller need not meet the same limit. This one does: what it was told is true of its request.
  if (status === 429 && model !== undefined) keys.learn(key, model, 'limited', answer?.retryAfter)
  if (!castsDoubt(status, envelope.message)) return null
  const verdict = await keys.doubt(key)
  const mayTryAnother = status === 401 || status === 402
  if (verdict === 'empty') return { code: 'GW_NO_KEY', mayTryAnother }
  if (verdict === 'refused') return { code: 'GW_UPSTREAM_REFUSED_KEY', mayTryAnother }
  if (!mayTryAnother) return null
  // The key works, but not for this (nor does its money reach, perhaps): never a 401 to a caller, whose SDK would log
  // out. Only a submit's 401 is about the model; a 402 may be about this one caller's price, and must not shut out others.
  if (verdict === 'fine' && model !== undefined && status === 401) keys.learn(key, model, 'denied')
  return { code: 'GW_UPSTREAM_REFUSED_KEY', mayTryAnother }
}
