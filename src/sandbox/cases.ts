import {
  bigNumber, cutBody, type Delivery, drop, edited, endlessBody, envelope, type GoodBody, gzipped, instead, page,
  plainly, redirect, refusal, type RefusalCode, slowBody, slowHeaders, withHeaders
} from './responses.ts'
import type { TaskPlan } from './tasks.ts'

/** An awkward case, asked for by the word `sandbox:<name>` anywhere in the prompt; those of LLM calls: llm-cases.ts. */
export interface SandboxCase {
  readonly name: string
  /** One line for a table in a document. */
  readonly meaning: string
  /** What a submit with this word leaves behind: a charged task, nothing, or the id of the latest task once more. */
  readonly makes: 'task' | 'nothing' | 'duplicate'
  /** How the submit is answered; plainly when absent. */
  readonly submit?: Delivery
  /** How every status call of the task is answered; plainly when absent. */
  readonly status?: Delivery
  /** How the run of the task differs. */
  readonly plan?: TaskPlan
  /** What an item of a batch with this word meets; as any other when absent. */
  readonly item?: ItemFate
}

/**
 * refused: no task is made, and the answer says so · missing: its task is made, and it is not in the answer · nameless:
 * its task is made, and is in the answer without `client_item_id`.
 */
type ItemFate = 'refused' | 'missing' | 'nameless'

type Row = readonly [name: string, makes: SandboxCase['makes'], deliver: Delivery, meaning: string]

const codes: readonly RefusalCode[] = [400, 401, 402, 403, 404, 429, 500, 503]

const strayHeaders = {
  'set-cookie': 'upstream=1; Path=/',
  'access-control-allow-origin': '*',
  server: 'sandbox',
  'www-authenticate': 'Bearer realm="upstream"',
  'clear-site-data': '"*"'
}

function refusedByStatus (code: RefusalCode): Row {
  const { status, headers, body } = refusal(code)
  // No `retry-after` is documented for APIXO's 429; seven seconds are here to see whether they are passed on.
  const answer = { status, headers: code === 429 ? { ...headers, 'retry-after': '7' } : headers, body }
  return [`http-${code}`, 'nothing', instead(answer), `HTTP ${code} with its envelope`]
}

function refusedByBody (code: RefusalCode): Row {
  const answer = { ...refusal(code), status: 200 }
  return [`code-${code}`, 'nothing', instead(answer), `HTTP 200 with code ${code} in the body`]
}

/** Answers that a submit and a status call can both get: `name` is for the submit, `status-name` for the status. */
const answers: readonly Row[] = [
  ...codes.map(refusedByStatus),
  ...codes.map(refusedByBody),
  ['html-502', 'nothing', instead(page(502, '502 Bad Gateway')), 'the 502 page of a CDN'],
  ['html-404', 'nothing', instead(page(404, '404 Not Found')), 'the 404 page of a CDN'],
  ['html-200', 'task', instead(page(200, 'One moment, please')), 'a page with HTTP 200 in place of the answer'],
  ['json-502', 'nothing', instead(envelope(502, 'Bad Gateway', null)), 'HTTP 502 with an envelope, nothing done'],
  ['json-504', 'task', instead(envelope(504, 'Gateway Timeout', null)), 'HTTP 504 with an envelope, the work done'],
  ['slow-headers', 'task', slowHeaders, 'no byte of answer until it is released'],
  ['slow-body', 'task', slowBody, 'headers and half of the body, then silence until it is released'],
  ['cut-body', 'task', cutBody, 'fewer bytes than content-length says, then the connection ends'],
  ['endless-body', 'task', endlessBody, 'spaces for ever'],
  ['redirect-302', 'nothing', redirect(302), 'a 302 to another host'],
  ['redirect-307', 'nothing', redirect(307), 'a 307 to another host'],
  ['redirect-308', 'nothing', redirect(308), 'a 308 to another host'],
  ['gzip', 'task', gzipped, 'a good answer, compressed though nobody asked for it'],
  ['echo-key', 'task', edited((body, key) => ({ ...body, message: `success for ${key}` })),
    'a good answer whose message holds the key it was sent'],
  ['bad-headers', 'task', withHeaders(strayHeaders), 'a good answer with cookies, CORS and more headers of its own'],
  ['big-number', 'task', bigNumber, 'a good answer with a 64-bit integer in its data']
]

