import type { DatabaseSync } from 'node:sqlite'
import {
  type ReserveRequest, type Earlier, type IdempotencyKey, idempotencyMs, type IdempotencyStore, type StoredResponse,
  type LedgerTerms, maxRepeats, type Repeat, repeatMs, type Repeats, type Stage
} from '../../domain/ledger.ts'
import type { Reservation, SubjectAccounts } from './accounts.ts'
import { type GroupCommit, read, rowAt } from './database.ts'

/**
 * What became of idempotency keys, and the ways that the ledger changes that: those are for use within its transaction.
 */
export interface SqliteIdempotency extends IdempotencyStore {
  /** As `earlier`, but of what may not be on disk yet. */
  find (subject: string, key: IdempotencyKey): Earlier | null
  /** Writes the row of a reservation that has a key. */
  begin (id: number, reservation: Reservation): void
  /** The first answer stays. A reservation without a key has none. */
  answer (id: number, answer: StoredResponse): void
  free (id: number): void
}

/** The columns that tell what became of a request. */
interface OutcomeRow {
  readonly status: number | null
  readonly content_type: string
  readonly body: Uint8Array
  readonly stage: Stage | null
  readonly task_id: string | null
}

interface Row extends OutcomeRow { readonly fingerprint: string }

/**
 * Idempotency keys in SQLite: a row per key, with the id of its reservation. It has no state of its own but the answer:
 * the rest is read from the task's row, so that a sweep, a crash and a late claim need not know of it. `steady`: as
 * `steadyClock` makes it.
 */
export function sqliteIdempotency (
  db: DatabaseSync,
  group: GroupCommit,
  { accounts, steady }: { readonly accounts: SubjectAccounts, readonly steady: () => number }
): SqliteIdempotency {
  const sql = idempotencyStatements(db)

  const find = (subject: string, { key, fingerprint }: IdempotencyKey): Earlier | null => {
    const reserved = accounts.fingerprintOf(subject, key)
    if (reserved !== undefined) return reserved === fingerprint ? { kind: 'pending' } : { kind: 'mismatch' }
    const row = read(() => sql.find.get(subject, key, steady() - idempotencyMs) as Row | undefined)
    if (row === undefined) return null
    return row.fingerprint === fingerprint ? outcomeOf(row) : { kind: 'mismatch' }
  }

  return {
    find,
    async earlier (subject, key) {
      const earlier = find(subject, key)
      // An answer that is told before its claim is on disk could outlive the claim.
      await group.committed()
      return earlier
    },
    begin (id, { request: { subject, idempotency }, createdAt }) {
      if (idempotency !== undefined) sql.begin.run(id, subject, idempotency.key, idempotency.fingerprint, createdAt)
    },
    answer (id, { status, contentType, body }) { sql.answer.run(status, contentType, body, id) },
    free (id) { sql.free.run(id) }
  }
}

/** What became of a request: its answer if that was kept, else how its task is. */
function outcomeOf ({ status, content_type: contentType, body, stage, task_id: taskId }: OutcomeRow): Earlier {
  if (status !== null) {
    return {
      kind: 'answered',
      answer: { status, contentType, body: Buffer.from(body.buffer, body.byteOffset, body.byteLength) }
    }
  }
  if (stage === 'sent') return { kind: 'pending' }
  return taskId === null ? { kind: 'unknown' } : { kind: 'task', taskId }
}

function idempotencyStatements (db: DatabaseSync) {
  return {
    find: db.prepare(`SELECT fingerprint, status, content_type, body, stage, task_id FROM idempotency AS kept LEFT JOIN tasks USING (id)
      WHERE kept.subject = ? AND key = ? AND kept.created_at > ?`),
    // In the place of one whose time is over.
    begin: db.prepare(
      'INSERT OR REPLACE INTO idempotency (id, subject, key, fingerprint, created_at) VALUES (?, ?, ?, ?, ?)'
    ),
    answer: db.prepare('UPDATE idempotency SET status = ?, content_type = ?, body = ? WHERE id = ? AND status IS NULL'),
    free: db.prepare('DELETE FROM idempotency WHERE id = ?')
  }
}

