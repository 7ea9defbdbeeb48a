import {
  elementTexts, insertMembers, isObject, isPrintable, jsonValue, type Member, readJson
} from '../../domain/json.ts'
import { nameCheck, taskReferences, type TaskReferences } from '../../domain/submit.ts'
import {
  effectiveStatus, type FinalState, isFinal, maxTaskIdLength, type NotAccepted, readEnvelope, readSubmitAnswer,
  type UpstreamAnswer
} from '../../domain/upstream.ts'
import { badBody } from '../../errors.ts'

/** One task of a batch, as its caller wants it. */
interface BatchItem {
  /** The caller's own name for it: by this one its task is found in the upstream's answer. */
  readonly clientItemId: string
  readonly input: Record<string, unknown>
}

/** A batch as the gateway understood it, and the bytes that say the same and nothing more. */
interface BatchBody extends TaskReferences {
  readonly items: readonly BatchItem[]
  readonly bytes: Buffer
}

/** Items of one batch, by the only source there is: the official MCP client's own schema. */
export const maxBatchItems = 50

const checkTopName = nameCheck(['items'])
const checkItemName = nameCheck(['client_item_id', 'idempotency_key', 'input'])
const maxIdLength = 128
const maxKeyLength = 255

interface BatchBodyRules {
  readonly keyOf: (idempotencyKey: string) => string
  /** Throws what is wrong with an input, or writes defaults into it and gives back what belongs into its text. */
  readonly hold: (input: Record<string, unknown>, index: number) => readonly Member[]
}

/**
 * Reads the body of `POST /generateTask/{model}/batches`: every rule of a single submit holds for each item.
 *
 * The keys of items are account-wide upstream and so shared by all callers: `keyOf` makes of a caller's own key one
 * that nobody else can meet. All else that is sent are each value's own bytes, so that no number is ever re-printed.
 * Throws `GW_BAD_REQUEST`, which names `items.3.…`, or `GW_CALLBACK_DENIED`.
 */
export function readBatchBody (original: Buffer, { keyOf, hold }: BatchBodyRules): BatchBody {
  const { value, texts } = readJson(original)
  for (const name of texts.keys()) checkTopName(name, '', value[name])
  const { items } = value
  if (!Array.isArray(items) || items.length === 0 || items.length > maxBatchItems) {
    throw badBody(`items must be a list of 1 to ${maxBatchItems} objects`)
  }
  const read = elementTexts(texts.get('items')!).map((text, index) => readItem(items[index], text, `items.${index}.`))
  refuseTwins(read.map(item => item.clientItemId), 'client_item_id')
  refuseTwins(read.map(item => item.idempotencyKey), 'idempotency_key')
  const rebuilt = read.map((item, index) => rebuild(item, keyOf(item.idempotencyKey), hold(item.input, index)))
  return {
    items: read,
    ...taskReferences(read.map(item => item.input)),
    bytes: Buffer.from(`{"items":[${rebuilt.join(',')}]}`)
  }
}

interface ReadItem extends BatchItem {
  readonly idempotencyKey: string
  readonly texts: ReadonlyMap<string, string>
}

function readItem (item: unknown, text: string, at: string): ReadItem {
  if (!isObject(item)) throw badBody(`${at.slice(0, -1)} must be an object`)
  const { texts } = readJson(Buffer.from(text))
  for (const name of texts.keys()) checkItemName(name, at, item[name])
  const { input } = item
  if (!isObject(input)) throw badBody(`${at}input must be an object`)
  return {
    clientItemId: boundedTextAt(item.client_item_id, `${at}client_item_id`, maxIdLength),
    idempotencyKey: boundedTextAt(item.idempotency_key, `${at}idempotency_key`, maxKeyLength),
    input,
    texts
  }
}

function boundedTextAt (value: unknown, path: string, maxLength: number): string {
  if (typeof value === 'string' && value.length <= maxLength && isPrintable(value)) return value
  throw badBody(`${path} must be a text of 1 to ${maxLength} characters, none of them a control character`)
}

/**
 * Two items with one name can't be told apart in the answer, and with one key they would be one task, paid for twice.
 */
