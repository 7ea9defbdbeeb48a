import { badRequest } from '../../errors.ts'
import { fingerprintOf } from '../ledger/idempotency.ts'

/** A store's cursor with a checksum: one that was cut, made up, or is of another list, is told apart from an end. */
export function sealCursor (list: string, cursor: string): string {
  return `${cursor}~${fingerprintOf('cursor', list, cursor).slice(0, 8)}`
}

/** The store's cursor again. Throws `GW_BAD_REQUEST`. */
export function openCursor (list: string, sealed: string): string {
  const cursor = sealed.slice(0, Math.max(0, sealed.lastIndexOf('~')))
  if (sealed === sealCursor(list, cursor)) return cursor
  throw badRequest('cursor must be the next of an earlier page.')
}
