import { createHash, timingSafeEqual } from 'node:crypto'
import type { Secret } from '../../domain/secret.ts'

/** Equal or not, in a time that says nothing about how much of it is right: both are hashed to one length first. */
export function isSame (credential: string, secret: Secret): boolean {
  const digest = (value: string) => createHash('sha256').update(value).digest()
  return timingSafeEqual(digest(credential), digest(secret.reveal()))
}
