import type { DatabaseSync, SQLInputValue } from 'node:sqlite'
import { recent } from '../../domain/recent.ts'
import { forgetSlackMs, type Revocations } from '../../domain/session.ts'
import type { GuestCounts, SpentProofs } from '../../domain/store.ts'
import { namesOf } from '../../domain/subject-data.ts'
import type { Clock } from '../../domain/time.ts'
import { type Token, tokenRetentionMs, type TokenStore, usedEveryMs } from '../../domain/tokens.ts'
import { stateMs, type UpstreamState, type UpstreamStates } from '../../domain/upstream-states.ts'
import { type GroupCommit, pageOf, read, rowAt } from './database.ts'

/** Between two looks at whether somebody else has written, ms: half of the second within which a revocation holds. */
const lookEveryMs = 500
/** Answers in memory, about sessions and about subjects. */
const maxAnswers = 10_000

interface RevocationsOptions extends Clock {
  /** Told when somebody else has written into the file: what is remembered of it may have gone. */
  readonly onForeignWrite: () => void
}

/**
 * Revocations in SQLite. Answers are remembered, for one server owns the file and a look-up in memory costs next to
 * nothing. But the command line may end sessions beside it, and then all answers are forgotten.
 */
export function sqliteRevocations (
  db: DatabaseSync, group: GroupCommit, { now, elapsed, onForeignWrite }: RevocationsOptions
): Revocations {
  const sql = revocationStatements(db)
  const { revoked, revokedBefore, forgetAll, forgetStale } = rememberedAnswers(sql, elapsed, onForeignWrite)
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
    isRevoked ({ id, subject, issuedAt }) {
      forgetStale()
      return revoked.memo(id) || issuedAt <= revokedBefore.memo(subject)
    }
  }
}

/** What the file has answered, by session and by subject. */
function rememberedAnswers (
  sql: ReturnType<typeof revocationStatements>, elapsed: () => number, onForeignWrite: () => void
) {
  const revoked = recent<boolean>(maxAnswers, { memoMethod: id => read(() => sql.isRevoked(id)) })
  const revokedBefore = recent<number>(maxAnswers, { memoMethod: subject => read(() => sql.before(subject)) })
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
      if (latest !== version) {
        forgetAll()
        onForeignWrite()
      }
      version = latest
      lookedAt = at
    }
  }
}

interface SessionRow { readonly id: string }
interface SubjectRow { readonly subject: string }

function revocationStatements (db: DatabaseSync) {
  const version = db.prepare('PRAGMA data_version')
  const session = db.prepare('SELECT 1 FROM revocations WHERE session_id = ?')
  const subject = db.prepare('SELECT max(before) AS before FROM subject_revocations WHERE subject IN (?, ?)')
  return {
    version: () => (version.get() as { readonly data_version: number }).data_version,
    isRevoked: (id: string) => session.get(id) !== undefined,
    before: (name: string) => (subject.get(...namesOf(name)) as { readonly before: number | null }).before ?? -Infinity,
    revoke: db.prepare('INSERT INTO revocations (session_id, expires_at) VALUES (?, ?) ON CONFLICT DO NOTHING'),
    revokeSubject: db.prepare(`INSERT INTO subject_revocations (subject, before, expires_at) VALUES (?, ?, ?)
      ON CONFLICT DO UPDATE SET before = max(before, excluded.before), expires_at = max(expires_at, excluded.expires_at)`),
    forget: db.prepare('DELETE FROM revocations WHERE expires_at <= ? RETURNING session_id AS id'),
    forgetSubjects: db.prepare('DELETE FROM subject_revocations WHERE expires_at <= ? RETURNING subject')
  }
}

interface Row {
  readonly id: number
  readonly token: string
  readonly subject: string
  readonly plan: string
  readonly pool: string | null
  readonly models: string
  readonly scopes: string
  readonly created_at: number
  readonly ttl_ms: number
  readonly expires_at: number
  readonly is_invitation: number
  readonly hash: string
  readonly issued_at: number
  readonly previous_hash: string | null
  readonly previous_issued_at: number
  readonly previous_until: number
  readonly revoked_at: number | null
  readonly used_at: number | null
}

/** Tokens in SQLite. The file is asked each time, because the command line changes them while a server runs. */
export function sqliteTokens (db: DatabaseSync, group: GroupCommit): TokenStore {
  const sql = tokenStatements(db)
  const write = async <T>(work: () => T): Promise<T> => {
    const result = group.run(work)
    await group.committed()
    return result
  }
  const changed = async (change: typeof sql.rotate, values: Record<string, SQLInputValue>): Promise<Token | null> => {
    const row = await write(() => change.get(values)) as Row | undefined
    return row === undefined ? null : tokenFrom(row)
  }

  return {
    async find (id) {
      const row = read(() => sql.find.get(id)) as Row | undefined
      return row === undefined ? null : tokenFrom(row)
    },
    async used (id, at) {
      const before = at - usedEveryMs
      if (read(() => sql.isOverdue.get(id, before)) !== undefined) await write(() => sql.used.run(at, id, before))
    },
    async create ({ models, scopes, secret: { hash, issuedAt }, ...token }) {
      const { id, subject, plan, pool, createdAt, ttlMs, expiresAt, isInvitation } = token
      await write(() => {
        sql.forget.run(createdAt - tokenRetentionMs)
        const lists = [JSON.stringify(models), JSON.stringify(scopes)]
        const times = [createdAt, ttlMs, expiresAt]
        sql.insert.run(id, subject, plan, pool, ...lists, ...times, Number(isInvitation), hash, issuedAt)
      })
    },
    list: async ({ cursor, limit }) =>
      pageOf(read(() => sql.page.all(rowAt(cursor) ?? Infinity, limit + 1) as unknown as Row[]), limit, tokenFrom),
    rotate: (id, { hash, issuedAt }, until) => changed(sql.rotate, { id, hash, issuedAt, until }),
    accept: (id, invitation, { hash, issuedAt }) => changed(sql.accept, { id, invitation, hash, issuedAt }),
    revoke: (id, at) => write(() => sql.revoke.run(at, id).changes > 0)
  }
}

