import type { FastifyRequest } from 'fastify'
import type { CappedBody } from '../domain/caps.ts'
import { insertMembers, type Member, quoted } from '../domain/json.ts'
import type { Task } from '../domain/ledger.ts'
import type { Price, PricedBody, Quote } from '../domain/prices.ts'
import type { Scope, Session } from '../domain/session.ts'
import { type CallbackAddress, readSubmitBody, type TaskReferences } from '../domain/submit.ts'
import { after, type Awaitable } from '../domain/time.ts'
import { maxTaskIdLength, modelPattern, type Operation } from '../domain/upstream.ts'
import { badRequest, gatewayError } from '../errors.ts'
import type { RequestContext } from './context.ts'
import { idempotencyKeyOf, type Repeatable, repeatOf } from './repeats.ts'
import type { Services } from './services.ts'

/** A submit that may be made. */
export interface AuthorizedSubmit extends Repeatable {
  readonly model: string
  readonly price: Price
  readonly body: Buffer
  /** The key of the earlier task that `input` refers to: only its account knows that task. */
  readonly keyId: string | undefined
  /** Where its caller wants to be told of its end. */
  readonly deliverTo?: string | undefined
  /** What its callback from the upstream is known by. */
  readonly callbackHash?: string | undefined
}

/** The operator's rules for what a submit may say. */
export interface SubmitRules {
  /** Top-level fields beyond the documented ones. */
  readonly extraFields: ReadonlySet<string>
  /** Whether `provider: official` passes for a model. */
  readonly mayBeOfficial: (model: string) => boolean
  /** The URL at which a caller may be told of the end of a task, or throws; `null`: nobody is told anything. */
  readonly checkCallbackUrl: ((url: unknown) => string) | null
  /** Makes the address that the upstream is to call; `null`: it is not asked to. */
  readonly newCallbackAddress: (() => CallbackAddress) | null
  /** Whether submits of a model cost nothing, whatever is in them. */
  readonly isFree: (model: string) => boolean
  /** What a submit costs, and the rule that it goes by. */
  readonly quoteOf: (model: string, body: PricedBody) => Quote
  /** Writes defaults into the input, and gives back what has to be written into its text. */
  readonly enforceCaps: (model: string, body: CappedBody) => readonly Member[]
}

/** What it takes to say whose a task is. */
export type OwnershipServices = Pick<Services, 'ledger' | 'rates'>

/**
 * *authorize* for submits: model, idempotency key, body, caps, and that every earlier task it names is the caller's
 * own.
 */
export function authorizeSubmit (
  context: RequestContext, operation: Operation, services: OwnershipServices & Pick<Services, 'submitRules'>
): Awaitable<AuthorizedSubmit> {
  const {
    extraFields, mayBeOfficial, checkCallbackUrl, newCallbackAddress, quoteOf, enforceCaps
  } = services.submitRules
  const model = checkOperation(operation, context)
  const bytes = context.request.body
  if (!Buffer.isBuffer(bytes)) throw badRequest('Send a JSON body with an input object.')
  const idempotency = idempotencyKeyOf(context, operation, bytes)
  const repeat = idempotency === undefined ? repeatOf(context, operation, bytes) : undefined
  const callback = newCallbackAddress?.()
  const body = readSubmitBody(bytes, {
    extraFields,
    mayBeOfficial: mayBeOfficial(model),
    checkCallbackUrl,
    upstreamTo: callback?.url ?? null
  })
  const members = enforceCaps(model, body)
  const { price } = quoteOf(model, body)
  return after(keyOfReferences(services, context, body), keyId => ({
    model,
    price,
    body: members.length === 0 ? body.bytes : Buffer.from(insertMembers(body.bytes.toString(), members, ['input'])),
    keyId,
    idempotency,
    repeat,
    deliverTo: body.deliverTo,
    callbackHash: callback?.secretHash
  }))
}

/**
 * *authorize* for status calls: the task exists, is the caller's and was made with that model; else it does not exist.
 */