/** Submits without an idempotency key, and what the ledger tells of them: `claimed` within its transaction. */
export interface SqliteRepeats extends Repeats {
  /** As `take`, but of what may not be on disk yet. */
  find (subject: string, repeat: Repeat): Earlier | null
  /**
   * What `find` has given this call is on disk; or it is undone, and the next call gets that first. Throws
   * `GW_STORE_DOWN`.
   */
  found (subject: string, repeat: Repeat): Promise<void>
  begin (id: number, demand: ReserveRequest): void
  /** `true`: it is a submit without a key, so nothing else has its answer. */
  claimed (id: number, answer?: StoredResponse): boolean
  /** Its outcome is unknown. */
  lost (id: number): void
  /** Nothing was accepted, an operator let it go, or it never ended. */
  drop (id: number): void
  /** Writes what nobody waits for. */
  tidy (): void
}

interface Submit {
  readonly id: number
  readonly subject: string
  /** Equal submits of one subject have one. */
  readonly name: string
  /** Its answer, if it was given one; as in its row. */
  answer: StoredResponse | undefined
  /** Its caller has gone without an answer. */
  isUndelivered: boolean
  /** By the time that has passed; `null` while its outcome is open, or is being delivered. */
  until: number | null
  /** The call that it serves. */
  takenBy: string | null
}

interface RepeatsOptions {
  readonly accounts: SubjectAccounts
  /** Of an earlier server. */
  readonly remembered: readonly RememberedRow[]
  readonly now: () => number
  /** As in `Clock`. */
  readonly elapsed: () => number
}

/**
 * One server owns the file, so it keeps in memory which callers are still there, and whose submit serves whom. The file
 * has what a later one needs: the fingerprint, which is written with the step `sent` and taken away together with
 * whatever is written after its answer was delivered. After a crash whatever still has one counts as undelivered: in
 * doubt a submit that was answered in the last moment is not made again.
 */
export function sqliteRepeats (
  db: DatabaseSync,
  group: GroupCommit,
  { accounts, remembered, now, elapsed }: RepeatsOptions
): SqliteRepeats {
  const sql = statements(db)
  const memory = new SubmitMemory(elapsed)
  for (const row of remembered) memory.addRemembered(row, elapsed() + Math.min(repeatMs, row.until - now()))
  let written: readonly Submit[] = []
  group.onBegin(() => {
    written = memory.takeOver()
    for (const { id, until } of written) {
      sql.clear.run(id)
      if (until !== null) sql.forget.run(id)
    }
  })
  group.onUndo(() => {
    memory.over.push(...written)
    written = []
  })

  /** `null`: nothing was accepted. */
  const outcomeNow = ({ id, answer }: Submit): Earlier | null => {
    if (accounts.reservation(id) !== undefined) return { kind: 'pending' }
    const row = read(() => sql.find.get(id) as OutcomeRow | undefined)
    const outcome = row === undefined ? null : outcomeOf(row)
    return outcome?.kind === 'task' && answer !== undefined ? { kind: 'answered', answer } : outcome
  }
  const keepRow = ({ id, until, answer }: Submit): void => {
    sql.keep.run(id, now() + until! - elapsed(), ...columnsOf(answer))
  }
  const { find, found, take, end } = serving(memory, group, outcomeNow)

  return {
    find,
    found,
    take,
    end,
    delivered (name) { memory.endAt(rowAt(name)) },
    async undelivered (name, answer) {
      const submit = memory.at(rowAt(name))
      if (submit === undefined) return
      submit.isUndelivered = true
      submit.answer ??= answer
      memory.remember(submit)
      const outcome = outcomeNow(submit)
      if (outcome?.kind !== 'task' && outcome?.kind !== 'answered') return // it is written when there is a task
      submit.until ??= elapsed() + repeatMs
      group.run(() => keepRow(submit))
      await group.committed()
    },
    takeCrowded: () => memory.takeCrowded(),
    begin (id, { subject, repeat }) { if (repeat !== undefined) memory.add(id, subject, repeat) },
    claimed (id, answer) {
      const submit = memory.at(id)
      if (submit === undefined) return false
      submit.answer ??= answer
      if (submit.isUndelivered || submit.until !== null) {
        submit.until ??= elapsed() + repeatMs
        keepRow(submit)
      }
      return true
    },
    lost (id) { memory.rememberAt(id) },
    drop (id) { memory.forgetAt(id) },
    tidy () {
      memory.endOver()
      if (memory.over.length > 0) group.run(() => {})
    }
  }
}

