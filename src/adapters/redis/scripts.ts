import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { basename, join, relative } from 'node:path'
import type { AuditPart } from '../../domain/audit.ts'
import type { StoredResponse } from '../../domain/ledger.ts'
import type { FinalState } from '../../domain/upstream.ts'

/**
 * The Lua scripts, a file each, and what each of them is asked. A script is told everything in one argument of JSON, by
 * the names below; an absent field is nil there. What is bytes, the body of an answer, comes beside it.
 *
 * Replicas of two versions may run side by side: Redis knows a script by its text, so each asks its own. What is stored
 * is what they have to agree about.
 */

/** Durations and bounds that all scripts of a subject go by, ms but for the last two: `terms` in Lua. */
export interface SubjectTerms {
  /** How long keys are kept that are only looked up by their name. */
  readonly keepMs: number
  /** How long what has ended is kept. */
  readonly retentionMs: number
  /** How long a period is kept when a later one has begun. */
  readonly supersededMs: number
  /** How long the sums of a day are kept. */
  readonly usageMs: number
  /** How long `endsOf` knows of an end. */
  readonly endsKeptMs: number
  /** How long an idempotency key is kept. */
  readonly idempotencyMs: number
  /** How long a submit without such a key is remembered. */
  readonly repeatMs: number
  /** A replica that has said nothing for so long is dead. */
  readonly deadMs: number
  /** Keys outlive what stands in them by this. */
  readonly slackMs: number
  readonly maxRepeats: number
  readonly refundsPerPeriod: number
}

/** An answer, whose body comes beside the request. */
type AnswerHead = Pick<StoredResponse, 'status' | 'contentType'>

/** A submit without an idempotency key, and which replicas its own knows to be alive and dead, in a line each. */
export interface RepeatRequest {
  readonly fingerprint: string
  readonly call: string
  /** The name of its replica. */
  readonly start: string
  readonly alive: string
  readonly dead: string
}

interface FindRequest {
  readonly key: string
  readonly fingerprint: string
  /** Keys that were made later than this count, Unix ms. */
  readonly since: number
}

interface OfReservation { readonly number: string }
interface OfTask extends OfReservation { readonly task: string }
interface Answered extends OfReservation { readonly answer?: AnswerHead | undefined }

/** Credits are microcredits, instants Unix ms. */
export interface ReserveFields {
  readonly operation: string
  readonly model: string
  readonly keyId: string
  readonly cost: number
  readonly refundable: boolean
  readonly day: string
  readonly periodStart: number
  readonly creditLimit?: number | undefined
  readonly taskLimit: number
  readonly overstaysAt: number
  readonly deliverTo?: string | undefined
  readonly idempotency?: FindRequest | undefined
  /** If it has no idempotency key. */
  readonly submit?: RepeatRequest | undefined
  /** If it has limits of its own; a limit that is absent is none. */
  readonly session?: {
    readonly id: string
    readonly uses?: number | undefined
    readonly creditLimit?: number | undefined
    readonly keptMs: number
  } | undefined
  /** If it draws on accounts above its subject. */
  readonly hold?: { readonly name: string, readonly accounts: string } | undefined
}

/** What an operator gives. `name`: as nothing else is named. */
interface GivenRequest {
  readonly name: string
  readonly microcredits: number
  /** Most that there may be of its kind. */
  readonly limit: number
}
interface ExtraRequest extends GivenRequest { readonly endsAt: number, readonly keptMs: number }

/** How the reservation of a hold is now. `cost`: what it comes to, if that is not what it has taken. */
export interface HoldState {
  readonly name: string
  readonly to: 'running' | 'idle' | 'closed'
  readonly cost?: number | undefined
  /** When the subject is asked about it, Unix ms. */
  readonly dueAt: number
}

