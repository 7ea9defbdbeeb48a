import type { AuditEntry, AuditKind, AuditTrail } from '../../domain/audit.ts'
import { isPrintable } from '../../domain/json.ts'
import { type CreditAccounts, creditsFrom, type Stage } from '../../domain/ledger.ts'
import { microcredits } from '../../domain/policy.ts'
import {
  openCursor, type Page, type PageQuery, type PageRequest, sealCursor, type TaskDetail, type TaskRecord,
  type TaskRecords, type UsageQuery, type UsageReport, usageReport
} from '../../domain/records.ts'
import {
  cookieRevocationId, hasOwnPrefix, type IssueTimes, ownPrefixes, type Revocations
} from '../../domain/session.ts'
import { type TaskFilter, type TaskState, taskStateOf } from '../../domain/task-list.ts'
import { endOfTime, instant } from '../../domain/time.ts'
import { isTokenId, type TokenStore } from '../../domain/tokens.ts'
import type { Deliveries, Delivery } from '../../domain/webhooks.ts'
import { badRequest } from '../../errors.ts'

/** An issuer's name and the subject's own, without what no store and no terminal should have to show. */
const storedSubject = /^(?=.{3,160}$)[^:\p{Cc}\p{Cs}]+:[^\p{Cc}\p{Cs}]+$/u

/** Throws `GW_BAD_REQUEST` for a subject that does not have its stored form, and says what was probably meant. */
export function checkSubject (subject: string): void {
  if (storedSubject.test(subject)) return
  // `alice` is most likely the app's own.
  const own = ownPrefixes.app + subject
  const meant = storedSubject.test(own) && !subject.includes(':') ? own : 'app:alice'
  throw badRequest(`subject must have its stored form, issuer and name: ${meant}.`)
}

/** Where a subject or a session leaves its traces. */
export interface Traces {
  readonly records: Pick<TaskRecords, 'tasksOf'>
  readonly accounts: Pick<CreditAccounts, 'balanceOf'>
  readonly audit: Pick<AuditTrail, 'read'>
}

/**
 * Whether anything here speaks of this subject: a task, credits that it was granted, a session or a token. One that
 * comes by another issuer's tokens leaves no trace before its first task. Reads the audit trail to its end when there
 * is nothing, so it is for the command line alone. Throws `GW_STORE_DOWN`.
 */
export async function isKnownSubject ({ records, accounts, audit }: Traces, subject: string): Promise<boolean> {
  const { items } = await records.tasksOf(subject, { cursor: null, limit: 1 })
  if (items.length > 0 || (await accounts.balanceOf(subject, 0)).granted > 0) return true
  // What an operator has ended need not have been there.
  return await hasEntry(audit, entry => entry.subject === subject && entry.kind !== 'revoke')
}

/** Whether the audit trail speaks of the minting of this session. Reads it to its end when it does not. */
export async function isKnownSession ({ audit }: Pick<Traces, 'audit'>, id: string): Promise<boolean> {
  return await hasEntry(audit, ({ kind, detail }) => kind === 'mint' && detail['session'] === id)
}

async function hasEntry (audit: Traces['audit'], isIt: (entry: AuditEntry) => boolean): Promise<boolean> {
  let cursor: string | null = null
  do {
    const { items, next }: Awaited<ReturnType<Traces['audit']['read']>> = await audit.read({ cursor, limit: 500 })
    if (items.some(isIt)) return true
    cursor = next
  } while (cursor !== null)
  return false
}

/**
 * How the operator ends sessions before their time: those that we have minted, cookies, tokens, and those of other
 * issuers. Within a second every replica refuses their next request, and their streams close with the next look at
 * them; a request that runs is finished. All methods throw `GW_STORE_DOWN` and `GW_BAD_REQUEST`.
 *
 * It is never forgotten: our own sessions end by `sessions.maxTtlSeconds` as it was when they were minted, but nothing
 * bounds the `exp` of another issuer, and a session that was ended must not come back.
 */
interface SessionEnds {
  /**
   * Ends all sessions of a subject in its stored form, `app:alice`, that were issued until now; resolves to that
   * instant, in ISO 8601. Sessions issued later stay valid, except two kinds of another issuer's tokens: those that do
   * not say when they were issued, and those of the same second, for most issuers count whole seconds.
   *
   * The instant is by our own clock, or later where that has been put back since. A clock that is ahead, another
   * replica's or an issuer's, may have dated a session after it: to be sure, end them again when the difference has
   * passed.
   */
  endSessions (subject: string): Promise<string>
  /**
   * Ends one session by its id, as the audit trail has it, with the cookie that it was swapped for; or a token by its
   * id, with all its secrets. Of another issuer's token the id is the issuer's name (or `subjectPrefix`), a colon, and
   * its `jti`. Nobody has a list of sessions: an id that is none, or not yet, is ended like any other.
   */
  endSession (id: string): Promise<void>
}

