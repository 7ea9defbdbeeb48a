import { readEnvelope } from './envelope.ts'
import { effectiveStatus } from './outcome.ts'
import type { UpstreamAnswer, UpstreamKey } from './upstream.ts'

/**
 * What a probe of the key's balance said.
 *
 * fine: the key works and has money, so the doubtful answer was about that request · refused: the upstream does not
 * accept the key · empty: no money left · unclear: the probe itself got no usable answer.
 */
export type Verdict = 'fine' | 'refused' | 'empty' | 'unclear'

/** The upstream keys and which of them may be used. */
export interface KeyRing {
  /** The ready key that was chosen longest ago, other than `except`; `undefined` when there is none. */
  choose (model: string, except?: UpstreamKey): UpstreamKey | undefined
  /** The key that made a task: it also asks for its status, benched or not. `undefined` when it has left the ring. */
  byId (keyId: string): UpstreamKey | undefined
  /**
   * An answer casts doubt on a key: ask the upstream for its balance and bench the key if that is refused or empty.
   * Concurrent doubts share one probe; a key is probed at most once in 10 s, and the last verdict holds until then.
   */
  doubt (key: UpstreamKey): Promise<Verdict>
  /** Keeps a key from one model for a minute: the key is fine, but not for that. */
  rest (key: UpstreamKey, model: string): void
  states (): ReadonlyArray<{ readonly keyId: string, readonly state: 'ready' | 'refused' | 'empty' }>
}

/** Least time between two probes of a key, ms. */
export const probeIntervalMs = 10_000
/** How long a key keeps from a model it was refused for, ms. */
export const restMs = 60_000

export interface KeyRingOptions {
  readonly keys: readonly UpstreamKey[]
  readonly probe: (key: UpstreamKey) => Promise<Verdict>
  readonly now: () => number
  /** Told when a key is benched or back. */
  readonly onChange: (keyId: string, state: 'ready' | 'refused' | 'empty') => void
}

interface Entry {
  readonly key: UpstreamKey
  state: 'ready' | 'refused' | 'empty'
  chosenAt: number
  probedAt: number
  verdict: Promise<Verdict>
  /** Model → Unix ms until which the key keeps from it. */
  readonly resting: Map<string, number>
}

export function keyRing ({ keys, probe, now, onChange }: KeyRingOptions): KeyRing {
  const entries: Entry[] = keys.map(key => ({
    key, state: 'ready', chosenAt: 0, probedAt: -Infinity, verdict: Promise.resolve('unclear'), resting: new Map()
  }))
  const entryOf = (key: UpstreamKey) => entries.find(entry => entry.key === key)!
  let turn = 0

  const change = (entry: Entry, state: Entry['state']): void => {
    if (entry.state === state) return
    entry.state = state
    onChange(entry.key.id, state)
  }

  const judge = async (entry: Entry): Promise<Verdict> => {
    const verdict = await probe(entry.key)
    if (verdict === 'fine') change(entry, 'ready')
    if (verdict === 'refused' || verdict === 'empty') change(entry, verdict)
    return verdict
  }

  const doubt = async (entry: Entry): Promise<Verdict> => {
    if (now() - entry.probedAt >= probeIntervalMs) {
      entry.probedAt = now()
      entry.verdict = judge(entry)
    }
    return await entry.verdict
  }

  /** A benched key gets its chance again without anybody's help: asked about in the background, when it is missed. */
  const reconsider = (): void => {
    for (const entry of entries) {
      if (entry.state !== 'ready') doubt(entry).catch(() => { /* the probe never rejects; a verdict is all it gives */ })
    }
  }

  return {
    choose (model, except) {
      let best: Entry | undefined
      let benched = false
      for (const entry of entries) {
        if (entry.state !== 'ready') benched = true
        else if (entry.key !== except && !isResting(entry, model, now) && entry.chosenAt < (best?.chosenAt ?? Infinity)) best = entry
      }
      if (benched) reconsider()
      if (best !== undefined) best.chosenAt = ++turn
      return best?.key
    },
    byId: keyId => entries.find(entry => entry.key.id === keyId)?.key,
    doubt: key => doubt(entryOf(key)),
    rest (key, model) { entryOf(key).resting.set(model, now() + restMs) },
    states: () => entries.map(({ key, state }) => ({ keyId: key.id, state }))
  }
}

function isResting (entry: Entry, model: string, now: () => number): boolean {
  const until = entry.resting.get(model)
  if (until === undefined || until > now()) return until !== undefined
  entry.resting.delete(model)
  return false
}

/** Whether an answer may be about our key and not about the request. Documents disagree on 401, 402 and 403. */
export function castsDoubt (status: number, message: string): boolean {
  return status === 401 || status === 402 || status === 403 ||
    (status === 400 && /insufficient[\s_-]*(?:credit|balance|fund)/i.test(message))
}

/** Reads the answer of the balance route (APIXO docs, "System": `data` is a bare number, USD). */
export function readProbe (answer: UpstreamAnswer): Verdict {
  const envelope = readEnvelope(answer.body)
  const status = effectiveStatus(answer.status, envelope)
  if (status === 401 || status === 403) return 'refused'
  if (status === 402) return 'empty'
  if (status !== 200 || typeof envelope?.data !== 'number') return 'unclear'
  return envelope.data > 0 ? 'fine' : 'empty'
}