/** What the scripts in `lua/subject` are asked, by their names. */
export interface SubjectRequests {
  readonly reserve: { readonly submits: readonly ReserveFields[] }
  readonly markSent: OfReservation & {
    readonly keyId: string
    readonly overstaysAt: number
    readonly callbackHash?: string | undefined
  }
  readonly claim: OfTask & Answered & { readonly overstaysAt: number }
  readonly mayClaim: OfTask
  readonly release: Answered
  readonly markUnknown: OfReservation
  readonly use: OfReservation & { readonly microcredits: number, readonly isEstimate: boolean }
  readonly giveUp: OfTask
  readonly abandon: OfTask & { readonly overstaysAt: number, readonly mostPerHour: number }
  /** Beside it the answer's body. */
  readonly settle: OfTask & { readonly state: FinalState }
  readonly releaseUnknown: OfReservation
  readonly sweep: { readonly limit: number }
  readonly dueDeliveries: { readonly limit: number }
  readonly readDelivery: OfTask
  readonly recordAttempt: OfTask & { readonly attempt: string, readonly nextAt?: number | undefined }
  readonly findEarlier: FindRequest
  readonly takeRepeat: RepeatRequest
  readonly endRepeat: Pick<RepeatRequest, 'fingerprint' | 'call'> & { readonly isDelivered: boolean }
  readonly markUndelivered: Answered
  readonly markDelivered: { readonly numbers: readonly string[] }
  readonly readBalance: { readonly periodStart: number }
  readonly readSpent: { readonly sessionId: string }
  readonly grantCredits: { readonly microcredits: number, readonly limit: number }
  readonly raiseSubject: ExtraRequest
  readonly resolveHolds: { readonly names: readonly string[] }
  readonly listUnfinished: { readonly after: string, readonly createdBy: number, readonly limit: number }
  readonly listTasks: { readonly from: string, readonly above: string, readonly limit: number }
  readonly listOpen: { readonly from: string, readonly above: string, readonly limit: number }
  readonly readTask: OfReservation
  readonly eraseTasks: { readonly numbers: readonly string[] }
  readonly eraseAll: { readonly names: readonly string[] }
  readonly listEnded: { readonly endedAt: number, readonly task: string, readonly limit: number }
  readonly listUnknown: { readonly from: string, readonly limit: number }
  readonly trimLists: Readonly<Record<string, never>>
  readonly readBooks: { readonly after: string, readonly limit: number, readonly days: readonly string[] }
}

interface OfToken { readonly id: string }
interface OfSubject { readonly name: string }

/** What the scripts in `lua/key` are asked, by their names. */
export interface KeyRequests {
  readonly createToken: OfToken & { readonly keptMs: number, readonly token: Readonly<Record<string, string>> }
  readonly listTokens: { readonly below: string, readonly limit: number }
  readonly rotateToken: OfToken & { readonly hash: string, readonly issuedAt: number, readonly previousUntil: number }
  readonly acceptInvitation: OfToken & {
    readonly invitation: string
    readonly hash: string
    readonly issuedAt: number
    readonly keptAfterMs: number
  }
  readonly deleteToken: OfToken
  readonly revokeToken: OfToken & { readonly at: number }
  readonly recordTokenUse: OfToken & { readonly at: number, readonly unlessAfter: number }
  readonly acquireLease: {
    readonly now: number
    readonly intervalMs: number
    readonly hasNews: boolean
    readonly asker: string
    readonly endsAt: number
    readonly keptMs: number
  }
  readonly releaseLease: {
    readonly asker: string
    readonly freeAt: number
    readonly keptMs: number
    readonly answer?: AnswerHead | undefined
  }
  readonly takeHolds: {
    readonly now: number
    /** When the subject is asked about them, Unix ms. */
    readonly dueAt: number
    /** It says so when a window is nearly used up. */
    readonly tellsEnd: boolean
    readonly submits: ReadonlyArray<{
      readonly name: string
      readonly cost: number
      readonly runningLimit?: number | undefined
      /** One that never ends is prepaid, and kept for ever. */
      readonly windows: ReadonlyArray<{
        readonly window: string
        readonly limit: number
        readonly isPrepaid: boolean
        readonly keptMs?: number | undefined
      }>
    }>
  }
  readonly setHolds: { readonly holds: readonly HoldState[] }
  readonly dueHolds: { readonly now: number, readonly limit: number }
  readonly readAccount: { readonly now: number, readonly window?: string | undefined, readonly isPrepaid?: boolean }
  readonly readHolds: { readonly windows: readonly string[] }
  readonly raiseAccount: { readonly now: number, readonly given: GivenRequest | ExtraRequest }
  readonly setOwner: { readonly owner: string, readonly keptMs: number, readonly takenFrom?: string | undefined }
  readonly deleteValue: { readonly value: string }
  readonly lead: { readonly replica: string, readonly leaseMs: number }
  readonly touchSubject: OfSubject & { readonly now: number, readonly dueAt: number }
  readonly dueSubjects: { readonly now: number, readonly limit: number }
  readonly postponeSubject: OfSubject & { readonly usedAt: number, readonly dueAt?: number | undefined }
  readonly idleSubjects: { readonly usedBy: number, readonly limit: number }
  readonly forgetSubject: OfSubject & { readonly usedBy: number }
  readonly raiseNumber: { readonly number: number, readonly keptMs: number }
  readonly takeFromWindow: { readonly limit: number, readonly windowMs: number }
  readonly putBack: Readonly<Record<string, never>>
  readonly hitRate: { readonly windowMs: number }
  readonly readRate: Readonly<Record<string, never>>
  readonly touchDeliveries: OfSubject & { readonly now: number, readonly keptMs: number }
  readonly forgetDeliveries: OfSubject & { readonly touchedAt: number }
  /** The message comes beside it. */
  readonly publishMessage: Readonly<Record<string, never>>
  readonly rewriteAudit: {
    readonly to: string
    readonly entries: ReadonlyArray<{ readonly id: string, readonly entry: string }>
    readonly last?: string | undefined
  }
  readonly appendAudit: {
    readonly entries: ReadonlyArray<{ readonly part: AuditPart, readonly entry: string }>
    readonly limit: number
    readonly operatorKeptMs: number
  }
}

