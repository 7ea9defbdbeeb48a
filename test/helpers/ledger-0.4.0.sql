-- What the code of 0.4.0 had written in a day of its ledger when it was killed, as .dump of sqlite3 shows it.
PRAGMA foreign_keys = OFF;
BEGIN TRANSACTION;
CREATE TABLE accounts (
     subject       TEXT    PRIMARY KEY,
     granted       INTEGER NOT NULL CHECK (granted >= 0)
   ) STRICT, WITHOUT ROWID;
INSERT INTO "accounts" VALUES('app:alice',25);
CREATE TABLE answers (
     id            INTEGER PRIMARY KEY REFERENCES tasks (id) ON DELETE CASCADE,
     body          BLOB    NOT NULL
   ) STRICT;
INSERT INTO "answers" VALUES(1,X'7B22636F6465223A3230302C2264617461223A7B227374617465223A2273756363657373227D7D');
INSERT INTO "answers" VALUES(2,X'7B22636F6465223A3230302C2264617461223A7B227374617465223A2273756363657373227D7D');
CREATE TABLE audit (
     id            INTEGER PRIMARY KEY,
     at            INTEGER NOT NULL,
     kind          TEXT    NOT NULL,
     actor         TEXT    NOT NULL,
     subject       TEXT,
     detail        TEXT    NOT NULL
   ) STRICT;
INSERT INTO "audit" VALUES(1,1768478412000,'grant','cli','app:alice','{"credits":1}');
CREATE TABLE credits (
     subject       TEXT    NOT NULL,
     period_start  INTEGER NOT NULL,
     used          INTEGER NOT NULL CHECK (used >= 0),
     refunds       INTEGER NOT NULL DEFAULT 0,
     PRIMARY KEY (subject, period_start)
   ) STRICT, WITHOUT ROWID;
INSERT INTO "credits" VALUES('app:alice',1767225600000,100,1);
INSERT INTO "credits" VALUES('app:bob',1767225600000,5,0);
INSERT INTO "credits" VALUES('app:guest',1767225600000,5,0);
CREATE TABLE deliveries (
     id            INTEGER PRIMARY KEY REFERENCES tasks (id) ON DELETE CASCADE,
     url           TEXT    NOT NULL,
     attempts      TEXT    NOT NULL DEFAULT '[]',
     next_at       INTEGER
   ) STRICT;
INSERT INTO "deliveries" VALUES(6,'https://app.example/hook','[]',NULL);
CREATE TABLE grants (
     id            INTEGER PRIMARY KEY,
     subject       TEXT    NOT NULL,
     microcredits  INTEGER NOT NULL CHECK (microcredits > 0),
     created_at    INTEGER NOT NULL
   ) STRICT;
INSERT INTO "grants" VALUES(1,'app:alice',40,1768478400000);
CREATE TABLE guest_counts (
     name          TEXT    PRIMARY KEY,
     sessions      INTEGER NOT NULL,
     ends_at       INTEGER NOT NULL
   ) STRICT, WITHOUT ROWID;
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
INSERT INTO "idempotency" VALUES(4,'app:alice','one','print',1768478404000,200,'application/json',X'7B22636F6465223A3230307D');
CREATE TABLE repeats (
     id            INTEGER PRIMARY KEY REFERENCES tasks (id) ON DELETE CASCADE,
     until         INTEGER NOT NULL,
     status        INTEGER,
     content_type  TEXT,
     body          BLOB
   ) STRICT;
INSERT INTO "repeats" VALUES(3,1768478525000,200,'application/json',X'7B22636F6465223A3230307D');
CREATE TABLE revocations (
     session_id    TEXT    PRIMARY KEY,
     expires_at    INTEGER NOT NULL
   ) STRICT, WITHOUT ROWID;
INSERT INTO "revocations" VALUES('ended',1768478413000);
CREATE TABLE session_budgets (
     subject       TEXT    NOT NULL,
     session_id    TEXT    NOT NULL,
     uses          INTEGER NOT NULL CHECK (uses >= 0),
     microcredits  INTEGER NOT NULL CHECK (microcredits >= 0),
     expires_at    INTEGER NOT NULL,
     PRIMARY KEY (subject, session_id)
   ) STRICT, WITHOUT ROWID;
INSERT INTO "session_budgets" VALUES('app:guest','guest-1',1,5,1768564800000);
CREATE TABLE spent_proofs (
     id            TEXT    PRIMARY KEY,
     expires_at    INTEGER NOT NULL
   ) STRICT, WITHOUT ROWID;
CREATE TABLE subject_revocations (
     subject       TEXT    PRIMARY KEY,
     before        INTEGER NOT NULL,
     expires_at    INTEGER NOT NULL
   ) STRICT, WITHOUT ROWID;
CREATE TABLE tasks (
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
   , granted INTEGER NOT NULL DEFAULT 0, listed INTEGER NOT NULL DEFAULT 1, callback_hash TEXT, session_id TEXT, repeat TEXT) STRICT;
