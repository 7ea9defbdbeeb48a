import type { Earlier, IdempotencyStore } from '../../domain/ledger/idempotency.ts'
import type { Commands, Reply } from './commands.ts'
import { decoded, encoded } from './key-names.ts'

/**
 * Idempotency keys in Redis. They are written by the scripts of the ledger; what is no answer is read off the reservation.
 * `countsSince`: keys that were made later than this count, Unix ms.
 */
export function redisIdempotency ({ ofSubject }: Commands, countsSince: () => number): IdempotencyStore {
  return {
    async earlier (subject, { key, fingerprint }) {
      return earlierFrom(await ofSubject(subject, 'earlier', encoded(key), fingerprint, countsSince()) as Reply[])
    }
  }
}

export function earlierFrom ([kind, status, contentType, body]: readonly Reply[]): Earlier | null {
  if (kind === undefined) return null
  const word = String(kind) as Earlier['kind']
  if (word === 'task') return { kind: word, taskId: decoded(String(status)) }
  if (word !== 'answered') return { kind: word }
  return { kind: word, answer: { status: Number(status), contentType: String(contentType), body: body as Buffer } }
}
