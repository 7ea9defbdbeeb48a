import { LRUCache } from 'lru-cache'
import type { ErrorCode } from '../errors.ts'
import { type Clock, retryAfterMs } from './time.ts'
import { effectiveStatus, type Envelope, readEnvelope, type UpstreamAnswer, type UpstreamKey } from './upstream.ts'

/** Whether the upstream serves a key, as far as we know: it refuses it, it has no money, or nothing is wrong. */
type KeyHealth = 'ready' | 'refused' | 'empty'

/**
 * ready: in use · resting: the upstream rate-limits it for some model, others are used first · refused and empty:
 * disabled · draining: it has left the settings and serves the tasks it has made.
 */
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
  /** USD, as the last probe said; `null` when it said nothing, or there was none. */
  readonly balance: number | null
}

/** What the ring remembers of a key. All instants are of the monotonic clock, ms. */
interface KeyEntry {
  readonly key: UpstreamKey
  health: KeyHealth
  /** Since when it has this health, or is back in the ring. */
  since: number
  /** When it was chosen last, as a count of all choices. */
  chosenAt: number
  probedAt: number
  probe: Promise<Probe>
  balance: number | null
  /** When the upstream rate-limits it for some model. */
  limited: { readonly from: number, readonly until: number }
  /** It has left the ring and serves its tasks. */
  drainingSince: number | null
  readonly models: LRUCache<string, KeyModel>
}

/** How a key fares with one model. */
interface KeyModel {
  /** Until then the other keys are asked first. */
  readonly restsUntil: number
  /** When it last got a task accepted, as a count of all choices; 0 when it never has. */
  readonly servedAt: number
}

/**
 * Callers choose the names of models, so what is remembered of them is bounded. What is forgotten costs one call more.
 */
const maxModels = 1000

