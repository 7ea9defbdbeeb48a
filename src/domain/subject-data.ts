import { fingerprintOf, type Task } from './ledger.ts'

/** One thing that a store holds of a subject, as a line of an export. Credits are in credits, instants in ISO 8601. */
export interface SubjectPart extends Readonly<Record<string, unknown>> {
  readonly kind: string
}

/** What was taken from under a subject's name. */
export interface ErasedParts {
  readonly tasks: number
  readonly tokens: number
  readonly auditEntries: number
}

export interface EraseRequest {
  readonly subject: string
  /** What stands in the place of its name where something stays. */
  readonly pseudonym: string
  /** Called for each task that has a final answer, before it goes: for what is kept of it elsewhere. */
  readonly beforeTask: (task: Task) => Promise<void>
}

/** All that a store holds under the name of one subject. All methods throw `GW_STORE_DOWN`. */
export interface SubjectData {
  /** What no other part of the store can tell: credits, grants, sessions with limits, idempotency keys. */
  partsOf (subject: string): AsyncIterable<SubjectPart>
  /** How many of its submits and tasks may still change. */
  unfinishedOf (subject: string): Promise<number>
  /**
   * Takes all of it away that has ended. What stays is for the books, under the pseudonym: sums of days and models, as
   * after the end of retention, grants and what is left of them, and the audit trail; and that its sessions were ended,
   * under a hash of its name. Done in steps: one that is broken off is finished by the next.
   */
  erase (request: EraseRequest): Promise<ErasedParts>
  /**
   * Writes the files of the store anew, where deleted bytes may have stayed in them; nobody else can write meanwhile.
   * For the command line alone: it takes seconds, and holds up the event loop.
   */
  rewrite (): Promise<void>
}

/** What the pseudonym of an erased subject begins with. */
export const erasedPrefix = 'erased:'

/** In the place of a name that must be found again, though not read: that all of its sessions were ended. */
export function hiddenName (subject: string): string {
  return `${erasedPrefix}${fingerprintOf('erased', subject)}`
}

/** The names that the end of a subject's sessions may be kept under. */
export function namesOf (subject: string): readonly [string, string] {
  return [subject, hiddenName(subject)]
}
