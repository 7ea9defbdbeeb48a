import type { KeyRing } from './key-ring.ts'
import type { Clock } from './time.ts'

/**
 * What an operator has to hear of, each under the word that it has in the log. `lasting`: it is so until it is said to
 * be over. Of the others nobody can say so: they are over when none has come for a while.
 */
export const alarmKinds = {
  /** The upstream does not serve a key of ours. */
  'key-benched': 'lasting',
  /** Unfinished tasks belong to a key that is in no ring. */
  'key-gone': 'passing',
  /** The store does not answer, or does not take a step. */
  'store-down': 'lasting',
  /** The store is not the one it was: nothing is served from it. */
  'store-gone': 'lasting',
  /** Submits or tasks without a known end. */
  'unknown-outcome': 'passing',
  /** A call of an LLM has cost more than was set aside for it. */
  'over-reserve': 'passing',
  /** A subject has more lost submits than are remembered. */
  repeats: 'passing',
  /** The keys of an issuer can not be read. */
  'issuer-keys': 'passing',
  /** A file with a secret can not be used. */
  'secret-file': 'lasting',
  /** A key has less money upstream than the operator wants it to have. */
  'upstream-balance': 'lasting',
  /** Far more callers are refused than were. */
  refusals: 'lasting',
  /** So much of a ceiling is used. */
  ceiling: 'lasting',
  /** The ledger's own check has found a fault. */
  'ledger-check': 'lasting'
} as const satisfies Record<string, 'lasting' | 'passing'>

export type AlarmKind = keyof typeof alarmKinds

/** How long one that passes is on after the last time, ms. */
export const passingMs = 15 * 60_000

/** What is wrong. */
export interface Alarm {
  readonly kind: AlarmKind
  /** What of its kind it is about: alarms of one kind about one thing are one. Empty: the gateway as a whole. */
  readonly about: string
  /** How bad it is, where that grows: the percentage of a ceiling. A higher one is news. */
  readonly grade?: number | undefined
  /** What goes into the log with it. No key, token, prompt or URL of a result. */
  readonly fields: Readonly<Record<string, unknown>>
  /** A sentence without a name in it. */
  readonly text: string
}

/** An alarm that is on. */
export interface ActiveAlarm extends Alarm {
  /** Unix ms. */
  readonly since: number
  /** How often it was raised since then. */
  readonly count: number
}

/** Where what goes wrong is said. Neither throws, and nothing waits for either. */
export interface Alarms {
  /** Writes it into the log, each time; and it is on from now on. `level`: error when absent. */
  raise (alarm: Alarm, level?: 'warn' | 'error'): void
  /** It is over. Nothing, if it was not on. */
  clear (kind: AlarmKind, about: string): void
}

/** All alarms of this process. */
export interface AlarmBoard extends Alarms {
  /**
   * Raises it where `isWrong`, and clears it where not, for what is looked at again and again: what goes on is said
   * once, and again when its grade is another.
   */
  set (alarm: Alarm, isWrong: boolean): void
  /** Those that are on, in the order in which they came. */
  active (): readonly ActiveAlarm[]
}

/** Of a log, what is needed here. */
type AlarmLog = Readonly<Record<'info' | 'warn' | 'error', (fields: object, text: string) => void>>

interface AlarmBoardOptions extends Pick<Clock, 'now' | 'elapsed'> {
  readonly log: AlarmLog
}

