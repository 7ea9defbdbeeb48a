import { randomBytes } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { isObject, jsonValue } from '../domain/json.ts'
import type { CallbackSender } from './callbacks.ts'
import { casesIn, type SandboxCase } from './cases.ts'
import type { LlmWorld } from './llm.ts'
import { type Answer, envelope, type Exchange, invalid, plainly, refusal, send, success } from './responses.ts'
import {
  newTask, priceUsd, resultCount, type SandboxTask, statusData, type TaskRequest, taskState, type TaskStore
} from './tasks.ts'

/** What the sandbox knows, shared by its routes. */
export interface World {
  readonly models: ReadonlySet<string>
  readonly tasks: TaskStore
  readonly batches: BatchStore
  readonly keys: Set<string>
  /** Models a key may not use, by key. */
  readonly forbidden: Map<string, Set<string>>
  /** Unix milliseconds. */
  readonly now: () => number
  /** Milliseconds from the submit of a task to its end. */
  readonly taskMs: number
  readonly resultUrl: (name: string) => string
  readonly callbacks: CallbackSender
  readonly llm: LlmWorld
  balanceUsd: number
}

/** One request to the API, its key not yet looked at. */
export interface ApiCall extends Exchange {
  /** A segment of the path. Known model ids need no percent-encoding, so none is undone. */
  readonly model: string
  /** The path's last segment where it names a batch; else empty. */
  readonly batchId: string
  /** Empty without one. Only batches look at it. */
  readonly idempotencyKey: string
  readonly query: URLSearchParams
  readonly body: Buffer
}

/**
 * The key of the request; empty without one. Its format is not documented and not looked at.
 *
 * @see https://apixo.ai/docs/concepts/authentication
 */
export function bearerKey ({ headers }: IncomingMessage): string {
  return /^bearer +(\S+)$/i.exec(headers.authorization ?? '')?.[1] ?? ''
}

export function objectIn (value: unknown): Readonly<Record<string, unknown>> | null {
  return isObject(value) ? value : null
}

/** What is wrong with the `input` of an object, or the parts of it that make a task. */
export function readInput (
  model: string,
  body: Readonly<Record<string, unknown>>
): string | Pick<TaskRequest, 'input' | 'prompt' | 'results'> {
  const input = objectIn(body.input)
  if (!input) return 'Missing required field: input'
  const { prompt, num_images: numImages } = input
  if (typeof prompt !== 'string' || prompt.trim() === '') return 'Missing required field: input.prompt'
  const results = resultCount(model, numImages)
  if (results === null) return 'input.num_images must be a whole number from 1 to 4'
  return { input, prompt, results }
}

/** What is wrong with a submit's body, or the parts of it that make a task. */
function readSubmit (model: string, bytes: Buffer): string | Omit<TaskRequest, 'key' | 'model' | 'plan'> {
  const body = objectIn(jsonValue(bytes.toString()))
  if (!body) return 'The body is not a JSON object'
  const read = readInput(model, body)
  if (typeof read === 'string') return read
  const { request_type: requestType = 'async', callback_url: callbackUrl } = body
  if (requestType === 'async') return { ...read, callbackUrl: null }
  if (requestType !== 'callback') return 'request_type must be async or callback'
  if (typeof callbackUrl !== 'string') return 'Missing required field: callback_url'
  return { ...read, callbackUrl }
}

/** Records a task and charges for it, as one step. A failed task is not refunded: the documents say nothing of it. */
export function accept (world: World, request: TaskRequest): SandboxTask {
  const task = newTask(request, world.now(), world.taskMs)
  world.tasks.add(task)
  world.callbacks.schedule(task)
  // Rounded to a hundredth of a cent, or binary fractions would show after a few tasks.
  world.balanceUsd = Math.round((world.balanceUsd - priceUsd) * 1e4) / 1e4
  return task
}

/** The refusal that key and model meet, or `null`. */
export function refusalOf (world: World, { key, model }: ApiCall): Answer | null {
  if (!world.keys.has(key)) return refusal(401)
  return world.models.has(model) ? null : envelope(404, `Model not found: ${model}`, null)
}

