import { badRequest } from '../../errors.ts'
import { instant } from '../instant.ts'
import type { AuditEntry, AuditKind } from '../ledger/audit.ts'
import { creditsFrom } from '../ledger/balance.ts'
import type { CreditAccounts } from '../ledger/credits.ts'
import type { Page, PageRequest, TaskRecord, TaskRecords } from '../ledger/records.ts'
import { microcredits } from '../policy/pricing.ts'
import { openCursor, sealCursor } from './cursor.ts'
import { type SessionEnds, sessionEnds, type SessionEndsOptions } from './session-ends.ts'
import { checkSubject } from './subject-form.ts'
import { type UsageQuery, type UsageReport, usageReport } from './usage.ts'

/** A page as somebody outside asks for it. */
export interface PageQuery {
  /** `next` of the page before; absent for the first. */
  readonly cursor?: string | undefined
  readonly limit: number
}

/** A task without a known end, as the operator is shown it. Instants are in ISO 8601. */
export interface UnknownTask extends Pick<TaskRecord, 'id' | 'subject' | 'taskId' | 'operation' | 'model'> {
  readonly credits: number
  readonly createdAt: string
  readonly endedAt: string | null
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
   * Gives credits beyond the plan's; resolves to what the subject has left of all grants, in credits. Throws
   * `GW_BAD_REQUEST` for a subject without its issuer, and for credits that are not above zero with at most six decimals.
   */
  grant (subject: string, credits: number): Promise<number>
  /** Tasks without a known end that are still charged, the oldest first. Throws `GW_BAD_REQUEST` for a made-up cursor. */
  unknowns (page: PageQuery): Promise<Page<UnknownTask>>
  /** Lets one of those go: its credits are given back. `false`: it is not one of them, or not any more. */
  release (id: string): Promise<boolean>
  /** The newest first. Throws `GW_BAD_REQUEST` for a made-up cursor. */
  audit (page: PageQuery): Promise<Page<ShownAuditEntry>>
}

export interface OperatorOptions extends SessionEndsOptions {
  readonly accounts: Pick<CreditAccounts, 'grant'>
  readonly records: Pick<TaskRecords, 'unknowns' | 'release' | 'usage'>
}

/** Most credits of one grant: a slip of the finger is smaller than a sum that can't be counted. */
const maxGrant = 100_000_000
const pageSize = 500

export function operator (options: OperatorOptions): Operator {
  const { accounts, records, trail, actor, now } = options
  const note = (kind: AuditKind, subject: string, detail: AuditEntry['detail']) =>
    trail.append([{ at: now(), kind, actor, subject, detail }])

  return {
    ...sessionEnds(options),
    usage: async query => usageReport(query, await records.usage(query)),
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
    audit: page => readPage('audit', page, request => trail.read(request), ({ at, ...entry }) => ({ at: instant(at), ...entry }))
  }
}

/** Throws `GW_BAD_REQUEST` for what can't be granted. */
export function checkGrant (subject: string, credits: number): void {
  checkSubject(subject)
  if (!(credits > 0 && credits <= maxGrant)) throw badRequest(`credits must be a number above 0 and at most ${maxGrant}.`)
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
  list: string, { cursor, limit }: PageQuery, read: (request: PageRequest) => Promise<Page<Item>>, show: (item: Item) => Shown
): Promise<Page<Shown>> {
  const { items, next } = await read({ cursor: cursor === undefined ? null : openCursor(list, cursor), limit })
  return { items: items.map(show), next: next === null ? null : sealCursor(list, next) }
}

function unknownTask ({ id, subject, taskId, operation, model, microcredits, createdAt, endedAt }: TaskRecord): UnknownTask {
  return {
    id,
    subject,
    taskId,
    operation,
    model,
    credits: creditsFrom(microcredits),
    createdAt: instant(createdAt),
    endedAt: endedAt === null ? null : instant(endedAt)
  }
}