export function authorizeStatus (
  context: RequestContext, operation: Operation, services: OwnershipServices
): Awaitable<Task> {
  const model = checkOperation(operation, context)
  const { taskId } = context.request.query as { taskId?: string }
  if (taskId === undefined || taskId === '') throw badRequest('Name the task: ?taskId=…')
  return after(findOwnTask(services, context, taskId, { model, operation: 'generateTask' }), task => {
    context.call.taskId = taskId
    return task
  })
}

/** Scope, query and model of a call; returns the model. Throws what is wrong with them. */
export function checkOperation (
  operation: Pick<Operation, 'scope' | 'query'>,
  { request, call: { session, plan }, call }: RequestContext
): string {
  checkScope(operation.scope, session)
  checkQuery(operation.query, request)
  const { model } = request.params as { model: string }
  if (!modelPattern.test(model)) {
    throw badRequest('A model is named with letters, digits, dots, dashes and underscores, 64 at most.')
  }
  if (!session.permits(model) || !plan.permits(model)) throw gatewayError('GW_MODEL_DENIED', { about: model })
  call.model = model
  return model
}

/** Throws `GW_SCOPE_DENIED`, which names what is missing. */
export function checkScope (scope: Scope, { scopes }: Session): void {
  if (!scopes.includes(scope)) {
    throw gatewayError('GW_SCOPE_DENIED', { about: `This session lacks the scope ${scope}.` })
  }
}

/** Holds a query to the names that are known: a repeated or any other name is a `GW_BAD_REQUEST`. */
export function checkQuery (names: readonly string[], { query }: FastifyRequest): void {
  const given = query as Readonly<Record<string, unknown>>
  for (const name in given) {
    if (!names.includes(name)) throw badRequest(`The query name ${quoted(name)} is not known here.`)
    if (typeof given[name] !== 'string') throw badRequest(`The query name ${quoted(name)} is given twice.`)
  }
}

/**
 * The caller's task. Whether somebody else's exists is not the caller's business: that is the same `GW_TASK_NOT_FOUND`
 * as for an id that nobody has, and it counts as a poll, so that guessing has a price.
 *
 * What was made with another model than `made` says, or by another operation, is not it: a batch is no task to ask
 * about, though `input` may name either. `null`: however it was made.
 */
export function findOwnTask (
  services: OwnershipServices,
  context: RequestContext,
  taskId: string,
  made: Pick<Task, 'model' | 'operation'> | null
): Awaitable<Task> {
  const found: Awaitable<Task | null> = taskId.length > maxTaskIdLength ? null : services.ledger.taskOf(taskId)
  return after(found, task => {
    const isOwn = task !== null && task.subject === context.call.session.subject &&
      (made === null || (task.model === made.model && task.operation === made.operation))
    return isOwn ? task : refuseTask(services, context)
  })
}

/** The key of the earlier tasks that a submit refers to; `undefined` when it refers to none. */
export function keyOfReferences (
  services: OwnershipServices, context: RequestContext, named: TaskReferences
): Awaitable<string | undefined> {
  return named.references.length === 0 && named.mentions.length === 0 ? undefined : findKey(services, context, named)
}

async function findKey (
  services: OwnershipServices, context: RequestContext, { references, mentions }: TaskReferences
): Promise<string | undefined> {
  const keyIds = new Set<string>()
  for (const taskId of references) keyIds.add((await findOwnTask(services, context, taskId, null)).keyId)
  for (const word of mentions) {
    const task = await services.ledger.taskOf(word)
    if (task === null) continue // a word like any other
    if (task.subject !== context.call.session.subject) await refuseTask(services, context)
    keyIds.add(task.keyId)
  }
  if (keyIds.size > 1) throw badRequest('The input refers to tasks of different upstream accounts.')
  return [...keyIds][0]
}

async function refuseTask ({ rates }: OwnershipServices, context: RequestContext): Promise<never> {
  await rates.misses(context)
  throw gatewayError('GW_TASK_NOT_FOUND')
}