export interface SessionEndsOptions {
  readonly revocations: Pick<Revocations, 'revoke' | 'revokeSubject'>
  readonly times: Pick<IssueTimes, 'end'>
  readonly tokens: Pick<TokenStore, 'find' | 'revoke'>
  readonly trail: AuditTrail
  /** How the audit trail names whoever did it. */
  readonly actor: 'admin' | 'cli'
  readonly now: () => number
}

/** An issuer's name, a colon, and the longest `jti` that stands for itself are shorter. */
const maxIdLength = 256
/** The beginning of a token, as it is sent: it must not get into the audit trail. `eyJ` is how JWTs begin. */
const secret = /apxi?_[0-9A-Za-z]{11}_|(?:^|[\s="'])eyJ/

export function sessionEnds ({ revocations, times, tokens, trail, actor, now }: SessionEndsOptions): SessionEnds {
  const note = (subject: string | null, detail: AuditEntry['detail']) =>
    trail.append([{ at: now(), kind: 'revoke', actor, subject, detail }])

  return {
    async endSessions (subject) {
      checkSubject(subject)
      await note(subject, { everywhere: true })
      const before = await times.end()
      await revocations.revokeSubject(subject, before, endOfTime)
      return instant(before)
    },
    async endSession (id) {
      checkSessionId(id)
      // Looked for here and not left to `revocations`: those of a bare store, as the command line has it, know no
      // tokens.
      const token = isTokenId(id) ? await tokens.find(id) : null
      await note(token === null ? null : token.subject, { session: id })
      if (token !== null) await tokens.revoke(id, now())
      else await Promise.all([id, cookieRevocationId(id)].map(name => revocations.revoke(name, endOfTime)))
    }
  }
}

/** Throws `GW_BAD_REQUEST` for what can't be the id of a session. */
export function checkSessionId (id: string): void {
  if (secret.test(id)) throw badRequest('session must be the id of a session, and never its token.')
  // No session has such an id: other issuers can't have these names.
  if (hasOwnPrefix(id)) {
    throw badRequest('session must be the id of a session: to end all sessions of a subject, name it as subject.')
  }
  if (id.length > maxIdLength || !isPrintable(id)) {
    throw badRequest(`session must be the id of a session: at most ${maxIdLength} printable characters.`)
  }
}

/** A task without a known end, as the operator is shown it. Instants are in ISO 8601. */
export interface UnknownTask extends Pick<TaskRecord, 'id' | 'subject' | 'taskId' | 'operation' | 'model'> {
  readonly credits: number
  readonly createdAt: string
  readonly endedAt: string | null
}

/** A task of anybody, as the operator finds it in a list. Instants are in ISO 8601. */
export interface ShownTask extends UnknownTask {
  readonly state: TaskState
  readonly refunded: boolean
}

/** One in full: never its prompt, which is not stored, nor its answer. */
export interface ShownTaskDetail extends ShownTask {
  /** How far its reservation has come. */
  readonly stage: Stage
  /** The fingerprint of the upstream key that it was sent with. */
  readonly keyId: string
  readonly refundable: boolean
  /** The part of its credits that is from grants. */
  readonly creditsFromGrants: number
  /** The start of the period that the rest is from. */
  readonly periodStart: string
  readonly session: string | null
  /** When it is unknown if nothing is heard of it. */
  readonly givenUpAt: string | null
  readonly answerBytes: number | null
  /** To which host its end is told, how often that was tried, and when it is tried next. */
  readonly delivery: { readonly host: string, readonly attempts: number, readonly nextAt: string | null } | null
}

/** Of one subject, if that is named. */
export interface AllTasksFilter extends TaskFilter {
  readonly subject?: string | undefined
}

export interface ShownAuditEntry extends Omit<AuditEntry, 'at'> {
  readonly at: string
}

/**
 * What the operator may see and do, the same through the admin API and the CLI.
 *
 * A deed is in the audit trail before it is done: none is ever without its entry, and after a failure there may be an
 * entry of what was then not done. All methods throw `GW_STORE_DOWN`.
 */
export interface Operator extends SessionEnds {
  /** Throws `GW_BAD_REQUEST`. */
  usage (query: UsageQuery): Promise<UsageReport>
  /**
   * Everybody's tasks, the newest first. A page may be shorter than its limit: `next` alone says whether there is more.
   * Throws `GW_BAD_REQUEST` for a made-up cursor, or a subject without its issuer.
   */
  tasks (page: PageQuery, filter: AllTasksFilter): Promise<Page<ShownTask>>
  /** By its task id, or its id in the list. `null`: there is none. */
  task (id: string): Promise<ShownTaskDetail | null>
  /**
   * Gives credits beyond the plan's; resolves to what the subject has left of all grants, in credits. Throws
   * `GW_BAD_REQUEST` for a subject without its issuer, and for credits that are not above zero with at most six
   * decimals.
   */
  grant (subject: string, credits: number): Promise<number>
  /**
   * Tasks without a known end that are still charged, the oldest first. Throws `GW_BAD_REQUEST` for a made-up cursor.
   */
  unknowns (page: PageQuery): Promise<Page<UnknownTask>>
  /** Lets one of those go: its credits are given back. `false`: it is not one of them, or not any more. */
  release (id: string): Promise<boolean>
  /** The newest first. Throws `GW_BAD_REQUEST` for a made-up cursor. */
  audit (page: PageQuery): Promise<Page<ShownAuditEntry>>
}

interface OperatorOptions extends SessionEndsOptions {
  readonly accounts: Pick<CreditAccounts, 'grant'>
  readonly records: Pick<TaskRecords, 'unknowns' | 'release' | 'usage' | 'tasks' | 'tasksOf' | 'taskAt'>
  readonly deliveries: Pick<Deliveries, 'of'>
}

/** Most credits of one grant: a slip of the finger is smaller than a sum that can't be counted. */
const maxGrant = 100_000_000
const pageSize = 500

export function operator (options: OperatorOptions): Operator {
  const { accounts, records, deliveries, trail, actor, now } = options
  const note = (kind: AuditKind, subject: string, detail: AuditEntry['detail']) =>
    trail.append([{ at: now(), kind, actor, subject, detail }])

  return {
    ...sessionEnds(options),
    usage: async query => usageReport(query, await records.usage(query)),
    async tasks (page, { subject, ...filter }) {
      if (subject === undefined) return await readPage('tasks', page, one => records.tasks(one, filter), shownTask)
      checkSubject(subject)
      // A cursor of one list means nothing in another one.
      return await readPage(`tasks ${subject}`, page, one => records.tasksOf(subject, one, filter), shownTask)
    },
    async task (id) {
      const task = await records.taskAt(id)
      if (task === null) return null
      return shownTaskDetail(task, task.taskId === null ? null : await deliveries.of(task.taskId))
    },
    async grant (subject, credits) {
      checkGrant(subject, credits)
      await note('grant', subject, { credits })
      return creditsFrom(await accounts.grant({ subject, microcredits: microcredits(credits) }))
    },
    unknowns: page => readPage('unknown', page, request => records.unknowns(request), unknownTask),
    async release (id) {
      const record = await unknownOf(records, id)
      if (record === undefined) return false
      const { subject, taskId, model } = record
      await note('release', subject, { id, taskId, model, credits: creditsFrom(record.microcredits) })
      return await records.release(id)
    },
    audit: page =>
      readPage(
        'audit',
        page,
        request => trail.read(request),
        ({ at, ...entry }) => ({ at: instant(at), ...entry })
      )
  }
}

/** Throws `GW_BAD_REQUEST` for what can't be granted. */
export function checkGrant (subject: string, credits: number): void {
  checkSubject(subject)
  checkCredits(credits)
}

/** Throws `GW_BAD_REQUEST`. */
export function checkCredits (credits: number): void {
  if (!(credits > 0 && credits <= maxGrant)) {
    throw badRequest(`credits must be a number above 0 and at most ${maxGrant}.`)
  }
  if (creditsFrom(microcredits(credits)) !== credits) throw badRequest('credits must have at most six decimals.')
}

/** There are few of them, and none is let go often: looking through all is cheaper than an index for this alone. */
async function unknownOf (records: Pick<TaskRecords, 'unknowns'>, id: string): Promise<TaskRecord | undefined> {
  for (let cursor: string | null = null; ;) {
    const { items, next }: Page<TaskRecord> = await records.unknowns({ cursor, limit: pageSize })
    const found = items.find(item => item.id === id)
    if (found !== undefined || next === null) return found
    cursor = next
  }
}

async function readPage<Item, Shown> (
  list: string,
  { cursor, limit }: PageQuery,
  read: (request: PageRequest) => Promise<Page<Item>>,
  show: (item: Item) => Shown
): Promise<Page<Shown>> {
  const { items, next } = await read({ cursor: cursor === undefined ? null : openCursor(list, cursor), limit })
  return { items: items.map(show), next: next === null ? null : sealCursor(list, next) }
}

function shownTask (record: TaskRecord): ShownTask {
  const { id, subject, taskId, operation, model, microcredits, refunded, createdAt, endedAt } = record
  return {
    id,
    subject,
    taskId,
    operation,
    model,
    state: taskStateOf(record),
    credits: creditsFrom(microcredits),
    refunded,
    createdAt: instant(createdAt),
    endedAt: instantOr(endedAt)
  }
}

function shownTaskDetail (task: TaskDetail, delivery: Delivery | null): ShownTaskDetail {
  return {
    ...shownTask(task),
    stage: task.stage,
    keyId: task.keyId,
    refundable: task.refundable,
    creditsFromGrants: creditsFrom(task.fromGrants),
    periodStart: instant(task.periodStart),
    session: task.sessionId,
    givenUpAt: instantOr(task.leaseUntil),
    answerBytes: task.answerBytes,
    delivery: delivery && {
      host: new URL(delivery.url).host, attempts: delivery.attempts.length, nextAt: instantOr(delivery.nextAt)
    }
  }
}

function instantOr (ms: number | null): string | null {
  return ms === null ? null : instant(ms)
}

function unknownTask (record: TaskRecord): UnknownTask {
  const { state, refunded, ...shown } = shownTask(record)
  return shown
}
