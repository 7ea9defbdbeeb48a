import { gatewayError } from '../../errors.ts'

export function storeDown (cause: unknown) {
  return gatewayError('GW_STORE_DOWN', { retryAfterSeconds: 1, cause })
}

/** A query that fails says so as every write does. */
export function read<T> (query: () => T): T {
  try {
    return query()
  } catch (cause) {
    throw storeDown(cause)
  }
}

/** https://sqlite.org/rescode.html#busy; the upper bytes of an extended code say why. */
export function isBusy (error: unknown): boolean {
  return (((error as { errcode?: number }).errcode ?? 0) & 0xff) === 5
}
