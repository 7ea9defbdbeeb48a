import { randomUUID } from 'node:crypto'
import { readBatchBody } from '../../domain/bodies/batch-body.ts'
import { fingerprintOf } from '../../domain/ledger/idempotency.ts'
import { batchRow, type Operation } from '../../domain/policy/catalog.ts'
import type { Price } from '../../domain/policy/pricing.ts'
import { isGuest } from '../../domain/sessions/guests.ts'
import { badRequest, gatewayError, isGatewayError } from '../../errors.ts'
import { checkOperation, type StatusOrder, type SubmitOrder, type SubmitRules } from '../authorize.ts'
import type { Context } from '../call.ts'
import { idempotencyKeyOf } from '../idempotency.ts'
import type { Ownership } from '../ownership.ts'
import { repeatOf } from '../repeats.ts'

/** A batch that may be made: a submit that costs nothing itself, and the tasks in it. */
export interface BatchOrder extends SubmitOrder {
  readonly items: ReadonlyArray<{ readonly clientItemId: string, readonly price: Price }>
  /** The `Idempotency-Key` that the upstream wants. */
  readonly batchKey: string
}

type Rules = Pick<SubmitRules, 'priceOf' | 'holdCaps'>

/** *authorize* for batches: what holds for a submit holds for each item, and all earlier tasks are of one account. */
export function authorizeBatch (operation: Operation, { keyOfReferences }: Ownership, { priceOf, holdCaps }: Rules) {
  return async (context: Context): Promise<BatchOrder> => {
    const model = checkOperation(operation, context)
    const { request: { body: bytes }, call: { session: { subject } } } = context
    if (isGuest(subject)) throw gatewayError('GW_SCOPE_DENIED', { about: 'Guests submit one task at a time, with a proof for each.' })
    if (!Buffer.isBuffer(bytes)) throw badRequest('Send a JSON body with a list of items.')
    const idempotency = idempotencyKeyOf(context, operation, bytes)
    const body = readBatchBody(bytes, key => fingerprintOf('batch-item', subject, key))
    const items = body.items.map(({ clientItemId, input }, index) => naming(`items.${index}`, () => {
      holdCaps(model, input)
      return { clientItemId, price: priceOf(model, input) }
    }))
    return {
      model,
      items,
      price: { microcredits: 0, refundable: false },
      body: body.bytes,
      keyId: await keyOfReferences(body, context),
      idempotency,
      repeat: idempotency === undefined ? repeatOf(context, operation, bytes) : undefined,
      batchKey: idempotency === undefined ? randomUUID() : fingerprintOf('batch', subject, idempotency.key, idempotency.fingerprint)
    }
  }
}

/** *authorize* for the status of a batch: it is the caller's and was made with that model; else it does not exist. */
export function authorizeBatchStatus (operation: Operation, { own }: Ownership) {
  return async (context: Context): Promise<StatusOrder> => {
    const model = checkOperation(operation, context)
    const { batchId } = context.request.params as { batchId: string }
    const task = await own(batchId, context, model, batchRow)
    context.call.taskId = batchId
    // Its row ends when its tasks begin: what it ended with is nothing to answer with.
    return { task: { ...task, finalAnswer: null } }
  }
}

/** Runs a rule, and says in which item it was broken. */
function naming<Result> (item: string, rule: () => Result): Result {
  try {
    return rule()
  } catch (error) {
    if (!isGatewayError(error)) throw error
    throw gatewayError(error.code, { ...error.detail, about: `In ${item}: ${error.detail.about}` })
  }
}
