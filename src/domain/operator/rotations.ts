import type { AuditEntry, AuditTrail } from '../ledger/audit.ts'

/** What a rotation has changed about the secrets of a setting, by their fingerprints. */
export interface SecretRotation {
  readonly setting: string
  readonly inUse: readonly string[]
  /** In use before, and no longer. */
  readonly gone: readonly string[]
}

/** Keeps in the audit trail which secrets have come and gone while the gateway ran. */
export interface Rotations {
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
      kept.push(entryOf(rotation, now()))
      return flush()
    },
    flush
  }
}

/** The fingerprints as the entries of settings show them. */
function entryOf ({ setting, inUse, gone }: SecretRotation, at: number): AuditEntry {
  const detail = { setting, inUse: shown(inUse), gone: gone.length === 0 ? null : shown(gone) }
  return { at, kind: 'secret', actor: 'gateway', subject: null, detail }
}

function shown (fingerprints: readonly string[]): string {
  return fingerprints.map(fingerprint => `sha256:${fingerprint}`).join(', ')
}