const submits: readonly Row[] = [
  ...answers,
  ['balance-400', 'nothing', instead(envelope(400, 'Insufficient credits', null)), 'out of money, said with a 400'],
  ['drop-before', 'nothing', drop, 'the connection ends before the task is made'],
  ['drop-after', 'task', drop, 'the task is made, then the connection ends'],
  ['no-task-id', 'task', edited((body) => ({ ...body, data: {} })), 'a success without a task id'],
  ['top-level-task-id', 'task', edited(topLevel), 'the task id beside the code, without data'],
  ['no-batch-id', 'task', edited(withoutBatchId), 'in a batch: a success without the id of the batch'],
  ['duplicate-task', 'duplicate', plainly, 'the id of the latest earlier task, and no new task']
]

const statuses: readonly Row[] = [
  ...answers.map(([name, , deliver, meaning]): Row => [`status-${name}`, 'task', deliver, `on status: ${meaning}`]),
  ['status-drop', 'task', drop, 'on status: the connection ends without an answer'],
  ['no-envelope', 'task', edited(({ data }) => ({ data })), 'on status: data alone, without code and message'],
  ['result-object', 'task', edited(resultObject), 'on status: resultJson is an object, not a string'],
  ['no-cost-time', 'task', edited(withoutCostTime), 'on status: a success without costTime']
]

const plans: ReadonlyArray<readonly [name: string, plan: TaskPlan, meaning: string]> = [
  ['failed', { ends: 'failed' }, 'the task ends as failed, with failCode and failMsg'],
  ['forever', { ends: 'never' }, 'the task stays pending'],
  ['unknown-state', { middleState: 'processing_r2' }, 'the middle third of the run has the state processing_r2'],
  ['callback-lost', { callback: 'lost' }, 'its callback is never sent'],
  ['callback-twice', { callback: 'twice' }, 'its callback is sent twice, both at once'],
  ['callback-late', { callback: 'late' }, 'its callback is sent a minute after the end'],
  ['callback-foreign', { callback: 'foreign' }, 'its callback names a task that does not exist'],
  ['callback-impossible', { callback: 'impossible' }, 'its callback says that it is still pending']
]

const items: ReadonlyArray<readonly [name: string, item: ItemFate, meaning: string]> = [
  ['item-refused', 'refused', 'in a batch: the item gets no task, and the answer says so'],
  ['item-missing', 'missing', 'in a batch: the item gets a task, and is not in the answer'],
  ['item-nameless', 'nameless', 'in a batch: the item is in the answer without client_item_id']
]

function topLevel ({ data, ...body }: GoodBody): unknown {
  return { ...body, ...data }
}

function withoutBatchId ({ data: { batchId, ...data }, ...body }: GoodBody): unknown {
  return { ...body, data }
}

function resultObject ({ data, ...body }: GoodBody): unknown {
  const { resultJson } = data
  return { ...body, data: typeof resultJson === 'string' ? { ...data, resultJson: JSON.parse(resultJson) } : data }
}

function withoutCostTime ({ data: { costTime, ...data }, ...body }: GoodBody): unknown {
  return { ...body, data }
}

/**
 * Every case there is. What each leaves behind is the sandbox's own choice where the documents are silent: a refusal, a
 * redirect and a CDN's error page leave nothing, a lost or garbled answer leaves a task.
 *
 * @see https://apixo.ai/docs/api-reference/errors
 */
export const sandboxCases: readonly SandboxCase[] = [
  ...submits.map(([name, makes, submit, meaning]) => ({ name, meaning, makes, submit })),
  ...statuses.map(([name, makes, status, meaning]) => ({ name, meaning, makes, status })),
  ...plans.map(([name, plan, meaning]) => ({ name, meaning, makes: 'task' as const, plan })),
  ...items.map(([name, item, meaning]) => ({ name, meaning, makes: 'task' as const, item }))
]

const byName = new Map(sandboxCases.map((row) => [row.name, row]))

/**
 * The cases a prompt asks for, in its order; several may stand together, such as `sandbox:drop-after sandbox:failed`.
 * Words that are no case are given apart, so that a slip of the pen in a test does not look like a good run.
 */
export function casesIn (prompt: string): { readonly cases: readonly SandboxCase[], readonly unknown: string[] } {
  const words = Array.from(prompt.matchAll(/\bsandbox:([\w-]*\w)/g), ([, name]) => name!)
  return { cases: words.flatMap((name) => byName.get(name) ?? []), unknown: words.filter((name) => !byName.has(name)) }
}