function keyEntry (key: UpstreamKey, at: number): KeyEntry {
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

function modelOf ({ models }: KeyEntry, model: string): KeyModel {
  return models.get(model) ?? untried
}

/**
 * The status at this instant. `atWall` turns an instant of the monotonic clock into Unix ms. `isLast`: all keys rest,
 * and this one serves all the same.
 */
function statusOf (
  entry: KeyEntry,
  elapsed: number,
  atWall: (instant: number) => number,
  isLast: boolean
): KeyStatus {
  const { key, health, since, limited, drainingSince, balance } = entry
  const isLimited = limited.until > elapsed
  const common = { keyId: key.id, restingUntil: null, balance }
  if (drainingSince !== null) return { ...common, state: 'draining', since: atWall(drainingSince) }
  if (health !== 'ready') return { ...common, state: health, since: atWall(since) }
  if (isLimited && !isLast) {
    return { ...common, state: 'resting', since: atWall(limited.from), restingUntil: atWall(limited.until) }
  }
  return { ...common, state: 'ready', since: atWall(isLimited ? since : Math.max(since, limited.until)) }
}

/**
 * What a probe of the key's balance said.
 *
 * fine: the key works and has money, so the doubtful answer was about that request · refused: the upstream does not
 * accept the key · empty: no money left · unclear: the probe itself got no usable answer.
 */
export type ProbeResult = 'fine' | 'refused' | 'empty' | 'unclear'

export interface Probe {
  readonly verdict: ProbeResult
  /** USD; `null` when the answer has none. */
  readonly balance: number | null
}

/** What requests need of the upstream keys. */
export interface KeyChoice {
  /**
   * The ready key that was chosen longest ago; when all rest for this model, the one whose rest ends first. `except`:
   * that one was tried just now, so the one that served this model last is the best choice. `undefined` when no other
   * is ready. A rest is only a preference: more keys are never worse than one.
   */
  choose (model: string, except?: UpstreamKey): UpstreamKey | undefined
  /**
   * The key that made a task: its status is asked with the same one, even if it is disabled, resting or draining.
   * `undefined` when it has left the ring.
   */
  byId (keyId: string): UpstreamKey | undefined
  /**
   * An answer casts doubt on a key: asks the upstream for its balance, and disables the key if that is refused or
   * empty. Concurrent calls share one probe; a key is probed at most once in 10 s, and the last result holds until
   * then.
   */
  verify (key: UpstreamKey): Promise<ProbeResult>
  /**
   * What the upstream said to a submit. `accepted`: the key serves this model. `denied`: the key is fine, but not for
   * this model; it rests for this model for a minute. `limited`: it is rate-limited; it rests for this model for as
   * long as `retryAfter` says, a minute at most. Callers can cause the last two.
   */
  learn (key: UpstreamKey, model: string, said: 'accepted' | 'denied' | 'limited', retryAfter?: string): void
  /** When to choose again when no key was ready, ms. Disabled keys are probed by then. */
  readyInMs (): number
}

/** The upstream keys and which of them may be used; and what the operator does with them. */
export interface KeyRing extends KeyChoice {
  states (): readonly KeyStatus[]
  /**
   * Uses these keys from now on. A key that is not among them drains: it takes no new submit, and serves the tasks it
   * has made (`byId`) for `drainMs`. A key that comes back is as it was: in use, or disabled.
   */
  replace (keys: readonly UpstreamKey[]): void
}

/** Least time between two probes of a key, ms. */
export const probeIntervalMs = 10_000
/** How long a key rests for a model it was refused for, ms. The longest rest there is. */
export const restMs = 60_000
/** How long a rate-limited key rests when the upstream does not say, ms. APIXO documents no `retry-after`. */
export const limitedMs = 5000

interface KeyRingOptions extends Clock {
  readonly keys: readonly UpstreamKey[]
  /** Never rejects. */
  readonly probe: (key: UpstreamKey) => Promise<Probe>
  /** How long a key that was replaced serves its tasks: as long as one may run, ms. */
  readonly drainMs: number
  /** Called when a key is disabled or back in use. */
  readonly onChange: (keyId: string, state: KeyHealth) => void
}

export function keyRing ({ keys, drainMs, now, elapsed, probe, onChange }: KeyRingOptions): KeyRing {
  const entries = keyEntries(keys, drainMs, elapsed)
  const verify = keyVerification({ probe, elapsed, onChange })
  let choices = 0

  return {
    choose (model, except) {
      const ready: KeyEntry[] = []
      for (const entry of entries.serving()) {
        // A disabled key comes back by itself: it is probed in the background whenever it could have been chosen.
        if (entry.health !== 'ready') verify(entry).catch(() => { /* never: a probe does not reject */ })
        else if (entry.key.id !== except?.id) ready.push(entry)
      }
      const best = (except && lastToServe(ready, model)) ?? firstToServe(ready, model, elapsed())
      if (best !== undefined) best.chosenAt = ++choices
      return best?.key
    },
    byId: keyId => entries.of(keyId)?.key,
    async verify ({ id }) {
      const entry = entries.of(id)
      return entry === undefined ? 'unclear' : await verify(entry)
    },
    learn ({ id }, model, said, retryAfter = '') {
      const entry = entries.of(id)
      if (entry === undefined) return
      const at = elapsed()
      if (said === 'accepted') {
        entry.models.set(model, { restsUntil: at, servedAt: ++choices })
        return
      }
      const ms = said === 'denied' ? restMs : Math.min(retryAfterMs(retryAfter, now()) ?? limitedMs, restMs)
      const { restsUntil, servedAt } = modelOf(entry, model)
      entry.models.set(model, { restsUntil: Math.max(restsUntil, at + ms), servedAt })
      if (said === 'limited') entry.limited = { from: at, until: at + ms }
    },
    readyInMs () {
      const readyAt = entries
        .serving()
        .map(({ health, probedAt }) => (health === 'ready' ? elapsed() : probedAt + probeIntervalMs))
      return Math.max(0, Math.min(...readyAt) - elapsed())
    },
    states () {
      const [at, wall] = [elapsed(), now()]
      const last = lastResort(entries.serving(), at)
      return entries.all().map(entry => statusOf(entry, at, instant => wall - at + instant, entry === last))
    },
    replace: entries.replace
  }
}

function firstToServe (ready: readonly KeyEntry[], model: string, at: number): KeyEntry | undefined {
  let best: KeyEntry | undefined
  let leastMs = Infinity
  for (const entry of ready) {
    const restMs = Math.max(0, modelOf(entry, model).restsUntil - at)
    if (best !== undefined && (restMs > leastMs || (restMs === leastMs && entry.chosenAt >= best.chosenAt))) continue
    best = entry
    leastMs = restMs
  }
  return best
}

/** That a key has served a model is sure; that it does not is only what one caller was told. */
function lastToServe (ready: readonly KeyEntry[], model: string): KeyEntry | undefined {
  let last: KeyEntry | undefined
  let lastAt = 0
  for (const entry of ready) {
    const { servedAt } = modelOf(entry, model)
    if (servedAt <= lastAt) continue
    last = entry
    lastAt = servedAt
  }
  return last
}

/** When all keys are limited, the one whose limit ends first: it goes on serving. */
function lastResort (serving: readonly KeyEntry[], at: number): KeyEntry | undefined {
  const ready = serving.filter(({ health }) => health === 'ready')
  if (ready.some(({ limited }) => limited.until <= at)) return undefined
  return ready.sort((one, other) => one.limited.until - other.limited.until)[0]
}

/** All keys, those that drain among them. `serving`: those that take submits. */
function keyEntries (keys: readonly UpstreamKey[], drainMs: number, elapsed: () => number) {
  const entries = new Map(keys.map(key => [key.id, keyEntry(key, elapsed())]))
  const all = (): KeyEntry[] => {
    for (const [id, { drainingSince }] of entries) {
      if (drainingSince !== null && drainingSince + drainMs <= elapsed()) entries.delete(id)
    }
    return [...entries.values()]
  }
  const serving = () => all().filter(({ drainingSince }) => drainingSince === null)
  return {
    all,
    serving,
    of: (id: string) => all().find(({ key }) => key.id === id),
    replace (replacements: readonly UpstreamKey[]): void {
      const ids = new Set(replacements.map(({ id }) => id))
      for (const entry of all()) if (!ids.has(entry.key.id)) entry.drainingSince ??= elapsed()
      for (const key of replacements) {
        const known = entries.get(key.id)
        if (known === undefined) entries.set(key.id, keyEntry(key, elapsed()))
        else if (known.drainingSince !== null) reinstate(known, elapsed())
      }
    }
  }
}

function reinstate (entry: KeyEntry, at: number): void {
  entry.drainingSince = null
  if (entry.health === 'ready') entry.since = at
}

function keyVerification ({ probe, elapsed, onChange }: Pick<KeyRingOptions, 'probe' | 'elapsed' | 'onChange'>) {
  const change = (entry: KeyEntry, health: KeyHealth): void => {
    if (entry.health === health) return
    entry.health = health
    entry.since = elapsed()
    onChange(entry.key.id, health)
  }

  const probeNow = async (entry: KeyEntry): Promise<Probe> => {
    const found = await probe(entry.key)
    const { verdict } = found
    entry.balance = found.balance
    if (verdict === 'fine') change(entry, 'ready')
    if (verdict === 'refused' || verdict === 'empty') change(entry, verdict)
    return found
  }

  return async (entry: KeyEntry): Promise<ProbeResult> => {
    if (elapsed() - entry.probedAt >= probeIntervalMs) {
      entry.probedAt = elapsed()
      entry.probe = probeNow(entry)
    }
    return (await entry.probe).verdict
  }
}

/** Whether an answer may be about our key and not about the request. Documents disagree on 401, 402 and 403. */
export function needsVerification (status: number, message: string): boolean {
  return status === 401 || status === 402 || status === 403 ||
    (status === 400 && /insufficient[\s_-]*(?:credit|balance|fund)/i.test(message))
}

/** Reads the answer of the balance route (APIXO docs, "System": `data` is a bare number, USD). */
export function readProbe (answer: UpstreamAnswer): Probe {
  const envelope = readEnvelope(answer.body)
  const status = effectiveStatus(answer.status, envelope)
  if (status === 401 || status === 403) return { verdict: 'refused', balance: null }
  if (status === 402) return { verdict: 'empty', balance: null }
  if (status !== 200 || typeof envelope?.data !== 'number') return { verdict: 'unclear', balance: null }
  return { verdict: envelope.data > 0 ? 'fine' : 'empty', balance: envelope.data }
}

/** An answer that may be about our key and not about the request. */
interface KeyAnswer {
  readonly status: number
  readonly envelope: Envelope
  readonly answer?: Pick<UpstreamAnswer, 'retryAfter'>
}

export interface KeyTrouble { readonly code: ErrorCode, readonly mayTryAnother: boolean }

/**
 * Whether an answer is about our key, which the caller must not be blamed for, or about the caller's request, which the
 * key must not be blamed for. An answer that may be about the key makes the ring probe it. `null`: the answer is about
 * the request and is passed on. `model`: of a submit.
 */
export async function keyTrouble (
  { status, envelope, answer }: KeyAnswer, key: UpstreamKey, keys: KeyChoice, model?: string
): Promise<KeyTrouble | null> {
  // The next caller need not meet the same limit. This one gets the 429: it is true of its request.
  if (status === 429 && model !== undefined) keys.learn(key, model, 'limited', answer?.retryAfter)
  if (!needsVerification(status, envelope.message)) return null
  const verdict = await keys.verify(key)
  const mayTryAnother = status === 401 || status === 402
  if (verdict === 'empty') return { code: 'GW_NO_KEY', mayTryAnother }
  if (verdict === 'refused') return { code: 'GW_UPSTREAM_REFUSED_KEY', mayTryAnother }
  if (!mayTryAnother) return null
  // The key works, but not for this (nor does its money reach, perhaps): never a 401 to a caller, whose SDK would log
  // out. Only a submit's 401 is about the model; a 402 may be about this one caller's price, and must not shut out
  // others.
  if (verdict === 'fine' && model !== undefined && status === 401) keys.learn(key, model, 'denied')
  return { code: 'GW_UPSTREAM_REFUSED_KEY', mayTryAnother }
}
