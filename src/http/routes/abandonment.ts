import type { FastifyInstance } from 'fastify'
import { creditsFrom, type Task } from '../../domain/ledger.ts'
import { ledgerStatus } from '../../domain/task-status.ts'
import { instant } from '../../domain/time.ts'
import { gatewayError } from '../../errors.ts'
import { checkQuery, checkScope } from '../authorize.ts'
import { contextOf } from '../context.ts'
import { findNamedTask } from '../guarded-routes.ts'
import type { Services } from '../services.ts'

type AbandonServices = Pick<Services, 'authenticate' | 'ledger' | 'rates' | 'clock'>

/** What stays, and why. The upstream documents no way to end a task. */
const notice = 'The upstream has no cancel, so the task runs on and its charge stays: credits come back only if it ' +
  'fails. Its slot is free.'

/**
 * Gives a task of the caller's up, so that its slot is free for another. Its upstream goes on with it: it is followed
 * and listed as before, its result is still its owner's, and it counts as running wherever more than this subject's
 * slots are counted. One that has ended is answered as it is, and nothing changes.
 *
 * An hour has as many as the plan has slots: else whoever gives up each task at once would run any number of them.
 */
export function abandonRoute (app: FastifyInstance, services: AbandonServices): void {
  const { authenticate, ledger, rates, clock: { now } } = services
  app.delete('/gateway/tasks/:taskId', {
    config: { operation: 'abandonTask' }, onRequest: authenticate
  }, async (request, reply) => {
    const context = contextOf(request, reply)
    const { call } = context
    call.enter('authorize')
    checkScope('tasks:write', call.session)
    checkQuery([], request)
    const task = await findNamedTask(services, context)
    call.enter('admit')
    await rates.polls(context)
    const abandoned = await ledger.abandon({ taskId: task.taskId, mostPerHour: call.plan.concurrentTasks })
    if (abandoned.result === 'limited') throw tooMany(abandoned.retryAt - now())
    call.grant()
    if (abandoned.result === 'ended') return shownEnd(await findNamedTask(services, context))
    return { ...shown(task, 'running'), abandonedAt: instant(abandoned.at), notice }
  })
}

function tooMany (waitMs: number) {
  return gatewayError('GW_RATE_LIMITED', {
    about: 'Within an hour, as many tasks can be given up as may run at a time.',
    retryAfterSeconds: Math.ceil(Math.max(0, waitMs) / 1000)
  })
}

/** Nobody knows how it ended: `unknown`. */
function shownEnd (task: Task) {
  const { taskId, finalAnswer } = task
  return shown(task, finalAnswer === null ? 'unknown' : ledgerStatus(finalAnswer, taskId).state)
}

function shown ({ taskId, model, microcredits }: Task, state: string | null) {
  return { taskId, model, state, credits: creditsFrom(microcredits) }
}
