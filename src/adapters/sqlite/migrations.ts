import { closeSync, fsyncSync, openSync, renameSync, rmSync, statfsSync } from 'node:fs'
import { dirname } from 'node:path'
import type { DatabaseSync } from 'node:sqlite'

/**
 * Each entry takes the file from its index to the next version (`PRAGMA user_version`). Entries are only ever added.
 *
 * Every index costs a page a write, and SQLite writes it anew whenever a column of it or of its WHERE is set. So a
 * submit enters two: unfinished rows are found without reading the finished ones (in the order of their ids, so that
 * its pages stay few and hot), and task ids are looked up. All else is entered when a task ends. Answers have a table
 * of their own, which keeps the rows that are scanned short.
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
   ) STRICT, WITHOUT ROWID;`,

  // granted: the part of its microcredits that is from grants. listed: it is claimed or unknown, or was. Rows of
  // `idempotency` have the id of their reservation, so they lie in the order in which they end.
  `ALTER TABLE tasks ADD COLUMN granted INTEGER NOT NULL DEFAULT 0;
   ALTER TABLE tasks ADD COLUMN listed INTEGER NOT NULL DEFAULT 1;
   CREATE INDEX listed_tasks ON tasks (subject) WHERE listed = 1;
   CREATE INDEX unknown_tasks ON tasks (id) WHERE stage = 'unknown' AND refunded = 0;
   CREATE INDEX credit_periods ON credits (period_start);
   CREATE TABLE idempotency (
     id            INTEGER PRIMARY KEY,
     subject       TEXT    NOT NULL,
     key           TEXT    NOT NULL,
     fingerprint   TEXT    NOT NULL,
     created_at    INTEGER NOT NULL,
     status        INTEGER,
     content_type  TEXT,
     body          BLOB,
     UNIQUE (subject, key)
   ) STRICT;
   CREATE TABLE accounts (
     subject       TEXT    PRIMARY KEY,
     granted       INTEGER NOT NULL CHECK (granted >= 0)
   ) STRICT, WITHOUT ROWID;
   CREATE TABLE grants (
     id            INTEGER PRIMARY KEY,
     subject       TEXT    NOT NULL,
     microcredits  INTEGER NOT NULL CHECK (microcredits > 0),
     created_at    INTEGER NOT NULL
   ) STRICT;
   CREATE TRIGGER grants_stay BEFORE UPDATE ON grants BEGIN SELECT raise(ABORT, 'grants are never changed'); END;
   CREATE TRIGGER grants_last BEFORE DELETE ON grants BEGIN SELECT raise(ABORT, 'grants are never deleted'); END;
   CREATE TABLE usage (
     day           INTEGER NOT NULL,
     subject       TEXT    NOT NULL,
     model         TEXT    NOT NULL,
     tasks         INTEGER NOT NULL,
     succeeded     INTEGER NOT NULL,
     failed        INTEGER NOT NULL,
     unknown       INTEGER NOT NULL,
     microcredits  INTEGER NOT NULL,
     PRIMARY KEY (day, subject, model)
   ) STRICT, WITHOUT ROWID;
   CREATE TABLE audit (
     id            INTEGER PRIMARY KEY,
     at            INTEGER NOT NULL,
     kind          TEXT    NOT NULL,
     actor         TEXT    NOT NULL,
     subject       TEXT,
     detail        TEXT    NOT NULL
   ) STRICT;
   CREATE TRIGGER audit_stays BEFORE UPDATE ON audit BEGIN SELECT raise(ABORT, 'the audit trail is never changed'); END;
   CREATE TRIGGER audit_lasts BEFORE DELETE ON audit
     WHEN old.at > (SELECT at FROM audit ORDER BY id DESC LIMIT 1) - 400 * 86400000
     BEGIN SELECT raise(ABORT, 'the audit trail is kept for 400 days'); END;`,

  // Both only where they are used. attempts: a list, as JSON. next_at: when it is due, NULL while its task runs and at
  // the end.
  `ALTER TABLE tasks ADD COLUMN callback_hash TEXT;
   CREATE UNIQUE INDEX callback_hashes ON tasks (callback_hash) WHERE callback_hash IS NOT NULL;
   CREATE TABLE deliveries (
     id            INTEGER PRIMARY KEY REFERENCES tasks (id) ON DELETE CASCADE,
     url           TEXT    NOT NULL,
     attempts      TEXT    NOT NULL DEFAULT '[]',
     next_at       INTEGER
   ) STRICT;
   CREATE INDEX due_deliveries ON deliveries (next_at) WHERE next_at IS NOT NULL;`,

  `ALTER TABLE tasks ADD COLUMN session_id TEXT;
   CREATE TABLE session_budgets (
     subject       TEXT    NOT NULL,
     session_id    TEXT    NOT NULL,
     uses          INTEGER NOT NULL CHECK (uses >= 0),
     microcredits  INTEGER NOT NULL CHECK (microcredits >= 0),
     expires_at    INTEGER NOT NULL,
     PRIMARY KEY (subject, session_id)
   ) STRICT, WITHOUT ROWID;
   CREATE INDEX ended_budgets ON session_budgets (expires_at);
   CREATE TABLE subject_revocations (
     subject       TEXT    PRIMARY KEY,
     before        INTEGER NOT NULL,
     expires_at    INTEGER NOT NULL
   ) STRICT, WITHOUT ROWID;`,

  `CREATE TABLE guest_counts (
     name          TEXT    PRIMARY KEY,
     sessions      INTEGER NOT NULL,
     ends_at       INTEGER NOT NULL
   ) STRICT, WITHOUT ROWID;
   CREATE INDEX ended_counts ON guest_counts (ends_at);
   CREATE TABLE spent_proofs (
     id            TEXT    PRIMARY KEY,
     expires_at    INTEGER NOT NULL
   ) STRICT, WITHOUT ROWID;
   CREATE INDEX ended_proofs ON spent_proofs (expires_at);`,

  // token: its public name. The two hashes are of secrets; ttl_ms counts from when an invitation is accepted.
  `CREATE TABLE tokens (
     id                 INTEGER PRIMARY KEY,
     token              TEXT    NOT NULL UNIQUE,
     subject            TEXT    NOT NULL,
     plan               TEXT    NOT NULL,
     models             TEXT    NOT NULL,
     scopes             TEXT    NOT NULL,
     created_at         INTEGER NOT NULL,
     ttl_ms             INTEGER NOT NULL,
     expires_at         INTEGER NOT NULL,
     is_invitation      INTEGER NOT NULL,
     hash               TEXT    NOT NULL,
     issued_at          INTEGER NOT NULL,
     previous_hash      TEXT,
     previous_issued_at INTEGER,
     previous_until     INTEGER,
     revoked_at         INTEGER,
     used_at            INTEGER
   ) STRICT;`,

  // Entered once, when a task ends.
  "CREATE INDEX ended_tasks ON tasks (subject, ended_at, task_id) WHERE stage = 'settled';",

  // repeat: what a submit without an idempotency key may be repeated by; NULL again when its answer was delivered. No
  // index: it is looked up in memory. A row of `repeats` is only for those that are remembered and have a task: until
  // when, and as what.
  `ALTER TABLE tasks ADD COLUMN repeat TEXT;
   CREATE TABLE repeats (
     id            INTEGER PRIMARY KEY REFERENCES tasks (id) ON DELETE CASCADE,
     until         INTEGER NOT NULL,
     status        INTEGER,
     content_type  TEXT,
     body          BLOB
   ) STRICT;`,

  // What callers do, and refusals, may go before their time: they must not fill the disk.
  `CREATE INDEX audit_of_callers ON audit (id) WHERE ${ofCallers()};
   DROP TRIGGER audit_lasts;
   CREATE TRIGGER audit_lasts BEFORE DELETE ON audit
     WHEN old.at > (SELECT at FROM audit ORDER BY id DESC LIMIT 1) - 400 * 86400000
       AND (NOT (${ofCallers('old.')}) OR old.id > (SELECT max(id) FROM audit) - 1000000)
     BEGIN SELECT raise(ABORT, 'the audit trail is kept for 400 days'); END;`,

  // Made anew, because UNIQUE has all rows in an index, those without a task id as well, and a CHECK with IN makes a
  // table of its own at each write. A subject's index is entered when a task ends, and what is used of `credits` is of
  // tasks that have ended. listed: not in use any more.
  `CREATE TABLE new_tasks (
     id            INTEGER PRIMARY KEY,
     subject       TEXT    NOT NULL,
     operation     TEXT    NOT NULL,
     model         TEXT    NOT NULL,
     key_id        TEXT    NOT NULL,
     stage         TEXT    NOT NULL
                   CHECK (stage = 'sent' OR stage = 'claimed' OR stage = 'settled' OR stage = 'unknown'),
     task_id       TEXT,
     microcredits  INTEGER NOT NULL,
     refundable    INTEGER NOT NULL,
     refunded      INTEGER NOT NULL DEFAULT 0,
     period_start  INTEGER NOT NULL,
     created_at    INTEGER NOT NULL,
     lease_until   INTEGER NOT NULL,
     ended_at      INTEGER,
     state         TEXT,
     granted       INTEGER NOT NULL DEFAULT 0,
     listed        INTEGER NOT NULL DEFAULT 1,
     callback_hash TEXT,
     session_id    TEXT,
     repeat        TEXT
   ) STRICT;
   INSERT INTO new_tasks SELECT id, subject, operation, model, key_id, stage, task_id, microcredits, refundable,
     refunded, period_start, created_at, lease_until, ended_at, state, granted, 1, callback_hash, session_id, repeat
     FROM tasks;
   DROP TABLE tasks;
   ALTER TABLE new_tasks RENAME TO tasks;
   CREATE UNIQUE INDEX task_ids ON tasks (task_id) WHERE task_id IS NOT NULL;
   CREATE UNIQUE INDEX callback_hashes ON tasks (callback_hash) WHERE callback_hash IS NOT NULL;
   CREATE INDEX unfinished_tasks ON tasks (id) WHERE ended_at IS NULL;
   CREATE INDEX unknown_tasks ON tasks (id) WHERE stage = 'unknown' AND refunded = 0;
   CREATE INDEX past_tasks ON tasks (subject) WHERE ended_at IS NOT NULL;
   CREATE INDEX ended_tasks ON tasks (subject, ended_at, task_id) WHERE stage = 'settled';
   UPDATE credits SET used = max(0, used - unfinished.sum) FROM (
     SELECT subject, period_start, CAST(total(iif(refunded = 0, microcredits - granted, 0)) AS INTEGER) AS sum
     FROM tasks WHERE ended_at IS NULL GROUP BY subject, period_start) AS unfinished
   WHERE credits.subject = unfinished.subject AND credits.period_start = unfinished.period_start;`,

  // abandoned_at: when its owner has given it up; the index has those rows alone, and no other write sees it.
  // is_estimate: of a call without a task. What is used of a window in ceilings is of tasks that have ended, as in
  // credits. An extra is over at until; one without that is prepaid.
  // What is for the books is never changed, but that the name of a subject may be taken out of it.
  `ALTER TABLE tasks ADD COLUMN abandoned_at INTEGER;
   CREATE INDEX abandoned_tasks ON tasks (subject, abandoned_at) WHERE abandoned_at IS NOT NULL;
   ALTER TABLE tasks ADD COLUMN holds TEXT;
   ALTER TABLE tasks ADD COLUMN is_estimate INTEGER NOT NULL DEFAULT 0;
   CREATE TABLE ceilings (
     account       TEXT    NOT NULL,
     window_id     TEXT    NOT NULL,
     ends_at       INTEGER,
     used          INTEGER NOT NULL CHECK (used >= 0),
     PRIMARY KEY (account, window_id)
   ) STRICT, WITHOUT ROWID;
   CREATE INDEX ended_ceilings ON ceilings (ends_at) WHERE ends_at IS NOT NULL;
   CREATE TABLE extras (
     id            INTEGER PRIMARY KEY,
     account       TEXT    NOT NULL,
     microcredits  INTEGER NOT NULL CHECK (microcredits > 0),
     until         INTEGER,
     created_at    INTEGER NOT NULL
   ) STRICT;
   CREATE INDEX extras_of ON extras (account);
   CREATE TRIGGER extras_stay BEFORE UPDATE ON extras BEGIN SELECT raise(ABORT, 'extras are never changed'); END;
   CREATE TRIGGER extras_last BEFORE DELETE ON extras BEGIN SELECT raise(ABORT, 'extras are never deleted'); END;
   ALTER TABLE tokens ADD COLUMN pool TEXT;
   CREATE TABLE alarms (name TEXT PRIMARY KEY, seen TEXT NOT NULL, told TEXT) STRICT, WITHOUT ROWID;
   DROP TRIGGER extras_stay;
   DROP TRIGGER grants_stay;
   DROP TRIGGER audit_stays;
   CREATE TRIGGER extras_stay BEFORE UPDATE ON extras
     WHEN NOT (new.account GLOB 'subject:erased:*' AND new.id IS old.id AND new.microcredits IS old.microcredits
       AND new.until IS old.until AND new.created_at IS old.created_at)
     BEGIN SELECT raise(ABORT, 'extras are never changed'); END;
   CREATE TRIGGER grants_stay BEFORE UPDATE ON grants
     WHEN NOT (new.subject GLOB 'erased:*' AND new.id IS old.id AND new.microcredits IS old.microcredits
       AND new.created_at IS old.created_at)
     BEGIN SELECT raise(ABORT, 'grants are never changed'); END;
   CREATE TRIGGER audit_stays BEFORE UPDATE ON audit
     WHEN NOT ((new.subject GLOB 'erased:*' OR new.actor GLOB 'erased:*') AND new.id IS old.id AND new.at IS old.at
       AND new.kind IS old.kind)
     BEGIN SELECT raise(ABORT, 'the audit trail is never changed'); END;`,

  // upstream_states: what the upstream keeps for a subject, by the ids that its answers have told.
  `CREATE TABLE upstream_states (
     subject     TEXT    NOT NULL,
     id          TEXT    NOT NULL,
     key_id      TEXT    NOT NULL,
     tokens      INTEGER NOT NULL,
     expires_at  INTEGER NOT NULL,
     PRIMARY KEY (subject, id)
   ) STRICT, WITHOUT ROWID;
   CREATE INDEX old_upstream_states ON upstream_states (expires_at);`
]

/** The version of the file. Throws when a newer gateway wrote it. */
export function versionOf (db: DatabaseSync): number {
  const { user_version: version } = db.prepare('PRAGMA user_version').get() as { user_version: number }
  if (version > latestVersion) {
    throw new Error(`it has version ${version}, this gateway knows ${latestVersion}: a newer one wrote it`)
  }
  return version
}

