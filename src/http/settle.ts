import type { TaskLedger } from '../domain/ledger.ts'
import { finalState } from '../domain/outcome.ts'
import type { PatientLedger } from '../domain/patient-ledger.ts'
import type { UpstreamAnswer } from '../domain/upstream.ts'
import { type ErrorCode, gatewayError } from '../errors.ts'
import { type AdmittedSubmit, noKey } from './admit.ts'
import type { StatusOrder } from './authorize.ts'
import type { Context } from './call.ts'
import type { ForwardedStatus, ForwardedSubmit } from './forward.ts'
import { type Answer, answerFrom, keptAnswer } from './reply.ts'

/** *settle* for submits: what the upstream may have accepted stays charged, what it refused leaves no trace. */
export function settleSubmit (patient: PatientLedger) {
  return async (outcome: ForwardedSubmit, { reservation }: AdmittedSubmit, { call, request }: Context): Promise<Answer> => {
    switch (outcome.kind) {
      case 'accepted':
        call.taskId = outcome.taskId
        await claim(patient, reservation, outcome.taskId)
        return passable(outcome.answer)
      case 'refused':
        await patient.advance(reservation, { to: 'released' })
        return passable(outcome.answer)
      case 'invalid':
        await patient.advance(reservation, { to: 'released' })
        throw gatewayError('GW_UPSTREAM_INVALID')
      case 'nothing-sent':
        await patient.advance(reservation, { to: 'released' })
        throw gatewayError('GW_UPSTREAM_UNREACHABLE', { cause: outcome.cause })
      case 'our-key':
        await patient.advance(reservation, { to: 'released' })
        throw ourTrouble(outcome.code)
      case 'unknown':
        request.log.error({ alarm: 'unknown-outcome', reservation, reason: outcome.reason }, 'a submit may have been accepted')
        await patient.advance(reservation, { to: 'unknown' })
        throw gatewayError('GW_OUTCOME_UNKNOWN', { shouldRetry: false })
    }
  }
}

/** An id that is taken belongs to whoever has it: the caller gets no task, and the charge stays until somebody looks. */
async function claim (patient: PatientLedger, reservation: number, taskId: string): Promise<void> {
  if (await patient.advance(reservation, { to: 'claimed', taskId })) return
  await patient.advance(reservation, { to: 'unknown' })
  throw gatewayError('GW_OUTCOME_UNKNOWN', { shouldRetry: false })
}

/** *settle* for status calls: a final state ends the task in the ledger before the caller hears of it. */
export function settleStatus (ledger: TaskLedger) {
  return async (outcome: ForwardedStatus, { task }: StatusOrder): Promise<Answer> => {
    if (outcome.kind === 'kept') return keptAnswer(outcome.body)
    if (outcome.kind === 'failed') throw ourTrouble(outcome.code, outcome.cause)
    const { answer, envelope } = outcome
    const answered = passable(answer)
    const state = finalState(answer, envelope, task.taskId)
    if (state !== null) await ledger.settle({ taskId: task.taskId, state, answer: answer.body })
    return answered
  }
}

function ourTrouble (code: ErrorCode, cause?: unknown) {
  return code === 'GW_NO_KEY' ? noKey() : gatewayError(code, { cause })
}

function passable (answer: UpstreamAnswer): Answer {
  if (answer.leaksKey) throw gatewayError('GW_UPSTREAM_INVALID')
  return answerFrom(answer)
}
