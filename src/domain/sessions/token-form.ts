import { hash, randomBytes, timingSafeEqual } from 'node:crypto'
import { crc32 } from 'node:zlib'
import type { TokenSecret } from './tokens.ts'

/** `apx`: a token. `apxi`: the secret of an invitation's link, which is no token. */
export type TokenKind = 'apx' | 'apxi'

const digits = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'
/** Digits to the base 62 of 64 and of 256 random bits, and of a CRC-32. */
const [idDigits, secretDigits, checkDigits] = [11, 43, 6]
const idForm = new RegExp(`^[0-9A-Za-z]{${idDigits}}$`)
const form = new RegExp(`^(apxi?)_([0-9A-Za-z]{${idDigits}})_[0-9A-Za-z]{${secretDigits + checkDigits}}$`)

/** Any other text is not to be looked up. */
export function newTokenId (): string {
  return inDigits(randomBytes(8), idDigits)
}

/**
 * Prints a new secret: `apx_<id>_<secret><checksum>`. The prefix and the fixed length are for programs that look for
 * secrets in repositories and logs; the checksum tells them, and us before any look-up, a real one from a made-up text.
 * Letters and digits alone: a double click selects the whole.
 */
export function printSecret (kind: TokenKind, id: string): string {
  const text = `${kind}_${id}_${inDigits(randomBytes(32), secretDigits)}`
  return text + checksum(text)
}

/** Whether a credential claims to be a token. */
export function isTokenLike (credential: string): boolean {
  return credential.startsWith('apx_')
}

/** Ids of other sessions have other forms. */
export function isTokenId (id: string): boolean {
  return idForm.test(id)
}

/** Whose secret this is; `null`: it was never printed by us, or not in one piece. */
export function idIn (kind: TokenKind, text: string): string | null {
  const [, foundKind, id] = form.exec(text) ?? []
  if (foundKind !== kind) return null
  return checksum(text.slice(0, -checkDigits)) === text.slice(-checkDigits) ? id! : null
}

/** The hash covers the whole printed form, so that the secret of one kind, or of one id, is none of another. */
export function hashOf (text: string): string {
  return hash('sha256', text, 'base64url')
}

/** In a time that says nothing about how much of it is right. */
export function isHashOf (text: string, { hash }: TokenSecret): boolean {
  return timingSafeEqual(Buffer.from(hashOf(text)), Buffer.from(hash))
}

/** With every request: numbers are quicker than big ones. */
function checksum (text: string): string {
  let [rest, check] = [crc32(text), '']
  for (; check.length < checkDigits; rest = Math.floor(rest / 62)) check = digits[rest % 62] + check
  return check
}

function inDigits (bytes: Buffer, length: number): string {
  let [rest, text] = [BigInt(`0x${bytes.toString('hex')}`), '']
  for (; text.length < length; rest /= 62n) text = digits[Number(rest % 62n)] + text
  return text
}
