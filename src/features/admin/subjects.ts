import { randomBytes } from 'node:crypto'
import type { AuditEntry, AuditKind } from '../../domain/audit.ts'
import { creditsFrom, type Task } from '../../domain/ledger.ts'
import type { Page, TaskRecord, TaskRecords } from '../../domain/records.ts'
import type { Revocations } from '../../domain/session.ts'
import { type ErasedParts, erasedPrefix, type SubjectData, type SubjectPart } from '../../domain/subject-data.ts'
import { taskStateOf } from '../../domain/task-list.ts'
import { type Awaitable, instant } from '../../domain/time.ts'
import type { TokenStore } from '../../domain/tokens.ts'
import type { Deliveries } from '../../domain/webhooks.ts'
import { checkSubject, sessionEnds, type SessionEndsOptions } from './admin.ts'
import type { ExtraAccounts } from './extras.ts'

/** What the operator's routes alone work with, and no caller's. */
export interface OperatorServices {
  readonly deliveries: Pick<Deliveries, 'of'>
  /** Where the operator gives more than the settings say. */
  readonly extras: ExtraAccounts
  readonly subjects: SubjectData
  /** Deletes the copies of a task's results from this machine. */
  readonly forgetCopies: (task: Task) => Promise<void>
}

interface SubjectsOptions extends Omit<OperatorServices, 'subjects' | 'extras'>, SessionEndsOptions {
  readonly data: SubjectData
  readonly taskOf: (taskId: string) => Awaitable<Task | null>
  readonly records: Pick<TaskRecords, 'tasksOf' | 'usage'>
  readonly revocations: Pick<Revocations, 'revoke' | 'revokeSubject' | 'endedBefore'>
  readonly tokens: Pick<TokenStore, 'find' | 'revoke' | 'list'>
}

/** What has come of an erasure. */
export interface Erasure {
  /** `null`: nothing was erased, because something runs. */
  readonly erased: ErasedParts & { readonly pseudonym: string } | null
  /** Submits and tasks that may still change. After an erasure: what came while it was made. */
  readonly unfinished: number
}

/** All that is held of one subject. Both throw `GW_STORE_DOWN`, and `GW_BAD_REQUEST` for what is no subject. */
interface Subjects {
  /** Everything, a part at a time. It is in the audit trail before the first one comes. */
  export (subject: string): Promise<AsyncIterable<SubjectPart>>
  /**
   * Ends all sessions of the subject, and takes away what is held of it, if nothing of it runs any more: a task that
   * runs upstream can't be stopped, is paid for, and would come back with its end. Whoever does it again finds nothing.
   */
  erase (subject: string): Promise<Erasure>
}

const pageSize = 500
/** Longer than anything is kept. */
const ever = { from: '2000-01-01', to: '9999-12-31' }

export function subjects (options: SubjectsOptions): Subjects {
  const { data, trail, actor, now, forgetCopies } = options
  const { endSessions } = sessionEnds(options)
  const note = (kind: AuditKind, subject: string) => trail.append([{ at: now(), kind, actor, subject, detail: {} }])

  return {
    async export (subject) {
      checkSubject(subject)
      await note('export', subject)
      return partsOf(options, subject)
    },
    async erase (subject) {
      await endSessions(subject)
      const unfinished = await data.unfinishedOf(subject)
      if (unfinished > 0) return { erased: null, unfinished }
      const pseudonym = `${erasedPrefix}${randomBytes(9).toString('base64url')}`
      await note('erase', pseudonym)
      const parts = await data.erase({ subject, pseudonym, beforeTask: forgetCopies })
      return { erased: { pseudonym, ...parts }, unfinished: await data.unfinishedOf(subject) }
    }
  }
}

/** Says what to do when an erasure was refused. */
export function stillRunning (subject: string, unfinished: number): string {
  return `Nothing is erased: ${unfinished} of ${subject} still run. Its sessions are ended, so that nothing new begins: ` +
    'erase it again when they have ended, which takes tasks.giveUpMs at the longest.'
}

/** As JSON lines (https://jsonlines.org). */
export async function * linesOf (parts: AsyncIterable<SubjectPart>): AsyncGenerator<string> {
  for await (const part of parts) yield `${JSON.stringify(part)}\n`
}

async function * partsOf (options: SubjectsOptions, subject: string): AsyncGenerator<SubjectPart> {
  const { data, records, revocations, tokens, trail, now } = options
  yield { kind: 'subject', subject, exportedAt: instant(now()) }
  for await (const record of all(page => records.tasksOf(subject, page))) yield await taskPart(options, record)
  yield * data.partsOf(subject)
  for (const row of await records.usage(ever)) {
    if (row.subject !== subject) continue
    const { day, model, tasks, succeeded, failed, unknown, microcredits } = row
    yield { kind: 'usage', day, model, tasks, succeeded, failed, unknown, credits: creditsFrom(microcredits) }
  }
  const before = await revocations.endedBefore(subject)
  if (before > -Infinity) yield { kind: 'sessions ended', before: instant(before) }
  for await (const token of all(tokens.list)) {
    if (token.subject !== subject) continue
    const { secret, previous, createdAt, expiresAt, revokedAt, usedAt, ...facts } = token
    yield {
      kind: 'token',
      ...facts,
      createdAt: instant(createdAt),
      expiresAt: instant(expiresAt),
      revokedAt: revokedAt && instant(revokedAt),
      usedAt: usedAt && instant(usedAt)
    }
  }
  for await (const entry of all<AuditEntry>(trail.read)) {
    if (entry.subject !== subject && entry.actor !== subject) continue
    const { at, kind: what, ...facts } = entry
    yield { kind: 'audit entry', at: instant(at), what, ...facts }
  }
}

async function taskPart ({ taskOf, deliveries }: SubjectsOptions, record: TaskRecord): Promise<SubjectPart> {
  const { id, taskId, operation, model, stage, microcredits, refunded, createdAt, endedAt } = record
  const [task, delivery] = taskId === null ? [null, null] : await Promise.all([taskOf(taskId), deliveries.of(taskId)])
  return {
    kind: 'task',
    id,
    taskId,
    operation,
    model,
    stage,
    state: taskStateOf(record),
    credits: creditsFrom(microcredits),
    refunded,
    createdAt: instant(createdAt),
    endedAt: endedAt === null ? null : instant(endedAt),
    answer: task?.finalAnswer?.toString() ?? null,
    delivery
  }
}

async function * all<Item> (
  read: (page: { readonly cursor: string | null, readonly limit: number }) => Promise<Page<Item>>
): AsyncGenerator<Item> {
  let cursor: string | null = null
  do {
    const { items, next }: Page<Item> = await read({ cursor, limit: pageSize })
    yield * items
    cursor = next
  } while (cursor !== null)
}