export const latestVersion = migrations.length

/** A file that an earlier gateway has made is about to be changed. */
export interface Upgrade {
  readonly from: number
  readonly to: number
  /** Where it stays as it was. Nobody reads that again, and nobody deletes it but the operator. */
  readonly copy: string
}

/** Times the size of the file: the copy, the table that is made anew beside the old one, and the log of that. */
const roomNeeded = 3

/**
 * Copies the file before it is changed, if an earlier gateway has made it: `null` otherwise. The copy has its name when
 * it is whole and on disk, and its owner alone reads it. Throws when there may not be enough room for what follows.
 */
export function copyOfOlder (
  db: DatabaseSync, path: string, freeBytes: (folder: string) => number = freeIn
): Upgrade | null {
  const from = versionOf(db)
  if (from === 0 || from === latestVersion) return null
  const needed = roomNeeded * sizeOf(db)
  const free = freeBytes(dirname(path))
  if (free < needed) {
    throw new Error(`it has version ${from}, and to bring it to ${latestVersion} needs ${megabytes(needed)} free beside it ` +
      `for a copy and the work: there are ${megabytes(free)}`)
  }
  const copy = `${path}.version-${from}`
  const unfinished = `${copy}.unfinished`
  const remove = (): void => { for (const file of [unfinished, `${unfinished}-journal`]) rmSync(file, { force: true }) }
  try {
    remove()
    closeSync(openSync(unfinished, 'wx', 0o600))
    db.prepare('VACUUM INTO ?').run(unfinished)
    const file = openSync(unfinished, 'r+')
    fsyncSync(file)
    closeSync(file)
    renameSync(unfinished, copy)
  } finally {
    remove()
  }
  return { from, to: latestVersion, copy }
}

function sizeOf (db: DatabaseSync): number {
  const size = db.prepare('SELECT page_count * page_size AS size FROM pragma_page_count(), pragma_page_size()')
  return (size.get() as { size: number }).size
}

function freeIn (folder: string): number {
  const { bavail, bsize } = statfsSync(folder)
  return bavail * bsize
}

function megabytes (bytes: number): string {
  return `${Math.ceil(bytes / 1024 / 1024)} MB`
}

/** Each version in a transaction of its own: a crash leaves the file at one of them, whole. */
export function migrate (db: DatabaseSync): void {
  for (const [index, sql] of [...migrations.entries()].slice(versionOf(db))) {
    db.exec(`BEGIN IMMEDIATE; ${sql} PRAGMA user_version = ${index + 1}; COMMIT`)
  }
}

/**
 * An entry of the audit trail that is kept with sessions or refusals, as `auditPartOf` says: what callers can make many
 * of.
 */
export function ofCallers (row = ''): string {
  return `${row}kind IN ('mint', 'accept', 'refusals') OR (${row}kind = 'revoke' AND ${row}actor NOT IN ('admin', 'cli'))`
}
