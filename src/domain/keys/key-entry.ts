import { LRUCache } from 'lru-cache'
import type { UpstreamKey } from '../upstream.ts'
import type { Probe } from './keys.ts'

/** Whether the upstream serves a key, as far as we know: it refuses it, it has no money, or nothing is wrong. */
export type KeyHealth = 'ready' | 'refused' | 'empty'

/** How a key is: in use · not while others are, for the upstream has had enough of it for some model · benched, twice · only for tasks of its own. */
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
  /** The upstream has had enough of it for some model, from then until then. */
  limited: { readonly from: number, readonly until: number }
  /** It has left the ring and serves its tasks. */
  drainingSince: number | null
  readonly models: LRUCache<string, KeyModel>
}

/** How a key fares with one model. */
interface KeyModel {
  /** Until then the other keys are asked first. */
  readonly restsUntil: number
  /** The turn in which it last got a task accepted; 0 when it never has. */
  readonly servedAt: number
}

/** Callers choose the names of models, so what is remembered of them is bounded. What is forgotten costs one call more. */
const maxModels = 1000

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
    models: new LRUCache({ max: maxModels })
  }
}

const untried: KeyModel = { restsUntil: -Infinity, servedAt: 0 }

export function modelOf ({ models }: KeyEntry, model: string): KeyModel {
  return models.get(model) ?? untried
}

/** As the wall clock has it now: `atWall` reads an instant of the monotonic one. `isLast`: it serves though it rests. */
export function statusOf (entry: KeyEntry, elapsed: number, atWall: (instant: number) => number, isLast: boolean): KeyStatus {
  const { key, health, since, limited, drainingSince, balance } = entry
  const isLimited = limited.until > elapsed
  const told = { keyId: key.id, restingUntil: null, balance }
  if (drainingSince !== null) return { ...told, state: 'draining', since: atWall(drainingSince) }
  if (health !== 'ready') return { ...told, state: health, since: atWall(since) }
  if (isLimited && !isLast) return { ...told, state: 'resting', since: atWall(limited.from), restingUntil: atWall(limited.until) }
  return { ...told, state: 'ready', since: atWall(isLimited ? since : Math.max(since, limited.until)) }
}
