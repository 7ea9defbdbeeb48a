import type { AuditEntry, AuditTrail } from '../ledger/audit.ts'

/**
 * Counts what was refused, and to whom. An entry in the audit trail for each single refusal would let everybody who can
 * send a request fill the disk.
 */
export interface Refusals {
  /** `stage`: where on the line it was refused. `subject`: `null` for who has not said who they are. */
  count (code: string, stage: string, subject: string | null): void
  /** Writes an entry for each code and subject and counts anew. Throws `GW_STORE_DOWN`; the counts are kept then. */
  flush (): Promise<void>
}

export interface RefusalsOptions {
  readonly trail: AuditTrail
  readonly now: () => number
  /** Most rows of one round: what is refused to further subjects is counted without their names. */
  readonly maxRows: number
}

/** Of one code and subject: how often, at which stages. */
interface Row { readonly code: string, readonly subject: string | null, readonly stages: Map<string, number> }

export function refusals ({ trail, now, maxRows }: RefusalsOptions): Refusals {
  let rows = new Map<string, Row>()

  const add = (code: string, stage: string, subject: string | null, count: number): void => {
    // A code has no space in it.
    const name = subject === null ? code : `${code} ${subject}`
    let row = rows.get(name)
    if (row === undefined) {
      if (subject !== null && rows.size >= maxRows) return add(code, stage, null, count)
      row = { code, subject, stages: new Map() }
      rows.set(name, row)
    }
    row.stages.set(stage, (row.stages.get(stage) ?? 0) + count)
  }

  return {
    count: (code, stage, subject) => add(code, stage, subject, 1),
    async flush () {
      if (rows.size === 0) return
      const flushed = rows
      rows = new Map()
      try {
        await trail.append([...flushed.values()].map(row => entryOf(row, now())))
      } catch (error) {
        for (const { code, subject, stages } of flushed.values()) {
          for (const [stage, count] of stages) add(code, stage, subject, count)
        }
        throw error
      }
    }
  }
}

function entryOf ({ code, subject, stages }: Row, at: number): AuditEntry {
  const count = [...stages.values()].reduce((sum, count) => sum + count, 0)
  return { at, kind: 'refusals', actor: 'gateway', subject, detail: { code, count, ...Object.fromEntries(stages) } }
}
