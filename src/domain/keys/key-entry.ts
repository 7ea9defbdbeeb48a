import type { UpstreamKey } from '../upstream.ts'
import type { Probe } from './keys.ts'

/** Whether the upstream serves a key, as far as we know: it refuses it, it has no money, or nothing is wrong. */
export type KeyHealth = 'ready' | 'refused' | 'empty'

/** How a key is: in use · not for a while, for the upstream has had enough of it · benched, twice · only for tasks of its own. */
export const keyStates = ['ready', 'resting', 'refused', 'empty', 'draining'] as const
export type KeyState = typeof keyStates[number]

/** A key as the operator sees it. */
export interface KeyStatus {
  readonly keyId: string
  readonly state: KeyState
  /** Unix ms. */
  readonly since: number
  /** Unix ms, while it rests. */
  readonly restingUntil: number | null
  /** USD, as the last probe told; `null` when it told none, or there was none. */
  readonly balance: number | null
}

/** What the ring remembers of a key. All instants are of the monotonic clock, ms. */
export interface KeyEntry {
  readonly key: UpstreamKey
  health: KeyHealth
  /** Since when it has this health, or is back in the ring. */
  since: number
  /** The turn in which it was chosen last. */
  chosenAt: number
  probedAt: number
  probe: Promise<Probe>
  balance: number | null
  /** The upstream has had enough of it from then until then. */
  limited: { readonly from: number, readonly until: number }
  /** It has left the ring and serves its tasks. */
  drainingSince: number | null
  /** Model → instant until which the key keeps from it. */
  readonly models: Map<string, number>
}

export function keyEntry (key: UpstreamKey, at: number): KeyEntry {
  return {
    key,
    health: 'ready',
    since: at,
    chosenAt: 0,
    probedAt: -Infinity,
    probe: Promise.resolve({ verdict: 'unclear', balance: null }),
    balance: null,
    limited: { from: at, until: at },
    drainingSince: null,
    models: new Map()
  }
}

/** Until when it takes nothing for a model; in the past when it does not rest. */
export function restsUntil ({ models, limited }: KeyEntry, model: string, at: number): number {
  const until = models.get(model) ?? -Infinity
  if (until <= at) models.delete(model)
  return Math.max(until, limited.until)
}

/** As the wall clock has it now: `atWall` reads an instant of the monotonic one. */
export function statusOf (entry: KeyEntry, elapsed: number, atWall: (instant: number) => number): KeyStatus {
  const { key, health, since, limited, drainingSince, balance } = entry
  const told = { keyId: key.id, restingUntil: null, balance }
  if (drainingSince !== null) return { ...told, state: 'draining', since: atWall(drainingSince) }
  if (health !== 'ready') return { ...told, state: health, since: atWall(since) }
  if (limited.until > elapsed) return { ...told, state: 'resting', since: atWall(limited.from), restingUntil: atWall(limited.until) }
  return { ...told, state: 'ready', since: atWall(Math.max(since, limited.until)) }
}
