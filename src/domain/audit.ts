import { fingerprintOf } from './ledger.ts'
import type { Page, PageRequest } from './records.ts'
import { dayMs, hourMs } from './time.ts'

/** What an operator may be asked about later. */
export type AuditKind =
  | 'mint'
  | 'revoke'
  | 'refusals'
  | 'settings'
  | 'secret'
  | 'grant'
  | 'extra'
  | 'release'
  | 'export'
  | 'erase'
  | 'create'
  | 'rotate'
  | 'invite'
  | 'accept'

/** Holds no secret, no token, no prompt and no URL of a result. Secrets are named by their fingerprints. */
export interface AuditEntry {
  /** Unix ms. */
  readonly at: number
  readonly kind: AuditKind
  /** `issuer`, `admin`, `cli`, `gateway`, or a session's subject. */
  readonly actor: string
  /** The subject that it is about; `null`: it is about none. */
  readonly subject: string | null
  /** A flat row of facts, by kind. */
  readonly detail: Readonly<Record<string, string | number | boolean | null>>
}

/**
 * What an entry is kept with. Callers begin and end sessions, and are refused, as often as they like: those entries
 * must not push out what the operator has done.
 */
export const auditParts = ['operator', 'sessions', 'refusals'] as const
export type AuditPart = typeof auditParts[number]

const ofSessions: ReadonlySet<AuditKind> = new Set<AuditKind>(['mint', 'revoke', 'accept'])

export function auditPartOf ({ kind, actor }: Pick<AuditEntry, 'kind' | 'actor'>): AuditPart {
  if (kind === 'refusals') return kind
  return ofSessions.has(kind) && actor !== 'admin' && actor !== 'cli' ? 'sessions' : 'operator'
}

/** What the operator has done is kept for so long, whatever else happens, ms. */
export const auditRetentionMs = 400 * dayMs

/** Written to at its end, and never changed. */
export interface AuditTrail {
  /** All or none, on disk when it resolves. Throws `GW_STORE_DOWN`. */
  append (entries: readonly AuditEntry[]): Promise<void>
  /** The newest first. Throws `GW_STORE_DOWN`. */
  read (page: PageRequest): Promise<Page<AuditEntry>>
}

/**
 * Counts refusals by code and subject. An entry in the audit trail for each single refusal would let everybody who can
 * send a request fill the disk, and so would one every few seconds: of one code and subject there is a row an hour, the
 * first of them at once.
 */
export interface RejectionCounter {
  /** `stage`: of the pipeline. `subject`: `null` for a caller that has not said who it is. */
  count (code: string, stage: string, subject: string | null): void
  /**
   * Writes an entry for each code and subject that has had none for an hour; `all`: for the others as well, before a
   * stop. Throws `GW_STORE_DOWN`; the counts are kept then.
   */
  flush (all?: boolean): Promise<void>
}

interface RejectionCounterOptions {
  readonly trail: AuditTrail
  readonly now: () => number
  /** Monotonic ms. */
  readonly elapsed: () => number
  /** Most rows of one hour: what is refused to further subjects is counted without their names. */
  readonly maxRows: number
}

/** Of one code and subject: how often, at which stages, since it was written last. */
interface Row {
  readonly code: string
  readonly subject: string | null
  stages: Map<string, number>
  /** Monotonic ms; `null`: it never was. */
  writtenAt: number | null
}

export function rejectionCounter ({ trail, now, elapsed, maxRows }: RejectionCounterOptions): RejectionCounter {
  const rows = new Map<string, Row>()

  const add = (code: string, stage: string, subject: string | null, count: number): void => {
    // A code has no space in it.
    const name = subject === null ? code : `${code} ${subject}`
    let row = rows.get(name)
    if (row === undefined) {
      if (subject !== null && rows.size >= maxRows) return add(code, stage, null, count)
      row = { code, subject, stages: new Map(), writtenAt: null }
      rows.set(name, row)
    }
    row.stages.set(stage, (row.stages.get(stage) ?? 0) + count)
  }
  const isOver = ({ writtenAt }: Row): boolean => writtenAt === null || elapsed() - writtenAt >= hourMs

  return {
    count: (code, stage, subject) => add(code, stage, subject, 1),
    async flush (all = false) {
      const due = [...rows].filter(([, row]) => row.stages.size > 0 && (all || isOver(row)))
      for (const [name, row] of rows) if (row.stages.size === 0 && isOver(row)) rows.delete(name)
      if (due.length === 0) return
      const flushed = due.map(([, row]) => ({ ...row }))
      for (const [, row] of due) Object.assign(row, { stages: new Map(), writtenAt: elapsed() })
      try {
        await trail.append(flushed.map(row => refusalEntry(row, now())))
      } catch (error) {
        for (const [, row] of due) row.writtenAt = null
        for (const { code, subject, stages } of flushed) {
          for (const [stage, count] of stages) add(code, stage, subject, count)
        }
        throw error
      }
    }
  }
}