function refuseTwins (values: readonly string[], name: string): void {
  const first = new Map<string, number>()
  for (const [index, value] of values.entries()) {
    const twin = first.get(value)
    if (twin !== undefined) throw badBody(`items.${index}.${name} is the same as items.${twin}.${name}`)
    first.set(value, index)
  }
}

function rebuild ({ texts }: ReadItem, key: string, members: readonly Member[]): string {
  const [id, input] = [texts.get('client_item_id'), insertMembers(texts.get('input')!, members)]
  return `{"client_item_id":${id},"idempotency_key":${JSON.stringify(key)},"input":${input}}`
}

/** What became of a batch as a whole. */
export type BatchOutcome = BatchAccepted | NotAccepted

/** Tasks exist, at least one. */
export interface BatchAccepted {
  readonly kind: 'accepted'
  /** `null`: none came, and nobody can ask for this batch. */
  readonly batchId: string | null
  /** For each item in the caller's order; `null`: what became of it is not known. */
  readonly taskIds: ReadonlyArray<string | null>
  readonly answer: UpstreamAnswer
}

/**
 * Reads the answer to a batch. Its shape is a guess, for no document shows one, so it is read for what can't be
 * mistaken: a task id beside the name of one of our items. What is said of an item without a task id is not believed,
 * not even that it was refused; and where an id can't be matched, or comes twice, nothing is.
 */
export function readBatchAnswer (answer: UpstreamAnswer, clientItemIds: readonly string[]): BatchOutcome {
  const { batchId, items } = batchIn(answer.body)
  const named = items.filter(item => item.taskId !== null)
  if (named.length === 0) {
    const outcome = readSubmitAnswer(answer)
    return outcome.kind === 'accepted' ? unknown('one task id and no items') : outcome
  }
  if (answer.status < 200 || answer.status > 299) return unknown(`${answer.status} with task ids`)
  const byName = new Map(named.map(item => [item.clientItemId, item.taskId]))
  const isClear = byName.size === named.length && new Set(byName.values()).size === named.length &&
    named.every(({ clientItemId }) => clientItemId !== null && clientItemIds.includes(clientItemId))
  if (!isClear) return unknown('task ids that can not be matched')
  return { kind: 'accepted', batchId, taskIds: clientItemIds.map(name => byName.get(name) ?? null), answer }
}

/** Tasks that a batch's status says have ended; a hint, at most `limit` of them. */
export function endedTaskIds (answer: UpstreamAnswer, limit: number): string[] {
  if (effectiveStatus(answer.status, readEnvelope(answer.body)) !== 200) return []
  return batchIn(answer.body)
    .items.flatMap(({ taskId, state }) => (taskId !== null && state !== null ? taskId : []))
    .slice(0, limit)
}

interface AnsweredItem {
  readonly clientItemId: string | null
  readonly taskId: string | null
  /** `null` while it runs. */
  readonly state: FinalState | null
}

/** A guess: the names of the request and of the single task's answer, in `data` or beside it, in either spelling. */
function batchIn (body: Buffer): { readonly batchId: string | null, readonly items: readonly AnsweredItem[] } {
  const value = jsonValue(body.toString())
  const envelope = isObject(value) ? value : {}
  const batch = isObject(envelope.data) ? envelope.data : envelope
  const items: readonly unknown[] = Array.isArray(batch.items) ? batch.items : []
  return {
    batchId: idOf(batch.batchId ?? batch.batch_id),
    items: items.filter(isObject).map(item => ({
      clientItemId: idOf(item.client_item_id ?? item.clientItemId),
      taskId: idOf(item.taskId ?? item.task_id),
      state: typeof item.state === 'string' && isFinal(item.state) ? item.state : null
    }))
  }
}

/** Dots alone would be another place in a path, whatever they are encoded as. */
function idOf (value: unknown): string | null {
  return typeof value === 'string' && value.length <= maxTaskIdLength && !/^\.*$/.test(value) ? value : null
}

function unknown (reason: string): BatchOutcome {
  return { kind: 'unknown', reason }
}