function tokenStatements (db: DatabaseSync) {
  return {
    find: db.prepare('SELECT * FROM tokens WHERE token = ?'),
    page: db.prepare('SELECT * FROM tokens WHERE id < ? ORDER BY id DESC LIMIT ?'),
    insert: db.prepare(`INSERT INTO tokens
      (token, subject, plan, pool, models, scopes, created_at, ttl_ms, expires_at, is_invitation, hash, issued_at)
      VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`),
    forget: db.prepare('DELETE FROM tokens WHERE expires_at <= ?'),
    isOverdue: db.prepare('SELECT 1 FROM tokens WHERE token = ? AND coalesce(used_at, 0) <= ?'),
    used: db.prepare('UPDATE tokens SET used_at = ? WHERE token = ? AND coalesce(used_at, 0) <= ?'),
    rotate: db.prepare(`UPDATE tokens SET previous_hash = hash, previous_issued_at = issued_at, previous_until = :until,
        hash = :hash, issued_at = :issuedAt
      WHERE token = :id AND is_invitation = 0 AND revoked_at IS NULL AND expires_at > :issuedAt RETURNING *`),
    accept: db.prepare(`UPDATE tokens
      SET is_invitation = 0, hash = :hash, issued_at = :issuedAt, expires_at = :issuedAt + ttl_ms
      WHERE token = :id AND hash = :invitation AND is_invitation = 1 AND revoked_at IS NULL AND expires_at > :issuedAt
      RETURNING *`),
    revoke: db.prepare('UPDATE tokens SET revoked_at = coalesce(revoked_at, ?) WHERE token = ?')
  }
}

function tokenFrom (row: Row): Token {
  return {
    id: row.token,
    subject: row.subject,
    plan: row.plan,
    pool: row.pool,
    models: JSON.parse(row.models),
    scopes: JSON.parse(row.scopes),
    createdAt: row.created_at,
    ttlMs: row.ttl_ms,
    expiresAt: row.expires_at,
    isInvitation: row.is_invitation === 1,
    secret: { hash: row.hash, issuedAt: row.issued_at },
    previous: row.previous_hash === null
      ? null
      : { hash: row.previous_hash, issuedAt: row.previous_issued_at, until: row.previous_until },
    revokedAt: row.revoked_at,
    usedAt: row.used_at
  }
}

export function sqliteGuestCounts (db: DatabaseSync, group: GroupCommit, now: () => number): GuestCounts {
  const full = db.prepare('SELECT ends_at AS endsAt FROM guest_counts WHERE name = ? AND ends_at > ? AND sessions >= ?')
  const add = db.prepare(`INSERT INTO guest_counts (name, sessions, ends_at) VALUES (:name, 1, :now + :windowMs)
    ON CONFLICT DO UPDATE SET sessions = iif(ends_at > :now, sessions + 1, 1), ends_at = iif(ends_at > :now, ends_at, excluded.ends_at)`)
  /** A window that lasts for longer than a window does was opened before the clock was put back. */
  const cut = db.prepare(
    'UPDATE guest_counts SET ends_at = :now + :windowMs WHERE name = :name AND ends_at > :now + :windowMs'
  )
  const back = db.prepare('UPDATE guest_counts SET sessions = sessions - 1 WHERE name = ? AND sessions > 0')
  return {
    async take (name, limit, windowMs) {
      const at = now()
      const waitMs = group.run(() => {
        cut.run({ name, now: at, windowMs })
        const row = full.get(name, at, limit) as { readonly endsAt: number } | undefined
        if (row === undefined) add.run({ name, now: at, windowMs })
        return row === undefined ? 0 : row.endsAt - at
      })
      await group.committed()
      return waitMs
    },
    async putBack (name) {
      group.run(() => back.run(name))
      await group.committed()
    }
  }
}

export function sqliteUpstreamStates (db: DatabaseSync, group: GroupCommit, now: () => number): UpstreamStates {
  const find = db.prepare(
    'SELECT key_id AS keyId, tokens FROM upstream_states WHERE subject = ? AND id = ? AND expires_at > ?'
  )
  const insert = db.prepare('INSERT OR REPLACE INTO upstream_states (subject, id, key_id, tokens, expires_at) VALUES (?, ?, ?, ?, ?)')
  return {
    async remember (subject, ids, { keyId, tokens }) {
      group.run(() => { for (const id of ids) insert.run(subject, id, keyId, tokens, now() + stateMs) })
      await group.committed()
    },
    of: async (subject, ids) =>
      read(() => ids.map(id => (find.get(subject, id, now()) ?? null) as UpstreamState | null))
  }
}

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
