import type { DatabaseSync } from 'node:sqlite'
import type { GuestCounts } from '../../domain/sessions/guests.ts'
import type { GroupCommit } from './group-commit.ts'

export function sqliteGuestCounts (db: DatabaseSync, group: GroupCommit, now: () => number): GuestCounts {
  const full = db.prepare('SELECT ends_at AS endsAt FROM guest_counts WHERE name = ? AND ends_at > ? AND sessions >= ?')
  const add = db.prepare(`INSERT INTO guest_counts (name, sessions, ends_at) VALUES (:name, 1, :now + :windowMs)
    ON CONFLICT DO UPDATE SET sessions = iif(ends_at > :now, sessions + 1, 1), ends_at = iif(ends_at > :now, ends_at, excluded.ends_at)`)
  /** A window that lasts for longer than a window does was opened before the clock was put back. */
  const cut = db.prepare('UPDATE guest_counts SET ends_at = :now + :windowMs WHERE name = :name AND ends_at > :now + :windowMs')
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