/** Gives a call the submit that it repeats. */
function serving (
  memory: SubmitMemory, group: GroupCommit, outcomeNow: (submit: Submit) => Earlier | null
): Pick<SqliteRepeats, 'find' | 'found' | 'take' | 'end'> {
  const mayServe = ({ isUndelivered, until, takenBy }: Submit): boolean =>
    (isUndelivered || until !== null) && takenBy === null
  const giveBack = (subject: string, repeat: Repeat): void => {
    const submit = memory.takenBy(subject, repeat)
    if (submit !== undefined) submit.takenBy = null
  }
  const find = (subject: string, repeat: Repeat): Earlier | null => {
    const equal = memory.alike(subject, repeat)
    if (equal.length === 0) return null
    const own = equal.find(({ takenBy }) => takenBy === repeat.call)
    for (const submit of own === undefined ? equal : [own, ...equal]) {
      if (memory.isOver(submit)) memory.end(submit)
      else if (submit === own || mayServe(submit)) {
        const earlier = outcomeNow(submit)
        if (earlier !== null) {
          submit.takenBy = repeat.call
          return earlier
        }
        memory.forget(submit)
      }
    }
    return null
  }
  const found = async (subject: string, repeat: Repeat): Promise<void> => {
    try {
      await group.committed() // what is told must not be undone
    } catch (error) {
      giveBack(subject, repeat)
      throw error
    }
  }
  return {
    find,
    found,
    take (subject, repeat) {
      const earlier = find(subject, repeat)
      return earlier && found(subject, repeat).then(() => earlier)
    },
    async end (subject, repeat, isDelivered) {
      if (!isDelivered) return giveBack(subject, repeat)
      const submit = memory.takenBy(subject, repeat)
      if (submit !== undefined) memory.end(submit)
    }
  }
}

const none: readonly Submit[] = []

/** All submits whose answers were not delivered, by their rows and by their names; and those that are remembered. */
class SubmitMemory {
  /** Rows whose fingerprint is to be taken away. */
  over: Submit[] = []
  readonly #elapsed: () => number
  readonly #all = new Map<number, Submit>()
  /** Lists, each of which has one submit as a rule: a set would be five times as much to make. */
  readonly #byName = new Map<string, Submit[]>()
  /** Those that are remembered, by subject, the oldest first. */
  readonly #kept = new Map<string, Set<Submit>>()
  readonly #crowded = new Set<string>()

  constructor (elapsed: () => number) {
    this.#elapsed = elapsed
  }

  at (id: number): Submit | undefined {
    return this.#all.get(id)
  }

  alike (subject: string, repeat: Pick<Repeat, 'fingerprint'>): readonly Submit[] {
    return this.#byName.get(nameOf(subject, repeat)) ?? none
  }

  takenBy (subject: string, repeat: Repeat): Submit | undefined {
    return this.alike(subject, repeat).find(({ takenBy }) => takenBy === repeat.call)
  }

  add (id: number, subject: string, repeat: Pick<Repeat, 'fingerprint'>): Submit {
    const name = nameOf(subject, repeat)
    const submit: Submit = { id, subject, name, answer: undefined, isUndelivered: false, until: null, takenBy: null }
    this.#all.set(id, submit)
    const equal = this.#byName.get(name)
    if (equal === undefined) this.#byName.set(name, [submit])
    else equal.push(submit)
    return submit
  }

  /** Of an earlier server. `until`: by the time that has passed. */
  addRemembered ({ id, subject, repeat }: RememberedRow, until: number): void {
    const submit = this.add(id, subject, { fingerprint: repeat })
    submit.isUndelivered = true
    submit.until = until
    this.remember(submit)
  }

  remember (submit: Submit): void {
    const its = this.#kept.get(submit.subject) ?? new Set()
    this.#kept.set(submit.subject, its.add(submit))
    if (its.size <= maxRepeats) return
    const [oldest] = its
    this.end(oldest!)
    this.#crowded.add(submit.subject)
  }

