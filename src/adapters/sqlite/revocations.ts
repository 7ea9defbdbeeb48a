import type { DatabaseSync } from 'node:sqlite'
import { LRUCache } from 'lru-cache'
import { forgetSlackMs, type Revocations } from '../../domain/sessions/session.ts'
import type { Clock } from '../../domain/time.ts'
import type { GroupCommit } from './group-commit.ts'
import { read } from './store-down.ts'

/** Between two looks at whether somebody else has written, ms: half of the second within which a revocation holds. */
const lookEveryMs = 500
/** Answers in memory, about sessions and about subjects. */
const maxAnswers = 10_000

/**
 * Revocations in SQLite. Answers are remembered, for one server owns the file and a look-up in memory costs next to
 * nothing. But the command line may end sessions beside it, and then all answers are forgotten.
 */
export function sqliteRevocations (db: DatabaseSync, group: GroupCommit, { now, elapsed }: Clock): Revocations {
  const sql = statements(db)
  const { revoked, revokedBefore, forgetAll, forgetStale } = rememberedAnswers(sql, elapsed)
  // An answer from within a transaction of our own has gone with it.
  group.onUndo(forgetAll)

  /** What has ended by itself goes first. */
  const write = async <Result> (work: () => Result): Promise<Result> => {
    const result = group.run(() => {
      const before = now() - forgetSlackMs
      for (const { id } of sql.forget.all(before) as unknown as SessionRow[]) revoked.delete(id)
      for (const { subject } of sql.forgetSubjects.all(before) as unknown as SubjectRow[]) revokedBefore.delete(subject)
      return work()
    })
    await group.committed()
    return result
  }

  return {
    revoke: (sessionId, expiresAt) => write(() => {
      revoked.delete(sessionId)
      return sql.revoke.run(sessionId, expiresAt).changes === 1
    }),
    revokeSubject: (subject, before, expiresAt) => write(() => {
      sql.revokeSubject.run(subject, before, expiresAt)
      revokedBefore.delete(subject)
    }),
    async endedBefore (subject) {
      forgetStale()
      return revokedBefore.memo(subject)
    },
    async isRevoked ({ id, subject, issuedAt }) {
      forgetStale()
      return revoked.memo(id) || issuedAt <= revokedBefore.memo(subject)
    }
  }
}

/** What the file has answered, by session and by subject. */
function rememberedAnswers (sql: ReturnType<typeof statements>, elapsed: () => number) {
  const revoked = new LRUCache<string, boolean>({ max: maxAnswers, memoMethod: id => read(() => sql.isRevoked(id)) })
  const revokedBefore = new LRUCache<string, number>({ max: maxAnswers, memoMethod: subject => read(() => sql.before(subject)) })
  let lookedAt = elapsed()
  let version = sql.version()

  const forgetAll = (): void => {
    revoked.clear()
    revokedBefore.clear()
  }
  return {
    revoked,
    revokedBefore,
    forgetAll,
    /** Asks now and then whether another connection has written: https://sqlite.org/pragma.html#pragma_data_version */
    forgetStale (): void {
      const at = elapsed()
      if (at - lookedAt < lookEveryMs) return
      const latest = read(sql.version)
      if (latest !== version) forgetAll()
      version = latest
      lookedAt = at
    }
  }
}

interface SessionRow { readonly id: string }
interface SubjectRow { readonly subject: string }

function statements (db: DatabaseSync) {
  const version = db.prepare('PRAGMA data_version')
  const session = db.prepare('SELECT 1 FROM revocations WHERE session_id = ?')
  const subject = db.prepare('SELECT before FROM subject_revocations WHERE subject = ?')
  return {
    version: () => (version.get() as { readonly data_version: number }).data_version,
    isRevoked: (id: string) => session.get(id) !== undefined,
    before: (name: string) => (subject.get(name) as { readonly before: number } | undefined)?.before ?? -Infinity,
    revoke: db.prepare('INSERT INTO revocations (session_id, expires_at) VALUES (?, ?) ON CONFLICT DO NOTHING'),
    revokeSubject: db.prepare(`INSERT INTO subject_revocations (subject, before, expires_at) VALUES (?, ?, ?)
      ON CONFLICT DO UPDATE SET before = max(before, excluded.before), expires_at = max(expires_at, excluded.expires_at)`),
    forget: db.prepare('DELETE FROM revocations WHERE expires_at <= ? RETURNING session_id AS id'),
    forgetSubjects: db.prepare('DELETE FROM subject_revocations WHERE expires_at <= ? RETURNING subject')
  }
}