/** The refusal that key and model meet when they are to make something, or `null`. */
export function submitRefusalOf (world: World, call: ApiCall): Answer | null {
  const { key, model } = call
  const forbidden = world.forbidden.get(key)?.has(model)
  return refusalOf(world, call) ?? (forbidden ? envelope(401, `API key may not use the model ${model}`) : null)
}

/**
 * Answers `POST /api/v1/generateTask/{model}`. The order of the checks is a guess: key, model, permission, body, money.
 * A model forbidden to a key is a 401, as the newer page has it; an older one says 403.
 *
 * @see https://apixo.ai/docs/api-reference/generate-task
 */
export function submit (world: World, call: ApiCall): void {
  const { key, model, response, body } = call
  const refused = submitRefusalOf(world, call)
  if (refused) return send(response, refused)
  const read = readSubmit(model, body)
  if (typeof read === 'string') return send(response, invalid(read))
  const { cases, unknown } = casesIn(read.prompt)
  if (unknown.length > 0) return send(response, invalid(`No such sandbox case: ${unknown.join(', ')}`))

  const { makes = 'task', submit: deliver = plainly } = cases.find((row) => row.submit) ?? {}
  // Cases that make nothing bring their own answer; the one given here is never seen.
  if (makes === 'nothing') return deliver(call, refusal(500))
  const earlier = makes === 'duplicate' ? world.tasks.latest() : undefined
  if (!earlier && world.balanceUsd < priceUsd) return send(response, refusal(402))
  const plan = Object.assign({}, ...cases.map((row) => row.plan))
  const { taskId } = earlier ?? accept(world, { ...read, key, model, plan })
  deliver(call, success({ taskId }))
}

/**
 * Answers `GET /api/v1/statusTask/{model}?taskId=`. A task of another key or another model is unknown: the documents do
 * not say, and the strict reading finds the caller that mixes them up.
 *
 * @see https://apixo.ai/docs/api-reference/status-task
 */
export function status (world: World, call: ApiCall): void {
  const { key, model, response, query } = call
  const refused = refusalOf(world, call)
  if (refused) return send(response, refused)
  const taskId = query.get('taskId')
  if (!taskId) return send(response, invalid('Missing required parameter: taskId'))
  const task = world.tasks.byId.get(taskId)
  if (!task || task.key !== key || task.model !== model) return send(response, envelope(404, 'Task not found', null))
  const deliver = casesIn(task.prompt).cases.find((row) => row.status)?.status ?? plainly
  deliver(call, success(statusData(task, world.now(), world.resultUrl)))
}

/**
 * Answers `GET /api/v1/apikeys/current-balance`: `data` is a bare number, in USD. All keys share one balance.
 *
 * @see https://apixo.ai/docs/api-reference/system
 */
export function balance (world: World, { key, response }: ApiCall): void {
  send(response, world.keys.has(key) ? success(world.balanceUsd) : refusal(401))
}

/** A request as it came over the wire. */
export interface RecordedCall {
  readonly method: string
  readonly url: string
  /** Names and values in turn, with the spelling and order they were sent in. */
  readonly rawHeaders: readonly string[]
  /** Empty until the whole body is read. */
  readonly body: Buffer
}

export interface Recorder {
  /** Every request, in the order of arrival. */
  readonly calls: readonly RecordedCall[]
  /** The `POST generateTask` requests among `calls`, batches included. */
  readonly submits: readonly RecordedCall[]
  /** Writes a request down. What it returns takes its body, once that is there. */
  record (request: IncomingMessage): (body: Buffer) => void
}

/** Keeps `limit` calls, and as many submits; the oldest are dropped first. */
export function recorder (limit: number): Recorder {
  const calls: RecordedCall[] = []
  const submits: RecordedCall[] = []
  return {
    calls,
    submits,
    record ({ method = '', url = '', rawHeaders }) {
      const call: RecordedCall & { body: Buffer } = { method, url, rawHeaders, body: Buffer.alloc(0) }
      const lists = method === 'POST' && url.startsWith('/api/v1/generateTask/') ? [calls, submits] : [calls]
      for (const list of lists) {
        list.push(call)
        if (list.length > limit) list.shift()
      }
      return (body) => { call.body = body }
    }
  }
}

/** Said in every answer about a batch, so that nobody takes its shape for APIXO's. */
const shape = 'guessed by the sandbox: APIXO documents no answer about a batch'

