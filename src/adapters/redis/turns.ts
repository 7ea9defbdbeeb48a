import { randomUUID } from 'node:crypto'
import type { LastStatus, StatusTurns } from '../../domain/status/status-turns.ts'
import type { Commands } from './commands.ts'
import type { KeyNames } from './key-names.ts'

export interface RedisTurnsOptions {
  readonly now: () => number
  /** A turn that nobody has ended by then is free again, ms: longer than a status call may last. */
  readonly leaseMs: number
}

/**
 * How long the last answer outlives its interval, ms: the next one is being asked for then. It also bounds for how long a
 * replica whose clock is ahead can keep the others from asking.
 */
const slackMs = 60_000

/** The turns of all replicas: a key for each task, in a slot of its own, which goes by itself. */
export function redisTurns ({ on }: Commands, keys: KeyNames, { now, leaseMs }: RedisTurnsOptions): StatusTurns {
  /** Who asks, by the task; a name for each turn. */
  const askers = new Map<string, string>()

  const end = async (taskId: string, asker: string, last: LastStatus | null, intervalMs: number): Promise<void> => {
    const answer = last === null ? [] : [last.status, last.contentType, last.body]
    await on(keys.turn(taskId), 'endTurn', asker, now() + intervalMs, intervalMs + slackMs, ...answer)
  }
  return {
    async take (taskId, intervalMs, hasNews = false) {
      const asker = randomUUID()
      const args = [now(), intervalMs, Number(hasNews), asker, now() + leaseMs, leaseMs + slackMs]
      const reply = await on(keys.turn(taskId), 'takeTurn', ...args).catch((error: unknown) => {
        // It may have been given all the same, and then nobody would ask for as long as it lasts.
        end(taskId, asker, null, intervalMs).catch(() => {})
        throw error
      })
      if (reply === null) {
        askers.set(taskId, asker)
        return { mine: true }
      }
      const [nextInMs, status, contentType, body] = reply as readonly [number, ...Array<Buffer | null>]
      return { mine: false, last: status ? { status: Number(status), contentType: String(contentType), body: body! } : null, nextInMs }
    },
    async end (taskId, last, intervalMs) {
      const asker = askers.get(taskId) ?? ''
      askers.delete(taskId)
      await end(taskId, asker, last, intervalMs)
    }
  }
}
