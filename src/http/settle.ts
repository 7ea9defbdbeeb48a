import type { LedgerClient } from '../domain/ledger-client.ts'
import type { StoredResponse } from '../domain/ledger.ts'
import type { StatusReport } from '../domain/task-status.ts'
import { retryAfterSeconds } from '../domain/time.ts'
import type { UpstreamAnswer } from '../domain/upstream.ts'
import { type ErrorCode, gatewayError } from '../errors.ts'
import { type ReservedSubmit, noKey } from './admit.ts'
import { type Answer, answerFrom, type RequestContext, storedAnswer } from './context.ts'
import type { ForwardedSubmit, StoredEnd } from './forward.ts'
import { keptFrom } from './repeats.ts'

/** How a submit may end in the ledger. */
type SubmitEnds = Pick<LedgerClient, 'claim' | 'release' | 'markUnknown'>

/**
 * *settle* for submits: what the upstream may have accepted stays charged, what it refused leaves no trace but the
 * answer
 * that its idempotency key gives again. A refusal that may pass with time frees the key.
 */
export function settleSubmit (ledger: SubmitEnds) {
  return async (
    outcome: ForwardedSubmit,
    order: ReservedSubmit,
    { call, request }: RequestContext
  ): Promise<Answer> => {
    const { reservation } = order
    const release = async (answer?: StoredResponse): Promise<void> => {
      await ledger.release(reservation, answer)
      order.delivery?.released()
    }
    switch (outcome.kind) {
      case 'accepted':
        call.taskId = outcome.taskId
        call.madeTaskIds = [outcome.taskId]
        await claim(ledger, order, outcome)
        // The task runs, and its owner finds it in the list of its tasks: asked for again, it would be made again.
        if (outcome.answer.leaksKey) throw gatewayError('GW_UPSTREAM_INVALID', { shouldRetry: false })
        return answerFrom(outcome.answer)
      case 'refused':
        await release(order.idempotency !== undefined && isLasting(outcome) ? keptFrom(outcome.answer) : undefined)
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
          { alarm: 'unknown-outcome', reservation, reason: outcome.reason },
          'a submit may have been accepted'
        )
        await ledger.markUnknown(reservation)
        throw gatewayError('GW_OUTCOME_UNKNOWN', { shouldRetry: false })
    }
  }
}

/**
 * An id that is taken belongs to whoever has it: the caller gets no task, and the charge stays until somebody looks.
 */
async function claim (ledger: SubmitEnds, order: ReservedSubmit, { taskId, answer }: Accepted): Promise<void> {
  const { reservation, idempotency, delivery } = order
  const kept = idempotency === undefined ? delivery?.keep(answer) : keptFrom(answer)
  if (await ledger.claim(reservation, taskId, kept)) {
    if (!answer.leaksKey) delivery?.told()
    return
  }
  delivery?.discard()
  await ledger.markUnknown(reservation)
  throw gatewayError('GW_OUTCOME_UNKNOWN', { shouldRetry: false })
}

type Accepted = Extract<ForwardedSubmit, { kind: 'accepted' }>
type Refused = Extract<ForwardedSubmit, { kind: 'refused' }>

/** The same request would be refused again. What the caller is not shown is not kept for it either. */
function isLasting ({ status, answer }: Refused): boolean {
  return status < 500 && status !== 429 && !answer.leaksKey
}

/**
 * *settle* for status calls: a final state has ended the task in the ledger before this caller, or anybody, hears of
 * it.
 * Who asks too early gets the last answer, and when to come again.
 */
export async function settleStatus (report: StatusReport | StoredEnd): Promise<Answer> {
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