/**
 * The line that gives a script its terms. They do not come with each request: to read them from there took a tenth of
 * all the time that Redis needs for a submit.
 */
export function preludeOf (terms: SubjectTerms): string {
  return `local terms = { ${Object.entries(terms).map(([name, value]) => `${name} = ${value}`).join(', ')} }\n`
}

export type SubjectScript = keyof SubjectRequests
export type KeyScript = keyof KeyRequests

/**
 * Reads every script of a folder, by its name: `reserve.lua` is `reserve`. A line `-- include x.lua`, in a script or in
 * what it includes, is the place of that file in `includes`: its functions are the script's own from there on. A file
 * comes once, where it is first included. Throws a sentence that names the line when there is none, or when it includes
 * itself.
 */
export function readScripts (folder: string, includes: string): ReadonlyMap<string, string> {
  const files = readdirSync(folder).filter(file => file.endsWith('.lua'))
  return new Map(files.map(file => [basename(file, '.lua'), resolved(join(folder, file), includes)]))
}

const includeLine = /^-- include +(\S+)\s*$/

/** `within`: the files that are being included, the outermost first. `done`: those that the script has already. */
function resolved (file: string, includes: string, within: readonly string[] = [], done = new Set<string>()): string {
  const lines = readFileSync(file, 'utf8').split('\n')
  return lines.map((line, index) => {
    const name = includeLine.exec(line)?.[1]
    if (name === undefined) return line
    const included = join(includes, name)
    const place = `${relative(join(includes, '..'), file)}:${index + 1}`
    if (!existsSync(included)) throw new Error(`${place}: there is no ${name} to include in ${includes}`)
    if (included === file || within.includes(included)) throw new Error(`${place}: ${name} includes itself`)
    if (done.has(included)) return ''
    done.add(included)
    return resolved(included, includes, [...within, file], done)
  }).join('\n')
}

const lua = join(import.meta.dirname, 'lua')
const includes = join(lua, 'include')

/** The scripts of a subject. Read when this file is loaded: a gateway that lacks one does not start. */
export const subjectScripts = readScripts(join(lua, 'subject'), includes)

/** The others; each is one atomic step in the slot of its key. */
export const keyScripts = readScripts(join(lua, 'key'), includes)

/** What a script is told of an answer, whose body it gets beside that. */
export function headOf (answer: AnswerHead | undefined): AnswerHead | undefined {
  return answer && { status: answer.status, contentType: answer.contentType }
}

/** The one argument of a script. Surrogates without their other half, which Lua's JSON does not know, are replaced. */
export function packed (value: object): string {
  const json = JSON.stringify(value)
  return json.includes('\\ud') ? JSON.stringify(value, wellFormed) : json
}

function wellFormed (_: string, value: unknown): unknown {
  return typeof value === 'string' ? value.toWellFormed() : value
}