const maxItems = 50

interface ItemRequest {
  readonly clientItemId: string
  readonly itemKey: string
  readonly cases: readonly SandboxCase[]
  readonly request: Pick<TaskRequest, 'input' | 'prompt' | 'results'>
}

function textIn (value: unknown): string | null {
  return typeof value === 'string' && value !== '' ? value : null
}

function readItem (model: string, value: unknown, at: string): string | ItemRequest {
  const item = objectIn(value)
  if (!item) return `${at} is not an object`
  const clientItemId = textIn(item.client_item_id)
  if (!clientItemId) return `Missing required field: ${at}.client_item_id`
  const itemKey = textIn(item.idempotency_key)
  if (!itemKey) return `Missing required field: ${at}.idempotency_key`
  const request = readInput(model, item)
  if (typeof request === 'string') return `${at}: ${request}`
  const { cases, unknown } = casesIn(request.prompt)
  if (unknown.length > 0) return `No such sandbox case: ${unknown.join(', ')}`
  return { clientItemId, itemKey, cases, request }
}

/** What is wrong with a batch's body, or its items. */
function readItems (model: string, body: Buffer): string | readonly ItemRequest[] {
  const values: unknown = objectIn(jsonValue(body.toString()))?.items
  if (!Array.isArray(values) || values.length === 0 || values.length > maxItems) {
    return `items must be a list of 1 to ${maxItems}`
  }
  const items: ItemRequest[] = []
  for (const [index, value] of values.entries()) {
    const item = readItem(model, value, `items.${index}`)
    if (typeof item === 'string') return item
    items.push(item)
  }
  const names = new Set(items.map(({ clientItemId }) => clientItemId))
  return names.size === items.length ? items : 'client_item_id must be unique within the batch'
}

/** A key that was used before gives the task that it made then, whatever it asks for now. */
function makeItem (
  world: World,
  { key, model }: ApiCall,
  { clientItemId, itemKey, cases, request }: ItemRequest
): SandboxItem {
  if (cases.some(row => row.item === 'refused')) return { clientItemId, task: null }
  const plan = Object.assign({}, ...cases.map(row => row.plan))
  const earlier =
    world.batches.taskOf(key, itemKey) ??
    (cases.some(row => row.makes === 'duplicate') ? world.tasks.latest() : undefined)
  const task = earlier ?? accept(world, { ...request, key, model, plan, callbackUrl: null })
  world.batches.remember(itemKey, task)
  return { clientItemId, task }
}

function makeBatch (world: World, call: ApiCall, items: readonly ItemRequest[]): SandboxBatch {
  const { key, model } = call
  const batchId = `batch_${randomBytes(16).toString('hex')}`
  const batch = { batchId, key, model, items: items.map((item) => makeItem(world, call, item)) }
  world.batches.add(batch, call.idempotencyKey)
  return batch
}

function casesOf ({ task }: SandboxItem): readonly SandboxCase[] {
  return task ? casesIn(task.prompt).cases : []
}

function refusedItem (clientItemId: string): object {
  return { client_item_id: clientItemId, error: { code: 400, message: 'The prompt asked for this refusal' } }
}

function acceptedData ({ batchId, items }: SandboxBatch): object {
  const answered = items.flatMap((item) => {
    const { clientItemId, task } = item
    if (!task) return refusedItem(clientItemId)
    const fate = casesOf(item).find((row) => row.item)?.item
    if (fate === 'missing') return []
    const { taskId } = task
    return fate === 'nameless'
      ? { taskId, state: 'pending' }
      : { client_item_id: clientItemId, taskId, state: 'pending' }
  })
  return { batchId, shape, items: answered }
}

/**
 * Answers `POST /api/v1/generateTask/{model}/batches`. Known of it are the request, that `Idempotency-Key` is wanted,
 * that the keys of items are account-wide, and the limit of 50. **The answer is a guess**, and so is all else: that a
 * missing key is a 400, that a used one gives the same batch or task again, and that money must be there for all.
 *
 * @see https://apixo.ai/docs/mcp/guides/batch-integration-v1.json
 */
