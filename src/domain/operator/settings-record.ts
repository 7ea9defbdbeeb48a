import type { AuditEntry, AuditTrail } from '../ledger/audit.ts'
import { fingerprintOf } from '../ledger/idempotency.ts'

/** Name → value as it is shown, secrets as fingerprints. */
export type ShownSettings = ReadonlyMap<string, string>

/** Keeps in the audit trail which settings the gateway runs with. */
export interface SettingsRecord {
  /** Writes an entry when the settings are not those of the latest one; later on it does nothing. Throws `GW_STORE_DOWN`. */
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
      if (detail !== null) await trail.append([{ at: now(), kind: 'settings', actor: 'gateway', subject: null, detail }])
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
 * `digest` of all, how many have `changed` (`null`: nobody knows), for each of these, under its name, the old and the new
 * value, and `snapshot` to compare the next ones with. `null`: they are the same.
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
    .map(name => [name, `${shown(before.get(name))} -> ${shown(after.get(name))}`])
}

function shown (value = 'absent'): string {
  return value.length > maxShown ? `${value.slice(0, maxShown - 1)}…` : value
}
