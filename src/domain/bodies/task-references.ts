import { badRequest } from '../../errors.ts'
import { fold } from './json.ts'

/** The earlier tasks that a request's `input` has to do with. */
export interface TaskReferences {
  /** Ids of earlier tasks that `input` refers to; each must belong to the caller. */
  readonly references: readonly string[]
  /** Other strings in `input` that could be ids of tasks; none may be somebody else's. */
  readonly mentions: readonly string[]
}

/** Ids that one request may name, each of which costs a look into the ledger. */
const maxReferences = 50
const maxMentions = 200

/** `task_id`, `taskId`, `origin-task-ids`, `batchId`, … : the names under which a model page refers to an earlier task. */
const referenceName = /(?:task|batch)ids?$/

function isReference (name: string): boolean {
  return referenceName.test(fold(name).replace(/[^a-z0-9]/g, ''))
}

/** The shapes that ids were seen in, and then some. No prompt has it: a space or a full stop ends it. */
const likeTaskId = /^[\w-]{16,256}$/

/**
 * Task ids in `input`, at any depth, each of them once: by the name they stand under, in any case and spelling, and by
 * their looks under any other, for the documents keep finding new names for an earlier task. Throws `GW_BAD_REQUEST` at the
 * first that is too many: a body has room for eight million.
 */
export function taskReferences (input: object): TaskReferences {
  const references = new Set<string>()
  const mentions = new Set<string>()
  const visit = (value: unknown, refers: boolean): void => {
    if (Array.isArray(value)) {
      // Not by `Object.entries`: of an array with millions of numbers it makes as many arrays more.
      for (const inner of value) visit(inner, refers)
    } else if (typeof value === 'object' && value !== null) {
      // All that stands below such a name counts: to some readers `{"0": id}` is a list.
      for (const [name, inner] of Object.entries(value)) visit(inner, refers || isReference(name))
    } else if (refers && value !== null) {
      // Whatever is written there is held against the ledger: a number or a boolean belongs to nobody.
      collect(references, String(value), maxReferences)
    } else if (typeof value === 'string' && likeTaskId.test(value)) {
      collect(mentions, value, maxMentions)
    }
  }
  visit(input, false)
  return { references: [...references], mentions: [...mentions] }
}

function collect (ids: Set<string>, id: string, limit: number): void {
  if (ids.add(id).size > limit) throw badRequest('The input refers to too many tasks.')
}