export function submitBatch (world: World, call: ApiCall): void {
  const { key, model, response, body, idempotencyKey } = call
  const refused = submitRefusalOf(world, call)
  if (refused) return send(response, refused)
  if (!idempotencyKey) return send(response, invalid('Missing required header: Idempotency-Key'))
  const items = readItems(model, body)
  if (typeof items === 'string') return send(response, invalid(items))

  const { makes = 'task', submit: deliver = plainly } = items.flatMap(item => item.cases).find(row => row.submit) ?? {}
  // Cases that make nothing bring their own answer; the one given here is never seen.
  if (makes === 'nothing') return deliver(call, refusal(500))
  const fresh = items.filter((item) => !world.batches.taskOf(key, item.itemKey)).length
  const earlier = world.batches.byKey(key, idempotencyKey)
  if (!earlier && world.balanceUsd < fresh * priceUsd) return send(response, refusal(402))
  deliver(call, success(acceptedData(earlier ?? makeBatch(world, call, items))))
}

/**
 * Answers `GET /api/v1/generateTask/{model}/batches/{batchId}`. **A guess**, but for what it is known to hold: the
 * state of the batch, the states of its items, and the results of those that have ended. A batch of another key or
 * another model is unknown.
 *
 * @see https://apixo.ai/docs/mcp/guides/batch-integration-v1.json
 */
export function batchStatus (world: World, call: ApiCall): void {
  const { key, model, batchId, response } = call
  const refused = refusalOf(world, call)
  if (refused) return send(response, refused)
  const batch = world.batches.byId(batchId)
  if (!batch || batch.key !== key || batch.model !== model) {
    return send(response, envelope(404, 'Batch not found', null))
  }
  const now = world.now()
  const items = batch.items.map(({ clientItemId, task }) => task
    ? { client_item_id: clientItemId, ...statusData(task, now, world.resultUrl) }
    : refusedItem(clientItemId))
  const runs = batch.items.some(({ task }) => task && !['success', 'failed'].includes(taskState(task, now)))
  const deliver = batch.items.flatMap(casesOf).find((row) => row.status)?.status ?? plainly
  deliver(call, success({ batchId, shape, state: runs ? 'processing' : 'completed', items }))
}

/** One item of a batch, with what it came to. */
interface SandboxItem {
  readonly clientItemId: string
  /** `null` when it was refused. */
  readonly task: SandboxTask | null
}

/** A batch as the sandbox remembers it. */
interface SandboxBatch {
  readonly batchId: string
  /** The bearer key that made it: the batch belongs to this key's account. */
  readonly key: string
  readonly model: string
  readonly items: readonly SandboxItem[]
}

/** The batches of one sandbox, and the tasks by the keys of the items that made them. */
export interface BatchStore {
  byId (batchId: string): SandboxBatch | undefined
  /** By the key of its account and its `Idempotency-Key`. */
  byKey (key: string, idempotencyKey: string): SandboxBatch | undefined
  add (batch: SandboxBatch, idempotencyKey: string): void
  /** The task that this account's item key has made. */
  taskOf (key: string, itemKey: string): SandboxTask | undefined
  remember (itemKey: string, task: SandboxTask): void
}

/** Remembers at most `limit` of each and forgets the oldest first. */
export function batchStore (limit: number): BatchStore {
  const byId = new Map<string, SandboxBatch>()
  const byKey = new Map<string, SandboxBatch>()
  const tasks = new Map<string, SandboxTask>()
  const put = <Value>(map: Map<string, Value>, name: string, value: Value): void => {
    map.set(name, value)
    for (const oldest of map.keys()) {
      if (map.size <= limit) break
      map.delete(oldest)
    }
  }
  // A bearer key holds no space, so that no two pairs make one name.
  const name = (key: string, own: string): string => `${key} ${own}`
  return {
    byId: batchId => byId.get(batchId),
    byKey: (key, idempotencyKey) => byKey.get(name(key, idempotencyKey)),
    add (batch, idempotencyKey) {
      put(byId, batch.batchId, batch)
      put(byKey, name(batch.key, idempotencyKey), batch)
    },
    taskOf: (key, itemKey) => tasks.get(name(key, itemKey)),
    remember: (itemKey, task) => put(tasks, name(task.key, itemKey), task)
  }
}
