import type { FastifyRequest } from 'fastify'
import type { NotAccepted } from '../domain/answers.ts'
import type { LedgerClient } from '../domain/ledger-client.ts'
import type { ReservationId, StoredResponse } from '../domain/ledger.ts'
import type { StatusReport } from '../domain/task-status.ts'
import { retryAfterSeconds } from '../domain/time.ts'
import type { UpstreamAnswer } from '../domain/upstream.ts'
import { type ErrorCode, gatewayError } from '../errors.ts'
import { noKey } from './admit.ts'
import { type Answer, answerFrom, type RequestContext, storedAnswer } from './context.ts'
import type { KeyRefused } from './forward.ts'
import { type Delivery, keptFrom, type Repeatable } from './repeats.ts'
import type { Services } from './services.ts'

/** What has been reserved for a submit, and by what its answer may be asked for again. */
export interface OpenReservation {
  readonly id: ReservationId
  readonly idempotency: Repeatable['idempotency']
  /** Of a submit without an idempotency key; `null`: a caller that has one asks again with it. */
  readonly delivery: Delivery | null
}

/**
 * *settle* for a submit of which no task is known: what the upstream may have accepted stays charged, what it refused
 * leaves no trace but the answer that its idempotency key gives again. A refusal that may pass with time frees the key.
 */
export async function settleWithoutTask (
  ledger: Pick<LedgerClient, 'release' | 'markUnknown'>,
  { id, idempotency, delivery }: OpenReservation,
  outcome: NotAccepted | KeyRefused,
  { request }: RequestContext
): Promise<Answer> {
  const release = async (answer?: StoredResponse): Promise<void> => {
    await ledger.release(id, answer)
    delivery?.released()
  }
  switch (outcome.kind) {
    case 'refused':
      await release(idempotency !== undefined && isLasting(outcome) ? keptFrom(outcome.answer) : undefined)
      return passable(outcome.answer)
    case 'invalid':
      await release()
      throw gatewayError('GW_UPSTREAM_INVALID')
    case 'nothing-sent':
      await release()
      throw gatewayError('GW_UPSTREAM_UNREACHABLE', { cause: outcome.cause })
    case 'our-key':
      await release()
      throw ourTrouble(outcome.code)
    case 'unknown':
      request.log.error(
        { alarm: 'unknown-outcome', reservation: id, reason: outcome.reason },
        'a submit may have been accepted'
      )
      await ledger.markUnknown(id)
      throw unknownOutcome()
  }
}

/** Only answers the caller sees are stored for replay, and only if a retry would get the same. */
function isLasting ({ status, answer }: Extract<NotAccepted, { kind: 'refused' }>): boolean {
  return status < 500 && status !== 429 && !answer.leaksKey
}

/** What an accepted submit's idempotency key gives again; or its repeat, when its caller has gone already. */
export function answerToKeep (
  { idempotency, delivery }: OpenReservation, answer: UpstreamAnswer
): StoredResponse | undefined {
  return idempotency === undefined ? delivery?.keep(answer) : keptFrom(answer)
}

/**
 * The answer to a submit whose task has its owner. One that repeats our key is not shown: the task runs, and its owner
 * finds it in the list of its tasks; a retry gets this refusal again.
 */
export function acceptedAnswer ({ delivery }: OpenReservation, answer: UpstreamAnswer): Answer {
  if (answer.leaksKey) throw gatewayError('GW_UPSTREAM_INVALID', { shouldRetry: false })
  delivery?.told()
  return answerFrom(answer)
}

/** The upstream may have made a task that has no owner: a caller that repeats its submit may pay twice. */
export function unknownOutcome () {
  return gatewayError('GW_OUTCOME_UNKNOWN', { shouldRetry: false })
}

/**
 * *settle* for status calls: a final state has ended the task in the ledger before this caller, or anybody, hears of
 * it. A caller that asks too early gets the last answer, and when to come again.
 */
export function statusAnswer (report: StatusReport): Answer {
  switch (report.source) {
    case 'ledger':
      return storedAnswer(report.answer.body)
    case 'cached':
      return answerFrom({
        ...report.answer,
        retryAfter: String(retryAfterSeconds(report.nextInMs)),
        retryAfterMs: undefined
      })
    case 'upstream':
      return answerFrom(report.answer)
    case 'none':
      throw ourTrouble(report.code, report.cause)
  }
}

function ourTrouble (code: ErrorCode, cause?: unknown) {
  if (code === 'GW_NO_KEY') return noKey()
  return gatewayError(code, code === 'GW_OUTCOME_UNKNOWN' ? { shouldRetry: false } : { cause })
}

function passable (answer: UpstreamAnswer): Answer {
  if (answer.leaksKey) throw gatewayError('GW_UPSTREAM_INVALID')
  return answerFrom(answer)
}

/**
 * Tells, when a submit or a batch is over, that its subject has new tasks: streams that are open follow them from then
 * on, also when the caller has gone.
 */
export function announcement ({ events, clock: { now } }: Pick<Services, 'events' | 'clock'>) {
  return ({ call: { session, madeTaskIds, model } }: FastifyRequest): void => {
    for (const taskId of madeTaskIds) {
      // Where tasks were made there are a session and a model.
      events.publish({
        subject: session!.subject,
        taskId,
        model: model!,
        state: '',
        isFinal: false,
        at: now(),
        body: Buffer.alloc(0)
      })
    }
  }
}
