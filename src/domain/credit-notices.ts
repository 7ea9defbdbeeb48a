import type { Microcredits } from './policy.ts'
import { recent } from './recent.ts'

/** Of what a subject may spend, four fifths or all is used. What it has set aside counts as used. */
export interface CreditsEvent {
  readonly subject: string
  /** Of the session that has found it so: another plan may have other limits. */
  readonly plan: string
  /** Whose credits these are; `null`: the subject's own. */
  readonly pool: string | null
  /** Of that pool, or of the subject: it names this window and no other. */
  readonly window: string
  readonly usedPercent: 80 | 100
  readonly left: Microcredits
  /** Unix ms; `null`: they don't come back by themselves. */
  readonly resetsAt: number | null
}

/** Carries them between replicas: each to every listener on every replica, at most once. */
export interface CreditsEvents {
  /** Never throws. Events may get lost. */
  publish (event: CreditsEvent): void
  /** Returns the end of the subscription. */
  subscribe (listener: (event: CreditsEvent) => void): () => void
}

/**
 * Each step of a window is told to its subject once, whichever replica finds it first; after a restart perhaps once
 * more.
 */
export interface CreditNotices {
  /** Tells all who watch this subject, unless that step, or one beyond it, was told before. */
  tell (event: CreditsEvent): void
  /** Returns the end of it. */
  watch (subject: string, listener: (event: CreditsEvent) => void): () => void
  close (): void
}

/** Windows of subjects of which something was told; the one told longest ago is forgotten first. */
const maxTold = 10_000

/** `null`: there is one replica. */
export function creditNotices (shared: CreditsEvents | null): CreditNotices {
  const events = shared ?? localChannel<CreditsEvent>()
  const told = recent<number>(maxTold)
  const watching = new Map<string, Set<{ readonly hear: (event: CreditsEvent) => void }>>()
  const wasTold = (event: CreditsEvent): boolean => (told.get(nameOf(event)) ?? 0) >= event.usedPercent
  // Its own events come this way as well, and another replica's may be the same.
  const close = events.subscribe(event => {
    if (wasTold(event)) return
    told.set(nameOf(event), event.usedPercent)
    for (const { hear } of [...watching.get(event.subject) ?? []]) hear(event)
  })

  return {
    tell (event) { if (!wasTold(event)) events.publish(event) },
    watch (subject, hear) {
      const listener = { hear } // the same function may listen twice
      const listeners = watching.get(subject) ?? new Set()
      watching.set(subject, listeners.add(listener))
      return () => {
        listeners.delete(listener)
        if (listeners.size === 0 && watching.get(subject) === listeners) watching.delete(subject)
      }
    },
    close
  }
}

/** Each part is a text in quotes: no two events of different windows make one name. */
function nameOf ({ subject, plan, pool, window }: CreditsEvent): string {
  return JSON.stringify([subject, plan, pool, window])
}

interface LocalChannel<Event> {
  publish (event: Event): void
  subscribe (hear: (event: Event) => void): () => void
}

/** Carries what is published to all who listen in this process, at once. */
export function localChannel<Event> (): LocalChannel<Event> {
  const listeners = new Set<{ readonly hear: (event: Event) => void }>()

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
