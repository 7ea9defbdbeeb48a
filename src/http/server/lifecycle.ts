import { setTimeout as wait } from 'node:timers/promises'
import type { FastifyInstance } from 'fastify'

/** Counts the calls at work, so that a stop can wait for them: also for submits whose caller has gone. */
export interface Lifecycle {
  readonly begun: () => void
  readonly ended: () => void
  readonly isStopping: () => boolean
  /** Refuses new calls and resolves when the running ones are done, or after `drainMs`. */
  drain (app: FastifyInstance, drainMs: number): Promise<void>
}

export function lifecycle (): Lifecycle {
  const idle = Promise.withResolvers<void>()
  let running = 0
  let stopping = false

  return {
    begun: () => { running++ },
    ended: () => {
      running--
      if (stopping && running === 0) idle.resolve()
    },
    isStopping: () => stopping,
    async drain (app, drainMs) {
      stopping = true
      if (running === 0) idle.resolve()
      const timer = new AbortController()
      const late = wait(drainMs, undefined, { signal: timer.signal }).catch(() => {})
      const closed = app.close()
      // Not for `closed`: to Node a socket that has never sent a request (a browser opens such) is not idle, and one of
      // them would hold up every stop.
      await Promise.race([idle.promise, late])
      timer.abort()
      app.server.closeAllConnections()
      await closed
    }
  }
}