/** The log always has them; whoever else is to hear of them looks at the board. */
export function alarmBoard ({ log, now, elapsed }: AlarmBoardOptions): AlarmBoard {
  const on = new Map<string, { readonly alarm: ActiveAlarm, readonly endsAt: number }>()

  /** `undefined`: it is not on, or over by now. */
  const find = (name: string): ActiveAlarm | undefined => {
    const found = on.get(name)
    if (found !== undefined && found.endsAt > elapsed()) return found.alarm
    on.delete(name)
    return undefined
  }
  const raise: Alarms['raise'] = (alarm, level = 'error') => {
    const { kind, about, fields, text } = alarm
    log[level]({ alarm: kind, ...fields }, text)
    const name = alarmName(kind, about)
    const { since = now(), count = 0 } = find(name) ?? {}
    on.set(name, {
      alarm: { ...alarm, since, count: count + 1 },
      endsAt: alarmKinds[kind] === 'lasting' ? Infinity : elapsed() + passingMs
    })
  }
  const clear: Alarms['clear'] = (kind, about) => {
    if (on.delete(alarmName(kind, about))) log.info({ over: kind, about }, 'an alarm is over')
  }

  return {
    raise,
    clear,
    set (alarm, isWrong) {
      const { kind, about, grade } = alarm
      const earlier = find(alarmName(kind, about))
      if (!isWrong) clear(kind, about)
      else if (earlier === undefined || earlier.grade !== grade) raise(alarm)
    },
    active: () => [...on.keys()].flatMap(name => find(name) ?? [])
  }
}

/** The two together are one alarm. No kind has a space in it. */
export function alarmName (kind: AlarmKind, about: string): string {
  return `${kind} ${about}`
}

/** What a replica has seen of an alarm last. Instants are Unix ms. */
export interface SeenAlarm {
  readonly kind: AlarmKind
  readonly about: string
  readonly grade: number | null
  readonly since: number
  /** It is over then, unless a replica says before that it goes on. */
  readonly until: number
  /** As often as that replica has raised it. */
  readonly count: number
  readonly text: string
  /** Of the fields of its log line, what may leave the house. */
  readonly details: Readonly<Record<string, string | number>>
}

/** What the operator was told of it last. Instants are Unix ms. */
export interface ToldAlarm {
  /** That it is on; else that it is over, or nothing at all. */
  readonly isOn: boolean
  readonly grade: number | null
  /** `null`: nothing was told yet. */
  readonly at: number | null
  /** Messages that did not arrive since then. */
  readonly attempts: number
  readonly nextAt: number
}

export interface BookedAlarm {
  /** As `alarmName` makes it. */
  readonly name: string
  readonly seen: SeenAlarm
  readonly told: ToldAlarm | null
}

/**
 * What all replicas have seen, and what the operator was told of it, over restarts. There are as many as there are keys
 * and ceilings, at the most. Every method is one atomic step and throws `GW_STORE_DOWN`.
 */
export interface AlarmBook {
  all (): Promise<readonly BookedAlarm[]>
  /** The last to see it is right. What was told of it stays. */
  see (name: string, seen: SeenAlarm): Promise<void>
  tell (name: string, told: ToldAlarm): Promise<void>
  forget (name: string): Promise<void>
}

/** Probes the store, says when it does not answer, and throws `GW_STORE_DOWN` then. */
export function storeWatch (probe: () => Promise<void>, alarms: Pick<AlarmBoard, 'set' | 'clear'>) {
  const alarm: Alarm = { kind: 'store-down', about: '', fields: {}, text: 'the store does not answer' }
  return async (): Promise<void> => {
    try {
      await probe()
    } catch (error) {
      alarms.set(alarm, true)
      throw error
    }
    alarms.clear('store-down', '')
    alarms.clear('store-gone', '')
  }
}

/** A key that was benched and has left the ring since is nobody's trouble any more. */
export function benchWatch (
  keys: Pick<KeyRing, 'states'>, alarms: Pick<AlarmBoard, 'active' | 'clear'>
): () => Promise<void> {
  return async () => {
    const benched = alarms.active().filter(({ kind }) => kind === 'key-benched')
    if (benched.length === 0) return
    const inRing = new Set(keys.states().filter(({ state }) => state !== 'draining').map(({ keyId }) => keyId))
    for (const { kind, about } of benched) if (!inRing.has(about)) alarms.clear(kind, about)
  }
}
