import { gatewayError } from '../errors.ts'
import { fold, quoted, readJson } from './json.ts'

/** A submit as the gateway understood it, and the bytes that say the same and nothing more. */
export interface SubmitBody {
  readonly input: Readonly<Record<string, unknown>>
  /** Ids of earlier tasks that `input` refers to; each must belong to the caller. */
  readonly references: readonly string[]
  /** Other strings in `input` that could be ids of tasks; none may be somebody else's. */
  readonly mentions: readonly string[]
  readonly bytes: Buffer
}

/** Who asks for a callback makes the upstream post results anywhere, unsigned: a leak, and a way round ownership. */
const callbackNames = new Set(['callback_url', 'webhook_url', 'webhook'])
const knownNames = ['request_type', 'input', 'provider', 'source', ...callbackNames]
const knownFolded = new Map(knownNames.map(name => [fold(name), name]))

/**
 * Reads the body of `POST /generateTask/{model}` (APIXO docs, "Generate task": request body).
 *
 * `extraFields` are top-level names the operator lets pass. The original bytes are kept when all of them may go; else
 * the top level is built anew around each value's own text, so that no number is ever re-printed.
 * Throws `GW_BAD_REQUEST` or `GW_CALLBACK_DENIED`.
 */
export function readSubmitBody (original: Buffer, extraFields: ReadonlySet<string>): SubmitBody {
  const { value, texts } = readJson(original)
  for (const name of texts.keys()) checkName(name, extraFields)
  checkRequestType(value.request_type)
  if (!extraFields.has('provider') && value.provider !== undefined && value.provider !== 'auto') {
    throw bad('provider must be "auto" or left out')
  }
  const input = value.input
  if (typeof input !== 'object' || input === null || Array.isArray(input)) throw bad('input must be an object')

  const passing = [...texts.keys()].filter(name => name === 'request_type' || name === 'input' || extraFields.has(name))
  const unchanged = passing.length === texts.size && texts.has('request_type')
  return {
    input: input as Record<string, unknown>,
    ...taskIdsIn(input),
    bytes: unchanged ? original : rebuild(passing, texts)
  }
}

function checkName (name: string, extraFields: ReadonlySet<string>): void {
  const known = knownFolded.get(fold(name))
  if (known !== undefined && known !== name) throw bad(`write ${known} instead of ${quoted(name)}`)
  if (callbackNames.has(name)) throw gatewayError('GW_CALLBACK_DENIED', { about: name })
  if (known === undefined && !extraFields.has(name)) {
    throw bad(`the field ${quoted(name)} is not known; put the model's own fields into input`)
  }
}

function checkRequestType (type: unknown): void {
  if (type === 'callback') throw gatewayError('GW_CALLBACK_DENIED', { about: 'request_type callback' })
  if (type !== undefined && type !== 'async') throw bad('request_type must be "async" or left out')
}

function rebuild (names: readonly string[], texts: ReadonlyMap<string, string>): Buffer {
  const members = names.map(name => `${JSON.stringify(name)}:${texts.get(name)}`)
  if (!texts.has('request_type')) members.unshift('"request_type":"async"')
  return Buffer.from(`{${members.join(',')}}`)
}

/** `task_id`, `taskId`, `origin-task-ids`, `batchId`, … : the names under which a model page refers to an earlier task. */
const referenceName = /(?:task|batch)ids?$/

function isReference (name: string): boolean {
  return referenceName.test(fold(name).replace(/[^a-z0-9]/g, ''))
}

/** The shapes that ids were seen in, and then some. No prompt has it: a space or a full stop ends it. */
const likeTaskId = /^[\w-]{16,256}$/

/**
 * Task ids in `input`, at any depth: by the name they stand under, in any case and spelling, and by their looks under
 * any other, for the documents keep finding new names for an earlier task.
 */
function taskIdsIn (input: object): Pick<SubmitBody, 'references' | 'mentions'> {
  const references: string[] = []
  const mentions: string[] = []
  const visit = (value: unknown, refers: boolean): void => {
    if (Array.isArray(value)) {
      // Not by `Object.entries`: of an array with millions of numbers it makes as many arrays more.
      for (const inner of value) visit(inner, refers)
    } else if (typeof value === 'object' && value !== null) {
      // All that stands below such a name counts: to some readers `{"0": id}` is a list.
      for (const [name, inner] of Object.entries(value)) visit(inner, refers || isReference(name))
    } else if (refers && value !== null) {
      // Whatever is written there is held against the ledger: a number or a boolean belongs to nobody.
      references.push(String(value))
    } else if (typeof value === 'string' && likeTaskId.test(value)) {
      mentions.push(value)
    }
  }
  visit(input, false)
  return { references, mentions }
}

function bad (about: string) {
  return gatewayError('GW_BAD_REQUEST', { about: `In the body: ${about}.` })
}
