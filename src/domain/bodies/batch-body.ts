import { badBody } from '../../errors.ts'
import { nameCheck } from './body-names.ts'
import { elementTexts, readJson } from './json.ts'
import { taskReferences, type TaskReferences } from './task-references.ts'

/** One task of a batch, as its caller wants it. */
export interface BatchItem {
  /** The caller's own name for it: by this one its task is found in the upstream's answer. */
  readonly clientItemId: string
  readonly input: Readonly<Record<string, unknown>>
}

/** A batch as the gateway understood it, and the bytes that say the same and nothing more. */
export interface BatchBody extends TaskReferences {
  readonly items: readonly BatchItem[]
  readonly bytes: Buffer
}

/** Items of one batch, by the only source there is: the official MCP client's own schema. */
export const maxBatchItems = 50

const checkTopName = nameCheck(['items'])
const checkItemName = nameCheck(['client_item_id', 'idempotency_key', 'input'])
/** No control characters, and no half of a surrogate pair: two texts that differ in one would be one to some reader. */
const boundedText = /^[^\p{Cc}\p{Cs}]+$/u
const maxIdLength = 128
const maxKeyLength = 255

/**
 * Reads the body of `POST /generateTask/{model}/batches`: every rule of a single submit holds for each item.
 *
 * The keys of items are account-wide upstream and so shared by all callers: `keyOf` makes of a caller's own key one
 * that nobody else can meet. All else that is sent are each value's own bytes, so that no number is ever re-printed.
 * Throws `GW_BAD_REQUEST`, which names `items.3.…`, or `GW_CALLBACK_DENIED`.
 */
export function readBatchBody (original: Buffer, keyOf: (idempotencyKey: string) => string): BatchBody {
  const { value, texts } = readJson(original)
  for (const name of texts.keys()) checkTopName(name, '', value[name])
  const { items } = value
  if (!Array.isArray(items) || items.length === 0 || items.length > maxBatchItems) {
    throw badBody(`items must be a list of 1 to ${maxBatchItems} objects`)
  }
  const read = elementTexts(texts.get('items')!).map((text, index) => readItem(items[index], text, `items.${index}.`))
  refuseTwins(read.map(item => item.clientItemId), 'client_item_id')
  refuseTwins(read.map(item => item.idempotencyKey), 'idempotency_key')
  return {
    items: read,
    ...taskReferences(read.map(item => item.input)),
    bytes: Buffer.from(`{"items":[${read.map(item => rebuild(item, keyOf(item.idempotencyKey))).join(',')}]}`)
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
  if (typeof value === 'string' && value.length <= maxLength && boundedText.test(value)) return value
  throw badBody(`${path} must be a text of 1 to ${maxLength} characters, none of them a control character`)
}

/** Two items with one name can't be told apart in the answer, and with one key they would be one task, paid for twice. */
function refuseTwins (values: readonly string[], name: string): void {
  const first = new Map<string, number>()
  for (const [index, value] of values.entries()) {
    const twin = first.get(value)
    if (twin !== undefined) throw badBody(`items.${index}.${name} is the same as items.${twin}.${name}`)
    first.set(value, index)
  }
}

function rebuild ({ texts }: ReadItem, key: string): string {
  return `{"client_item_id":${texts.get('client_item_id')},"idempotency_key":${JSON.stringify(key)},"input":${texts.get('input')}}`
}

function isObject (value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
