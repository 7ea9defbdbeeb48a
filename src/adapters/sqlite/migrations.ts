import type { DatabaseSync } from 'node:sqlite'

/**
 * Each entry takes the file from its index to the next version (`PRAGMA user_version`). Entries are only ever added.
 *
 * Every index costs a page a write, so there are two: task ids are looked up, and unfinished rows are found without
 * reading the finished ones (in the order of their ids, so that its pages stay few and hot). Answers have a table of
 * their own, which keeps the rows that are scanned short.
 */
const migrations: readonly string[] = [
  `CREATE TABLE tasks (
     id            INTEGER PRIMARY KEY,
     subject       TEXT    NOT NULL,
     operation     TEXT    NOT NULL,
     model         TEXT    NOT NULL,
     key_id        TEXT    NOT NULL,
     stage         TEXT    NOT NULL CHECK (stage IN ('sent', 'claimed', 'settled', 'unknown')),
     task_id       TEXT    UNIQUE,
     microcredits  INTEGER NOT NULL,
     refundable    INTEGER NOT NULL,
     refunded      INTEGER NOT NULL DEFAULT 0,
     period_start  INTEGER NOT NULL,
     created_at    INTEGER NOT NULL,
     lease_until   INTEGER NOT NULL,
     ended_at      INTEGER,
     state         TEXT
   ) STRICT;
   CREATE INDEX unfinished_tasks ON tasks (id) WHERE ended_at IS NULL;
   CREATE TABLE answers (
     id            INTEGER PRIMARY KEY REFERENCES tasks (id) ON DELETE CASCADE,
     body          BLOB    NOT NULL
   ) STRICT;
   CREATE TABLE credits (
     subject       TEXT    NOT NULL,
     period_start  INTEGER NOT NULL,
     used          INTEGER NOT NULL CHECK (used >= 0),
     refunds       INTEGER NOT NULL DEFAULT 0,
     PRIMARY KEY (subject, period_start)
   ) STRICT, WITHOUT ROWID;
   CREATE TABLE revocations (
     session_id    TEXT    PRIMARY KEY,
     expires_at    INTEGER NOT NULL
   ) STRICT, WITHOUT ROWID;`
]

/** Says which version the file has now. */
export function migrate (db: DatabaseSync): number {
  const { user_version: version } = db.prepare('PRAGMA user_version').get() as { user_version: number }
  if (version > migrations.length) {
    throw new Error(`it has version ${version}, this gateway knows ${migrations.length}: a newer one wrote it`)
  }
  for (const [index, sql] of migrations.entries()) {
    if (index >= version) db.exec(`BEGIN; ${sql} PRAGMA user_version = ${index + 1}; COMMIT`)
  }
  return migrations.length
}
