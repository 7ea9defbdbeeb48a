import type { TaskEvent, TaskEvents } from '../domain/status/events.ts'

/** Task events within one process: nothing is lost on the way, so there is never a gap. */
export function localEvents (): TaskEvents {
  const listeners = new Set<{ readonly hear: (event: TaskEvent) => void }>()

  return {
    publish (event) {
      // A copy: a listener may well end its own subscription, or another's, while it is told.
      for (const listener of [...listeners]) if (listeners.has(listener)) listener.hear(event)
    },
    subscribe (hear) {
      const listener = { hear } // the same function may listen twice
      listeners.add(listener)
      return () => { listeners.delete(listener) }
    }
  }
}
