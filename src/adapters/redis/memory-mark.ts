import { randomUUID } from 'node:crypto'
import type { Connection } from './connection.ts'
import type { KeyNames } from './key-names.ts'

export interface MemoryMarkOptions extends Pick<Connection, 'client' | 'failure'> {
  readonly keys: Pick<KeyNames, 'mark'>
  /** Told once each time that the server is found without what it was told. */
  readonly onGone: (problem: string) => void
}

/** Knows a Redis that has come back empty, or is another one. */
export interface MemoryMark {
  /** Throws `GW_STORE_DOWN` while the server is not known to be the one it was. Sees to it that it is asked each second. */
  hold (): void
  /** Asks the server, once however many ask at a time. Throws `GW_STORE_DOWN`, also when it can not say. */
  check (): Promise<void>
}

const checkEveryMs = 1000
const problems = {
  unknown: 'it has not been asked yet whether it is the one it was',
  gone: 'Redis has lost what it was told: it came back empty, or is another one. ' +
    'Bring its data back, or restart every gateway to begin anew'
}

/**
 * A Redis without its memory knows no owner, no charge and no revocation: a session that was revoked would be good again,
 * and whatever was spent could be spent once more. So nothing is served from it, until the data are back or an operator
 * has restarted the gateway, and an alarm says which.
 *
 * Nothing is sent between a new connection and the answer of the server that it leads to.
 */
export async function memoryMark ({ client, failure, keys, onGone }: MemoryMarkOptions): Promise<MemoryMark> {
  let id: string | null = null
  let state: 'same' | keyof typeof problems = 'same'
  let checkedAt = performance.now()
  let running: Promise<void> | null = null

  const look = async (): Promise<void> => {
    if (id === null) await client.set(keys.mark, randomUUID(), 'NX')
    const found = await client.get(keys.mark)
    id ??= found
    const wasGone = state === 'gone'
    state = found === id ? 'same' : 'gone'
    if (state === 'gone' && !wasGone) onGone(problems.gone)
  }
  const ask = (): Promise<void> => {
    checkedAt = performance.now()
    running ??= look().finally(() => { running = null })
    return running
  }
  const askBehind = (): void => { ask().catch(() => { /* whoever sends a command is told, and asks again */ }) }
  const hold = (): void => {
    if (state !== 'same' || performance.now() - checkedAt >= checkEveryMs) askBehind()
    if (state !== 'same') throw failure(new Error(problems[state]))
  }

  // A server that can not be written to now, such as a replica before it takes over, is marked when it can.
  await ask().catch(() => {})
  client.on('ready', () => {
    if (state === 'same' && id !== null) state = 'unknown'
    askBehind()
  })
  return {
    hold,
    async check () {
      await ask().catch(error => { throw failure(error) })
      hold()
    }
  }
}