function refusalEntry ({ code, subject, stages }: Row, at: number): AuditEntry {
  const count = [...stages.values()].reduce((sum, count) => sum + count, 0)
  return { at, kind: 'refusals', actor: 'gateway', subject, detail: { code, count, ...Object.fromEntries(stages) } }
}

/** What a rotation has changed about the secrets of a setting, by their fingerprints. */
export interface SecretRotation {
  readonly setting: string
  readonly inUse: readonly string[]
  /** In use before, and no longer. */
  readonly gone: readonly string[]
}

/** Keeps in the audit trail which secrets have come and gone while the gateway ran. */
interface Rotations {
  /** Resolves when it is in the trail. Throws `GW_STORE_DOWN`, and keeps it for the next `flush` then. */
  write (rotation: SecretRotation): Promise<void>
  /** Writes what is kept. Throws `GW_STORE_DOWN`. */
  flush (): Promise<void>
}

export function rotations (trail: Pick<AuditTrail, 'append'>, now: () => number): Rotations {
  const kept: AuditEntry[] = []
  let last = Promise.resolve()

  const append = async (): Promise<void> => {
    if (kept.length === 0) return
    const entries = [...kept]
    await trail.append(entries)
    kept.splice(0, entries.length)
  }
  /** One after another, or an entry would be written twice. */
  const flush = (): Promise<void> => {
    last = last.then(append, append)
    return last
  }

  return {
    write (rotation) {
      kept.push(rotationEntry(rotation, now()))
      return flush()
    },
    flush
  }
}

/** The fingerprints as the entries of settings show them. */
function rotationEntry ({ setting, inUse, gone }: SecretRotation, at: number): AuditEntry {
  const detail = { setting, inUse: fingerprintList(inUse), gone: gone.length === 0 ? null : fingerprintList(gone) }
  return { at, kind: 'secret', actor: 'gateway', subject: null, detail }
}

function fingerprintList (fingerprints: readonly string[]): string {
  return fingerprints.map(fingerprint => `sha256:${fingerprint}`).join(', ')
}

/** Name → value as it is shown, secrets as fingerprints. */
type ShownSettings = ReadonlyMap<string, string>

/** Keeps in the audit trail which settings the gateway runs with. */
interface SettingsRecord {
  /**
   * Writes an entry when the settings are not those of the latest one; later on it does nothing. Throws
   * `GW_STORE_DOWN`.
   */
  write (): Promise<void>
}

/** Entries that are looked through for the latest one of settings: far more than are made in a day under attack. */
const maxPages = 200
const pageSize = 500
/** Longer lists of settings are kept as their digest alone, characters. */
const maxSnapshot = 65_536
/** Longest value, and most changes, that are written out. */
const maxShown = 200
const maxChanges = 100

export function settingsRecord (trail: AuditTrail, settings: ShownSettings, now: () => number): SettingsRecord {
  let written = false
  return {
    async write () {
      if (written) return
      const detail = changes(settings, await latest(trail))
      if (detail !== null) {
        await trail.append([{ at: now(), kind: 'settings', actor: 'gateway', subject: null, detail }])
      }
      written = true
    }
  }
}

async function latest (trail: AuditTrail): Promise<AuditEntry['detail'] | null> {
  let cursor: string | null = null
  for (let page = 0; page < maxPages; page++) {
    const { items, next } = await trail.read({ cursor, limit: pageSize })
    const found = items.find(({ kind }) => kind === 'settings')
    if (found !== undefined) return found.detail
    if (next === null) return null
    cursor = next
  }
  return null
}

/**
 * `digest` of all, how many have `changed` (`null`: nobody knows), for each of these, under its name, the old and the
 * new value, and `snapshot` to compare the next ones with. `null`: they are the same.
 */
function changes (settings: ShownSettings, before: AuditEntry['detail'] | null): AuditEntry['detail'] | null {
  const sorted = [...settings].sort(([one], [other]) => one < other ? -1 : 1)
  const digest = fingerprintOf(...sorted.flat())
  if (before?.digest === digest) return null
  const snapshot = JSON.stringify(Object.fromEntries(sorted))
  const kept = before?.snapshot
  const changed = typeof kept === 'string' ? differences(new Map(Object.entries(JSON.parse(kept))), settings) : null
  return {
    digest,
    changed: changed === null ? null : changed.length,
    ...Object.fromEntries(changed?.slice(0, maxChanges) ?? []),
    snapshot: snapshot.length <= maxSnapshot ? snapshot : null
  }
}

function differences (before: ShownSettings, after: ShownSettings): ReadonlyArray<readonly [string, string]> {
  const names = [...new Set([...before.keys(), ...after.keys()])].sort()
  return names.filter(name => before.get(name) !== after.get(name))
    .map(name => [name, `${shortened(before.get(name))} -> ${shortened(after.get(name))}`])
}

function shortened (value = 'absent'): string {
  return value.length > maxShown ? `${value.slice(0, maxShown - 1)}…` : value
}