INSERT INTO tasks VALUES
  (1,'app:alice','generateTask','suno','key-1','settled','done',5,1,0,1767225600000,1768478401000,1768564801000,1768478401000,'success',0,1,NULL,NULL,NULL);
INSERT INTO tasks VALUES
  (2,'app:alice','generateTask','suno','key-1','settled','failed',5,1,1,1767225600000,1768478402000,1768564802000,1768478402000,'failed',0,1,NULL,NULL,'print 1768478402000');
INSERT INTO tasks VALUES
  (3,'app:alice','generateTask','suno','key-1','claimed','running',5,1,0,1767225600000,1768478403000,1768564803000,NULL,NULL,0,1,NULL,NULL,'print 1768478403000');
INSERT INTO tasks VALUES
  (4,'app:alice','generateTask','suno','key-1','claimed','running with a key',5,1,0,1767225600000,1768478404000,1768564804000,NULL,NULL,0,1,NULL,NULL,NULL);
INSERT INTO tasks VALUES
  (5,'app:guest','generateTask','suno','key-1','claimed','of a guest',5,1,0,1767225600000,1768478405000,1768564805000,NULL,NULL,0,1,NULL,'guest-1','print 1768478405000');
INSERT INTO tasks VALUES
  (6,'app:alice','generateTask','suno','key-1','claimed','told',5,1,0,1767225600000,1768478406000,1768564806000,NULL,NULL,0,1,'hash',NULL,'print 1768478406000');
INSERT INTO tasks VALUES
  (7,'app:alice','generateTask','suno','key-1','claimed','partly granted',90,1,0,1767225600000,1768478407000,1768564807000,NULL,NULL,10,1,NULL,NULL,'print 1768478407000');
INSERT INTO tasks VALUES
  (9,'app:alice','generateTask','suno','key-1','unknown',NULL,5,1,0,1767225600000,1768478409000,1768478549000,1768478409000,NULL,5,1,NULL,NULL,'print 1768478409000');
INSERT INTO tasks VALUES
  (10,'app:alice','generateTask','suno','key-1','unknown',NULL,5,1,1,1767225600000,1768478410000,1768478550000,1768478410000,NULL,5,1,NULL,NULL,'print 1768478410000');
INSERT INTO tasks VALUES
  (11,'app:alice','generateTask','suno','key-1','claimed','found after it was let go',5,1,1,1767225600000,1768478411000,1768564811000,NULL,NULL,5,1,NULL,NULL,'print 1768478411000');
INSERT INTO tasks VALUES
  (12,'app:bob','generateTask','suno','key-1','sent',NULL,5,1,0,1767225600000,1768478412000,1768478552000,NULL,NULL,0,0,NULL,NULL,'print 1768478412000');
CREATE TABLE tokens (
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
   ) STRICT;
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
CREATE INDEX unfinished_tasks ON tasks (id) WHERE ended_at IS NULL;
CREATE INDEX listed_tasks ON tasks (subject) WHERE listed = 1;
CREATE INDEX unknown_tasks ON tasks (id) WHERE stage = 'unknown' AND refunded = 0;
CREATE INDEX credit_periods ON credits (period_start);
CREATE TRIGGER grants_stay BEFORE UPDATE ON grants BEGIN SELECT raise(ABORT, 'grants are never changed'); END;
CREATE TRIGGER grants_last BEFORE DELETE ON grants BEGIN SELECT raise(ABORT, 'grants are never deleted'); END;
CREATE TRIGGER audit_stays BEFORE UPDATE ON audit BEGIN SELECT raise(ABORT, 'the audit trail is never changed'); END;
CREATE UNIQUE INDEX callback_hashes ON tasks (callback_hash) WHERE callback_hash IS NOT NULL;
CREATE INDEX due_deliveries ON deliveries (next_at) WHERE next_at IS NOT NULL;
CREATE INDEX ended_budgets ON session_budgets (expires_at);
CREATE INDEX ended_counts ON guest_counts (ends_at);
CREATE INDEX ended_proofs ON spent_proofs (expires_at);
CREATE INDEX ended_tasks ON tasks (subject, ended_at, task_id) WHERE stage = 'settled';
CREATE INDEX audit_of_callers ON audit (id) WHERE kind IN ('mint', 'accept', 'refusals') OR (kind = 'revoke' AND actor NOT IN ('admin', 'cli'));
CREATE TRIGGER audit_lasts BEFORE DELETE ON audit
     WHEN old.at > (SELECT at FROM audit ORDER BY id DESC LIMIT 1) - 400 * 86400000
       AND (NOT (old.kind IN ('mint', 'accept', 'refusals') OR (old.kind = 'revoke' AND old.actor NOT IN ('admin', 'cli'))) OR old.id > (SELECT max(id) FROM audit) - 1000000)
     BEGIN SELECT raise(ABORT, 'the audit trail is kept for 400 days'); END;
COMMIT;
PRAGMA user_version = 9;
