import type { AuditEntry, AuditTrail } from '../ledger/audit.ts'

/**
 * Counts what was refused, and to whom. An entry in the audit trail for each single refusal would let everybody who can
 * send a request fill the disk, and so would one every few seconds: of one code and subject there is a row an hour, the
 * first of them at once.
 */
export interface Refusals {
  /** `stage`: where on the line it was refused. `subject`: `null` for who has not said who they are. */
  count (code: string, stage: string, subject: string | null): void
  /**
   * Writes an entry for each code and subject that has had none for an hour; `all`: for the others as well, before a stop.
   * Throws `GW_STORE_DOWN`; the counts are kept then.
   */
  flush (all?: boolean): Promise<void>
}

export interface RefusalsOptions {
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

const hourMs = 3_600_000

export function refusals ({ trail, now, elapsed, maxRows }: RefusalsOptions): Refusals {
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
        await trail.append(flushed.map(row => entryOf(row, now())))
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

function entryOf ({ code, subject, stages }: Row, at: number): AuditEntry {
  const count = [...stages.values()].reduce((sum, count) => sum + count, 0)
  return { at, kind: 'refusals', actor: 'gateway', subject, detail: { code, count, ...Object.fromEntries(stages) } }
}
