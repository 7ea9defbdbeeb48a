import type { DatabaseSync } from 'node:sqlite'
import type { Revocations } from '../../domain/session.ts'
import type { GroupCommit } from './group-commit.ts'

/**
 * Revocations in SQLite, with all that still matter in memory: one server owns the file, so what it has read and
 * written is all there is, and a look-up costs a map's.
 */
export function sqliteRevocations (db: DatabaseSync, group: GroupCommit, now: () => number): Revocations {
  const insert = db.prepare('INSERT INTO revocations (session_id, expires_at) VALUES (?, ?) ON CONFLICT DO NOTHING')
  const forget = db.prepare('DELETE FROM revocations WHERE expires_at <= ? RETURNING session_id')
  const rows = db.prepare('SELECT session_id FROM revocations').all() as unknown as Row[]
  const revoked = new Set(rows.map(row => row.session_id))

  return {
    async revoke (sessionId, expiresAt) {
      group.run(() => {
        // Their sessions have ended by themselves; in memory they would be for ever.
        for (const { session_id: ended } of forget.all(now()) as unknown as Row[]) revoked.delete(ended)
        insert.run(sessionId, expiresAt)
      })
      await group.committed()
      revoked.add(sessionId)
    },
    isRevoked: async sessionId => revoked.has(sessionId)
  }
}

interface Row { readonly session_id: string }