  /** Its outcome is unknown. */
  rememberAt (id: number): void {
    const submit = this.#all.get(id)
    if (submit === undefined) return
    submit.until ??= this.#elapsed() + repeatMs
    this.remember(submit)
  }

  forget (submit: Submit): void {
    if (this.#all.delete(submit.id)) {
      const others = this.#byName.get(submit.name)!.filter(other => other !== submit)
      if (others.length === 0) this.#byName.delete(submit.name)
      else this.#byName.set(submit.name, others)
    }
    const its = this.#kept.get(submit.subject)
    its?.delete(submit)
    if (its?.size === 0) this.#kept.delete(submit.subject)
  }

  forgetAt (id: number): void {
    const submit = this.#all.get(id)
    if (submit !== undefined) this.forget(submit)
  }

  /** It serves nobody any more, and its row is to say so. */
  end (submit: Submit): void {
    this.forget(submit)
    this.over.push(submit)
  }

  endAt (id: number): void {
    const submit = this.#all.get(id)
    if (submit !== undefined) this.end(submit)
  }

  isOver ({ until }: Submit): boolean {
    return until !== null && until <= this.#elapsed()
  }

  endOver (): void {
    for (const its of this.#kept.values()) for (const submit of its) if (this.isOver(submit)) this.end(submit)
  }

  takeOver (): readonly Submit[] {
    const over = this.over
    this.over = []
    return over
  }

  takeCrowded (): readonly string[] {
    const subjects = [...this.#crowded]
    this.#crowded.clear()
    return subjects
  }
}

/** No fingerprint has a line break in it. */
function nameOf (subject: string, { fingerprint }: Pick<Repeat, 'fingerprint'>): string {
  return `${fingerprint}\n${subject}`
}

function columnsOf (
  answer: StoredResponse | undefined
): readonly [number, string, Buffer] | readonly [null, null, null] {
  return answer === undefined ? [null, null, null] : [answer.status, answer.contentType, answer.body]
}

/** The command line may have let one go. */
const isHeld = "NOT (stage = 'unknown' AND refunded = 1)"

function statements (db: DatabaseSync) {
  return {
    find: db.prepare(
      `SELECT stage, task_id, status, content_type, body FROM tasks LEFT JOIN repeats USING (id) WHERE id = ? AND ${isHeld}`
    ),
    // The instant stays; and so does an answer that is there.
    keep: db.prepare(`INSERT INTO repeats (id, until, status, content_type, body) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET
      status = excluded.status, content_type = excluded.content_type, body = excluded.body WHERE status IS NULL`),
    clear: db.prepare('UPDATE tasks SET repeat = NULL WHERE id = ?'),
    forget: db.prepare('DELETE FROM repeats WHERE id = ?')
  }
}

/** A submit that an earlier server has not delivered, and until when it is remembered (Unix ms). */
interface RememberedRow {
  readonly id: number
  readonly subject: string
  readonly repeat: string
  readonly until: number
}

/**
 * What an earlier server has not delivered, before its rows are changed. All its callers are gone, and nobody could
 * repeat anything while there was no server: the two minutes begin now, once.
 */
export function rememberedRows (
  db: DatabaseSync,
  { sentMs, reservedMs }: LedgerTerms,
  now: number
): readonly RememberedRow[] {
  // Older ones were over, or not young enough, when the last one was made.
  const youngMs = reservedMs + sentMs + repeatMs
  const { id: first } = db
    .prepare(
      `SELECT coalesce((SELECT id FROM tasks
    WHERE created_at < (SELECT created_at FROM tasks ORDER BY id DESC LIMIT 1) - ? ORDER BY id DESC LIMIT 1), 0) AS id`
    )
    .get(youngMs) as { id: number }
  db.prepare(
    `INSERT OR IGNORE INTO repeats (id, until) SELECT id, ? FROM tasks
    WHERE id > ? AND repeat IS NOT NULL AND stage IN ('sent', 'claimed', 'settled')`
  ).run(now + repeatMs, first)
  return db
    .prepare(
      `SELECT id, subject, repeat, coalesce(until, ended_at + ?) AS until FROM tasks LEFT JOIN repeats USING (id)
    WHERE id > ? AND repeat IS NOT NULL AND ${isHeld}`
    )
    .all(repeatMs, first) as unknown as RememberedRow[]
}
