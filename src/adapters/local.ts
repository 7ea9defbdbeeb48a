import { LRUCache } from 'lru-cache'
import { localChannel } from '../domain/credit-notices.ts'
import type { PollLeases } from '../domain/status-poller.ts'
import type { LastStatus, TaskEvent, TaskEvents } from '../domain/task-status.ts'

/** Task events within one process: nothing is lost on the way, so there is never a gap. */
export function localEvents (): TaskEvents {
  return localChannel<TaskEvent>()
}

interface LocalPollLeasesOptions {
  /** Monotonic ms. */
  readonly elapsed: () => number
  /** A lease that has not been released by then is free again, ms: longer than a status call may last. */
  readonly leaseMs: number
}

interface Entry {
  readonly last: LastStatus | null
  readonly isAsking: boolean
  /** Monotonic ms. */
  readonly freeAt: number
  /** When the lease was last acquired because there was news, monotonic ms. */
  readonly newsAt: number
}

/** Memory for last answers; the task polled longest ago is forgotten first, which costs one early call. */
const maxBytes = 64 * 1024 * 1024
/** About what an entry takes beside its body. */
const entryBytes = 500

/** The poll leases of one process. */
export function localPollLeases ({ elapsed, leaseMs }: LocalPollLeasesOptions): PollLeases {
  const entries = new LRUCache<string, Entry>({
    maxSize: maxBytes,
    sizeCalculation: ({ last }) => entryBytes + (last === null ? 0 : last.body.length)
  })

  return {
    async acquire (taskId, intervalMs, hasNews = false) {
      const entry = entries.get(taskId)
      const newsAt = entry?.newsAt ?? -Infinity
      const isUrgent = hasNews && entry?.isAsking === false && newsAt + intervalMs <= elapsed()
      if (entry === undefined || entry.freeAt <= elapsed() || isUrgent) {
        entries.set(taskId, {
          last: entry?.last ?? null,
          isAsking: true,
          freeAt: elapsed() + leaseMs,
          newsAt: hasNews ? elapsed() : newsAt
        })
        return { acquired: true }
      }
      return { acquired: false, last: entry.last, nextInMs: entry.isAsking ? 0 : entry.freeAt - elapsed() }
    },
    async release (taskId, last, intervalMs) {
      if (last === null) entries.delete(taskId)
      else {
        entries.set(taskId, {
          last,
          isAsking: false,
          freeAt: elapsed() + intervalMs,
          newsAt: entries.get(taskId)?.newsAt ?? -Infinity
        })
      }
    }
  }
}
