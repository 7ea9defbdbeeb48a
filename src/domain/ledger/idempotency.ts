import { createHash } from 'node:crypto'
import { badRequest } from '../../errors.ts'

/** How long the first answer is kept, ms. */
export const idempotencyMs = 24 * 60 * 60 * 1000

/** An idempotency key as a caller sent it, with what it was sent for. Keys of two subjects never meet. */
export interface IdempotencyKey {
  /** 1 to 255 printable ASCII characters. */
  readonly key: string
  /** Of method, route, model and body: the same key with another fingerprint is a mistake of the caller's. */
  readonly fingerprint: string
}

/** An answer that is given again, byte for byte. */
export interface KeptAnswer {
  readonly status: number
  readonly contentType: string
  readonly body: Buffer
}

/** What became of the first request with a key. */
export type Earlier =
  /** It was another request. */
  | { readonly kind: 'mismatch' }
  | { readonly kind: 'pending' }
  /** The upstream may have accepted it. */
  | { readonly kind: 'unknown' }
  | { readonly kind: 'answered', readonly answer: KeptAnswer }
  /** It was accepted, and its answer is not known (any more): a crash came between, or its task was found later. */
  | { readonly kind: 'task', readonly taskId: string }

/**
 * Remembers for 24 hours what became of the requests that had an idempotency key. It is written by the ledger, in the
 * same atomic step as the reservation it belongs to, so that no crash leaves a charge without its key.
 */
export interface IdempotencyStore {
  /** `null`: nobody has used this key, or all that it did was undone. Throws `GW_STORE_DOWN`. */
  earlier (subject: string, key: IdempotencyKey): Promise<Earlier | null>
}

/** RFC 9651 section 3.3.3: printable ASCII in quotes, in which a quote and a backslash are escaped. */
const quotedForm = /^"((?:[\x20\x21\x23-\x5B\x5D-\x7E]|\\["\\])*)"$/
/** What clients send that have not read the draft. No comma: whoever joins two headers of one name puts it between them. */
const bareForm = /^[\x21\x23-\x2B\x2D-\x7E](?:[\x20-\x2B\x2D-\x7E]*[\x21-\x2B\x2D-\x7E])?$/
const maxKeyLength = 255

/**
 * Reads the header `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header-07 section 2.1). The quoted and the bare
 * form of one key are one key. The draft knows no parameters, so there are none. Throws `GW_BAD_REQUEST`.
 */
export function readIdempotencyKey (values: readonly string[]): string {
  const [value] = values
  if (value === undefined || values.length > 1) throw bad('is given twice')
  const quoted = quotedForm.exec(value)?.[1]
  const key = quoted === undefined ? bareForm.exec(value)?.[0] : quoted.replaceAll(/\\(["\\])/g, '$1')
  if (key === undefined || key === '') throw bad('must be printable ASCII in double quotes, or without them and then without a comma')
  if (key.length > maxKeyLength) throw bad(`must be at most ${maxKeyLength} characters long`)
  return key
}

/** Each part is preceded by its length: no two lists of parts make one text. */
export function fingerprintOf (...parts: ReadonlyArray<string | Buffer>): string {
  const hash = createHash('sha256')
  for (const part of parts) hash.update(`${Buffer.byteLength(part)}:`).update(part)
  return hash.digest('base64url')
}

function bad (problem: string) {
  return badRequest(`Idempotency-Key ${problem}.`)
}
