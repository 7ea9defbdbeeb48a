import type { DatabaseSync } from 'node:sqlite'
import type { SpentProofs } from '../../domain/sessions/guests.ts'
import type { GroupCommit } from './group-commit.ts'

export function sqliteSpentProofs (db: DatabaseSync, group: GroupCommit, now: () => number): SpentProofs {
  const insert = db.prepare('INSERT INTO spent_proofs (id, expires_at) VALUES (?, ?) ON CONFLICT DO NOTHING')
  return {
    async spend (id, expiresAt) {
      if (expiresAt <= now()) return false // it may have been spent, and be forgotten
      const isFirst = group.run(() => insert.run(id, expiresAt).changes) === 1
      await group.committed()
      return isFirst
    }
  }
}
