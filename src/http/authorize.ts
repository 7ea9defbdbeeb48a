import { modelPattern, type Operation } from '../domain/catalog.ts'
import { maxTaskIdLength } from '../domain/envelope.ts'
import { quoted } from '../domain/json.ts'
import type { Task, TaskLedger } from '../domain/ledger.ts'
import type { Price } from '../domain/pricing.ts'
import { readSubmitBody } from '../domain/submit-body.ts'
import { gatewayError } from '../errors.ts'
import type { Context } from './call.ts'

/** A submit that may be made. */
export interface SubmitOrder {
  readonly model: string
  readonly price: Price
  readonly body: Buffer
  /** The key of the earlier task that `input` refers to: only its account knows that task. */
  readonly keyId: string | undefined
}

/** A status call that may be made. */
export interface StatusOrder { readonly task: Task }

/** Earlier tasks that one submit may refer to. */
const maxReferences = 50

/** The operator's rules for what a submit may say. */
export interface SubmitRules {
  /** Top-level fields beyond the documented ones. */
  readonly extraFields: ReadonlySet<string>
  readonly priceOf: (model: string, input: Readonly<Record<string, unknown>>) => Price
  readonly holdCaps: (model: string, input: Readonly<Record<string, unknown>>) => void
}

/** *authorize* for submits: model, body, caps, and that every earlier task it names is the caller's own. */
export function authorizeSubmit (operation: Operation, ledger: TaskLedger, { extraFields, priceOf, holdCaps }: SubmitRules) {
  return async (context: Context): Promise<SubmitOrder> => {
    const model = checkOperation(operation, context)
    const { body } = context.request
    if (!Buffer.isBuffer(body)) throw bad('Send a JSON body with an input object.')
    const { input, references, bytes } = readSubmitBody(body, extraFields)
    holdCaps(model, input)
    const price = priceOf(model, input)
    return { model, price, body: bytes, keyId: await keyOfReferences(references, context.call.session.subject, ledger) }
  }
}

/** *authorize* for status calls: the task exists, is the caller's and was made with that model; else it does not exist. */
export function authorizeStatus (operation: Operation, ledger: TaskLedger) {
  return async (context: Context): Promise<StatusOrder> => {
    const model = checkOperation(operation, context)
    const { taskId } = context.request.query as { taskId?: string }
    if (taskId === undefined || taskId === '') throw bad('Name the task: ?taskId=…')
    if (taskId.length > maxTaskIdLength) throw gatewayError('GW_TASK_NOT_FOUND')
    const task = await ledger.taskOf(taskId)
    // Whether somebody else's task exists is not the caller's business: one answer for all three.
    if (task === null || task.subject !== context.call.session.subject || task.model !== model) throw gatewayError('GW_TASK_NOT_FOUND')
    context.call.taskId = taskId
    return { task }
  }
}

function checkOperation (operation: Operation, { request, call: { session, plan }, call }: Context): string {
  if (!session.scopes.includes(operation.scope)) {
    throw gatewayError('GW_SCOPE_DENIED', { about: `This session lacks the scope ${operation.scope}.` })
  }
  checkQuery(operation, request.query as Record<string, unknown>)
  const { model } = request.params as { model: string }
  if (!modelPattern.test(model)) throw bad('A model is named with letters, digits, dots, dashes and underscores, 64 at most.')
  if (!session.permits(model) || !plan.permits(model)) throw gatewayError('GW_MODEL_DENIED', { about: model })
  call.model = model
  return model
}

function checkQuery (operation: Operation, query: Record<string, unknown>): void {
  for (const [name, value] of Object.entries(query)) {
    if (!operation.query.includes(name)) throw bad(`The query name ${quoted(name)} is not known here.`)
    if (typeof value !== 'string') throw bad(`The query name ${quoted(name)} is given twice.`)
  }
}

async function keyOfReferences (references: readonly string[], subject: string, ledger: TaskLedger): Promise<string | undefined> {
  if (references.length > maxReferences) throw bad(`The input refers to more than ${maxReferences} tasks.`)
  const keyIds = new Set<string>()
  for (const taskId of references) {
    const task = await ledger.taskOf(taskId)
    if (task === null || task.subject !== subject) throw gatewayError('GW_TASK_NOT_FOUND')
    keyIds.add(task.keyId)
  }
  if (keyIds.size > 1) throw bad('The input refers to tasks of different upstream accounts.')
  return [...keyIds][0]
}

function bad (about: string) {
  return gatewayError('GW_BAD_REQUEST', { about })
}
