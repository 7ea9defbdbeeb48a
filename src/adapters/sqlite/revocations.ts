import type { DatabaseSync } from 'node:sqlite'
import type { Revocations } from '../../domain/sessions/session.ts'
import type { GroupCommit } from './group-commit.ts'

/**
 * Revocations in SQLite, with all that still matter in memory: one server owns the file, so what it has read and
 * written is all there is, and a look-up costs a map's.
 */
export function sqliteRevocations (db: DatabaseSync, group: GroupCommit, now: () => number): Revocations {
  const sql = statements(db)
  const revoked = new Set((sql.revoked.all() as unknown as SessionRow[]).map(row => row.session_id))
  const revokedBefore = new Map((sql.subjects.all() as unknown as SubjectRow[]).map(({ subject, before }) => [subject, before]))

  /** Their sessions have ended by themselves; in memory they would be for ever. */
  const forgetEnded = (): void => {
    for (const { session_id: ended } of sql.forget.all(now()) as unknown as SessionRow[]) revoked.delete(ended)
    for (const { subject } of sql.forgetSubjects.all(now()) as unknown as SubjectRow[]) revokedBefore.delete(subject)
  }

  return {
    async revoke (sessionId, expiresAt) {
      group.run(() => {
        forgetEnded()
        sql.revoke.run(sessionId, expiresAt)
      })
      await group.committed()
      revoked.add(sessionId)
    },
    async revokeSubject (subject, before, expiresAt) {
      group.run(() => {
        forgetEnded()
        sql.revokeSubject.run(subject, before, expiresAt)
      })
      await group.committed()
      revokedBefore.set(subject, Math.max(before, revokedBefore.get(subject) ?? before))
    },
    isRevoked: async ({ id, subject, issuedAt }) => revoked.has(id) || issuedAt <= (revokedBefore.get(subject) ?? -Infinity)
  }
}

interface SessionRow { readonly session_id: string }
interface SubjectRow { readonly subject: string, readonly before: number }

function statements (db: DatabaseSync) {
  return {
    revoked: db.prepare('SELECT session_id FROM revocations'),
    revoke: db.prepare('INSERT INTO revocations (session_id, expires_at) VALUES (?, ?) ON CONFLICT DO NOTHING'),
    forget: db.prepare('DELETE FROM revocations WHERE expires_at <= ? RETURNING session_id'),
    subjects: db.prepare('SELECT subject, before FROM subject_revocations'),
    revokeSubject: db.prepare(`INSERT INTO subject_revocations (subject, before, expires_at) VALUES (?, ?, ?)
      ON CONFLICT DO UPDATE SET before = max(before, excluded.before), expires_at = max(expires_at, excluded.expires_at)`),
    forgetSubjects: db.prepare('DELETE FROM subject_revocations WHERE expires_at <= ? RETURNING subject, before')
  }
}
