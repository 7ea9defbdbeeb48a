import { modelPattern, type Operation } from '../domain/catalog.ts'
import { quoted } from '../domain/json.ts'
import type { Task } from '../domain/ledger.ts'
import type { Price } from '../domain/pricing.ts'
import { readSubmitBody } from '../domain/submit-body.ts'
import { gatewayError } from '../errors.ts'
import type { Context } from './call.ts'
import type { Ownership } from './ownership.ts'

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

/** The operator's rules for what a submit may say. */
export interface SubmitRules {
  /** Top-level fields beyond the documented ones. */
  readonly extraFields: ReadonlySet<string>
  readonly priceOf: (model: string, input: Readonly<Record<string, unknown>>) => Price
  readonly holdCaps: (model: string, input: Readonly<Record<string, unknown>>) => void
}

/** *authorize* for submits: model, body, caps, and that every earlier task it names is the caller's own. */
export function authorizeSubmit (operation: Operation, { keyOfReferences }: Ownership, { extraFields, priceOf, holdCaps }: SubmitRules) {
  return async (context: Context): Promise<SubmitOrder> => {
    const model = checkOperation(operation, context)
    const bytes = context.request.body
    if (!Buffer.isBuffer(bytes)) throw bad('Send a JSON body with an input object.')
    const body = readSubmitBody(bytes, extraFields)
    holdCaps(model, body.input)
    const price = priceOf(model, body.input)
    return { model, price, body: body.bytes, keyId: await keyOfReferences(body, context) }
  }
}

/** *authorize* for status calls: the task exists, is the caller's and was made with that model; else it does not exist. */
export function authorizeStatus (operation: Operation, { own }: Ownership) {
  return async (context: Context): Promise<StatusOrder> => {
    const model = checkOperation(operation, context)
    const { taskId } = context.request.query as { taskId?: string }
    if (taskId === undefined || taskId === '') throw bad('Name the task: ?taskId=…')
    const task = await own(taskId, context, model)
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

function bad (about: string) {
  return gatewayError('GW_BAD_REQUEST', { about })
}
