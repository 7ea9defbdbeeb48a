import type { DatabaseSync, SQLInputValue } from 'node:sqlite'
import { type Token, type TokenBook, tokenRetentionMs, usedEveryMs } from '../../domain/sessions/tokens.ts'
import type { GroupCommit } from './group-commit.ts'
import { pageOf, rowAt } from './pages.ts'
import { read } from './store-down.ts'

interface Row {
  readonly id: number
  readonly token: string
  readonly subject: string
  readonly plan: string
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
export function sqliteTokens (db: DatabaseSync, group: GroupCommit): TokenBook {
  const sql = statements(db)
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
      const { id, subject, plan, createdAt, ttlMs, expiresAt, isInvitation } = token
      await write(() => {
        sql.forget.run(createdAt - tokenRetentionMs)
        const lists = [JSON.stringify(models), JSON.stringify(scopes)]
        sql.insert.run(id, subject, plan, ...lists, createdAt, ttlMs, expiresAt, Number(isInvitation), hash, issuedAt)
      })
    },
    list: async ({ cursor, limit }) =>
      pageOf(read(() => sql.page.all(rowAt(cursor) ?? Infinity, limit + 1) as unknown as Row[]), limit, tokenFrom),
    rotate: (id, { hash, issuedAt }, until) => changed(sql.rotate, { id, hash, issuedAt, until }),
    accept: (id, invitation, { hash, issuedAt }) => changed(sql.accept, { id, invitation, hash, issuedAt }),
    revoke: (id, at) => write(() => sql.revoke.run(at, id).changes > 0)
  }
}

function statements (db: DatabaseSync) {
  return {
    find: db.prepare('SELECT * FROM tokens WHERE token = ?'),
    page: db.prepare('SELECT * FROM tokens WHERE id < ? ORDER BY id DESC LIMIT ?'),
    insert: db.prepare(`INSERT INTO tokens
      (token, subject, plan, models, scopes, created_at, ttl_ms, expires_at, is_invitation, hash, issued_at)
      VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`),
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
