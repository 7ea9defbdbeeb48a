import type { DatabaseSync } from 'node:sqlite'
import type { AuditEntry, AuditKind, AuditTrail } from '../../domain/ledger/audit.ts'
import type { GroupCommit } from './group-commit.ts'
import { pageOf, rowAt } from './pages.ts'
import { read } from './store-down.ts'

interface Row {
  readonly id: number
  readonly at: number
  readonly kind: AuditKind
  readonly actor: string
  readonly subject: string | null
  readonly detail: string
}

/** The audit trail in SQLite: the file itself refuses to change a row, and to delete one that is not very old. */
export function sqliteAudit (db: DatabaseSync, group: GroupCommit): AuditTrail {
  const insert = db.prepare('INSERT INTO audit (at, kind, actor, subject, detail) VALUES (?, ?, ?, ?, ?)')
  const page = db.prepare('SELECT * FROM audit WHERE id < ? ORDER BY id DESC LIMIT ?')
  return {
    async append (entries) {
      if (entries.length === 0) return
      group.run(() => {
        for (const { at, kind, actor, subject, detail } of entries) insert.run(at, kind, actor, subject, JSON.stringify(detail))
      })
      await group.committed()
    },
    async read ({ cursor, limit }) {
      return pageOf(read(() => page.all(rowAt(cursor) ?? Infinity, limit + 1) as unknown as Row[]), limit, entryFrom)
    }
  }
}

function entryFrom ({ id, detail, ...entry }: Row): AuditEntry {
  return { ...entry, detail: JSON.parse(detail) }
}
