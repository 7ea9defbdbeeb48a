import { badBody, badRequest, gatewayError } from '../errors.ts'
import { fold, quoted, readJson } from './json.ts'

/** A callback makes the upstream post results anywhere, unsigned: a leak, and a way round ownership. */
const callbackNames: ReadonlySet<string> = new Set(['callback_url', 'webhook_url', 'webhook'])

/**
 * Whether an optional field says that it is not asked for: many clients write out what they leave open, as `null`, and
 * an empty callback too.
 */
function isLeftOpen (name: string, value: unknown): boolean {
  return value === null || (value === '' && callbackNames.has(name))
}

/**
 * Lets a name of one level of a body pass or throws: `GW_CALLBACK_DENIED`, or `GW_BAD_REQUEST` for one that is not
 * known, or only folds to one that is. `at` is where the level stands: empty, or `items.3.`. `extra` are names that the
 * operator lets pass; no name of a callback ever does, unless its `value` says that none is asked for.
 */
type NameCheck = (name: string, at: string, value: unknown, extra?: ReadonlySet<string>) => void

export function nameCheck (names: readonly string[]): NameCheck {
  const known = new Map([...names, ...callbackNames].map(name => [fold(name), name]))
  return (name, at, value, extra) => {
    const meant = known.get(fold(name))
    if (meant !== undefined && meant !== name) throw badBody(`write ${at}${meant} instead of ${quoted(at + name)}`)
    if (callbackNames.has(name) && !isLeftOpen(name, value)) {
      throw gatewayError('GW_CALLBACK_DENIED', { about: at + name })
    }
    if (meant === undefined && extra?.has(name) !== true) {
      throw badBody(`the field ${quoted(at + name)} is not known; put the model's own fields into input`)
    }
  }
}

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

/**
 * `task_id`, `taskId`, `origin-task-ids`, `batchId`, … : the names under which a model page refers to an earlier task.
 */
const referenceName = /(?:task|batch)ids?$/
/** Whatever else a name ends in, it is none of them; but for those that first have to be folded. */
const mayBeReferenceName = /[ds][^a-z0-9]*$|[^\x20-\x7e]/i

function isReference (name: string): boolean {
  return mayBeReferenceName.test(name) && referenceName.test(fold(name).replace(/[^a-z0-9]/g, ''))
}

/** The shapes that ids were seen in, and then some. No prompt has it: a space or a full stop ends it. */
const likeTaskId = /^[\w-]{16,256}$/

/**
 * Task ids in `input`, at any depth, each of them once: by the name they stand under, in any case and spelling, and by
 * their looks under any other, for the documents keep finding new names for an earlier task. Throws `GW_BAD_REQUEST` at
 * the first that is too many: a body has room for eight million.
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
      const named = value as Readonly<Record<string, unknown>>
      for (const name of Object.keys(named)) visit(named[name], refers || isReference(name))
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

/** A submit as the gateway understood it, and the bytes that say the same and nothing more. */
interface SubmitBody extends TaskReferences {
  /** Its own: what caps write into it is theirs to write into `bytes` as well. */
  readonly input: Record<string, unknown>
  /** As the caller wrote it, whether it is passed on or not. */
  readonly provider: unknown
  readonly bytes: Buffer
  /** Where the gateway itself is to tell the end of the task. The upstream never hears of it. */
  readonly deliverTo?: string | undefined
}

/** What the body of one submit may say, and what is said to the upstream in its place. */
interface SubmitBodyRules {
  /** Top-level names that the operator lets pass. */
  readonly extraFields: ReadonlySet<string>
  /** Whether `provider: official` passes for this model. */
  readonly mayBeOfficial: boolean
  /** The URL at which a caller may be told the end of a task, or throws; `null`: nobody is told anything. */
  readonly checkCallbackUrl: ((url: unknown) => string) | null
  /** Where the upstream is to tell us; `null`: it is not asked to. */
  readonly upstreamTo: string | null
}

const checkName = nameCheck(['request_type', 'input', 'provider', 'source'])

/**
 * Reads the body of `POST /generateTask/{model}` (APIXO docs, "Generate task": request body).
 *
 * The original bytes are kept when all of them may go; else the top level is built anew around each value's own text,
 * so that no number is ever re-printed. An optional field that is left open is dropped; inside `input` nothing ever is.
 * Throws `GW_BAD_REQUEST` or `GW_CALLBACK_DENIED`.
 */
export function readSubmitBody (
  original: Buffer,
  { extraFields, mayBeOfficial, checkCallbackUrl, upstreamTo }: SubmitBodyRules
): SubmitBody {
  const { value, texts } = readJson(original)
  const maySayWhere = checkCallbackUrl !== null
  for (const name of texts.keys()) {
    if (name !== 'callback_url' || !maySayWhere) checkName(name, '', value[name], extraFields)
  }
  const asks = (name: string) => texts.has(name) && !isLeftOpen(name, value[name])
  const deliverTo = maySayWhere && asks('callback_url') ? checkCallbackUrl(value.callback_url) : undefined
  if (asks('request_type')) checkRequestType(value.request_type, maySayWhere, deliverTo)
  const isOfficial = mayBeOfficial && value.provider === 'official'
  if (asks('provider') && value.provider !== 'auto' && !isOfficial && !extraFields.has('provider')) {
    throw badBody(`provider must be ${mayBeOfficial ? '"auto", "official"' : '"auto"'} or left out`)
  }
  const passes = (name: string) =>
    name === 'input' || (name === 'provider' && isOfficial) || (extraFields.has(name) && asks(name))
  const { input } = value
  if (typeof input !== 'object' || input === null || Array.isArray(input)) throw badBody('input must be an object')

  return {
    input: input as Record<string, unknown>,
    provider: value.provider,
    ...taskReferences(input),
    bytes: bytesFor(original, texts, name => name === 'request_type' ? asks(name) : passes(name), upstreamTo),
    deliverTo
  }
}

/** `callback` and `async` come to the same for the upstream, which is told in our own words either way. */
function checkRequestType (type: unknown, maySayWhere: boolean, deliverTo: string | undefined): void {
  if (type === 'async') return
  if (type !== 'callback') throw badBody('request_type must be "async" or left out')
  if (!maySayWhere) throw gatewayError('GW_CALLBACK_DENIED', { about: 'request_type callback' })
  if (deliverTo === undefined) throw badBody('request_type callback needs a callback_url')
}

function bytesFor (
  original: Buffer, texts: ReadonlyMap<string, string>, passes: (name: string) => boolean, upstreamTo: string | null
): Buffer {
  const ownWords: ReadonlyArray<readonly [string, string]> = upstreamTo === null
    ? [['request_type', '"async"']]
    : [['request_type', '"callback"'], ['callback_url', JSON.stringify(upstreamTo)]]
  if (upstreamTo === null && texts.has('request_type') && [...texts.keys()].every(passes)) return original
  const callers = [...texts].filter(([name]) => name !== 'request_type' && passes(name))
  return Buffer.from(
    `{${[...ownWords, ...callers].map(([name, text]) => `${JSON.stringify(name)}:${text}`).join(',')}}`
  )
}

/** Where the upstream is to call. */
export interface CallbackAddress {
  /** It lets its holder make us ask for a status: never logged, never stored. */
  readonly url: string
  readonly secretHash: string
}
