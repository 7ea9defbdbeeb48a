import type { FastifyInstance } from 'fastify'
import type { Task } from '../../domain/ledger.ts'
import {
  type EventCursor, type SubjectEvents, subjectEvents, type SubjectEventsRequest
} from '../../domain/subject-events.ts'
import { endOf, type TaskEvent } from '../../domain/task-status.ts'
import { instant } from '../../domain/time.ts'
import type { RequestContext } from '../context.ts'
import { readRoute, type ReadServices } from '../read-route.ts'
import type { Services } from '../services.ts'
import type { EventStream, ServerEvent } from '../sse.ts'
import { resultLinks, type ResultsOf } from './results.ts'

/** What tells of the states of tasks. */
interface Telling extends Pick<Services, 'watcher' | 'streams'> {
  readonly feed: (request: SubjectEventsRequest) => SubjectEvents
  readonly resultsOf: ResultsOf
}

/**
 * States of tasks as server-sent events, each with the upstream's envelope as its data. `state` for each change; after
 * a final one `results`, where there are any.
 *
 * https://html.spec.whatwg.org/multipage/server-sent-events.html
 */
export function eventRoutes (
  app: FastifyInstance,
  services: ReadServices & Pick<Services, 'watcher' | 'records' | 'streams' | 'tickets' | 'publicUrl' | 'clock'>
): void {
  const { watcher, records, ledger, streams, clock: { now } } = services
  const feed = subjectEvents({ watchers: watcher, records, ledger, now })
  const telling: Telling = { watcher, streams, feed, resultsOf: resultLinks(services) }
  const scope = 'tasks:read'

  readRoute(app, services, {
    url: '/gateway/tasks/:taskId/events', operation: 'taskEvents', scope, query: [], task: 'own'
  }, ({ context, reply, task }) => {
    const seen = lastEventId(context)
    const end = endOf(task, now())
    // After its last event a stream ends, and EventSource would come back for ever.
    if (end !== null && seen === stateId(end)) return reply.code(204).send()
    if (end === null) streamTask(task, seen, telling, context)
    else sendEnd(end, streams.open(context), telling)
    return reply
  })

  readRoute(app, services, {
    url: '/gateway/events', operation: 'events', scope, query: [], task: null
  }, ({ context, reply }) => {
    streamSubject(telling, context)
    return reply
  })
}

function streamTask (task: Task, seen: string | null, telling: Telling, context: RequestContext): void {
  const stream = telling.streams.open(context, { closed: () => stop() })
  let isFirst = true
  const stop = telling.watcher.watchTask(task, event => {
    const id = stateId(event)
    const isKnown = isFirst && id === seen
    isFirst = false
    if (event.isFinal) sendEnd(event, stream, telling)
    else if (!isKnown) stream.send(...eventsOf(event, id, telling.resultsOf))
  })
}

function sendEnd (event: TaskEvent, stream: EventStream, { resultsOf }: Telling): void {
  stream.send(...eventsOf(event, stateId(event), resultsOf))
  stream.end()
}

/**
 * Ids are cursors. With its end come the results of a task: the first of the two events has the id of what was told
 * before, so that a reader that is cut between them hears of the end again.
 */
function streamSubject ({ streams, feed, resultsOf }: Telling, context: RequestContext): void {
  const { call: { session, plan } } = context
  const stream = streams.open(context, { closed: () => tasks.stop(), beat: () => tasks.refresh() })
  const tasks = feed({
    subject: session.subject,
    permits: model => session.permits(model) && plan.permits(model),
    since: cursorIn(lastEventId(context)),
    emit: (event, mark) => {
      const [first, ...results] = eventsOf(event, cursorId(mark, event.taskId), resultsOf)
      stream.send(results.length === 0 ? first : { ...first, id: cursorId(mark - 1, event.taskId) }, ...results)
      return stream.room()
    },
    resync: (from, mark) =>
      stream.send({ type: 'resync', id: cursorId(mark, ''), data: JSON.stringify({ since: instant(from) }) })
  })
  tasks.refresh()
}

/** One event, or two: with its end come the results of a task. */
function eventsOf (event: TaskEvent, id: string, resultsOf: ResultsOf): readonly [ServerEvent, ...ServerEvent[]] {
  const state = { type: 'state', id, data: event.body.toString() }
  const results = event.isFinal ? resultsOf(event) : []
  if (results.length === 0) return [state]
  return [state, { type: 'results', id, data: JSON.stringify({ taskId: event.taskId, results }) }]
}

/** The id of an event in a task's own stream is its state: it means the same on every replica. */
function stateId ({ state }: TaskEvent): string {
  return state.slice(0, 64).replaceAll(/[^\w-]/g, '_')
}

function lastEventId ({ request }: RequestContext): string | null {
  const id = request.headers['last-event-id']
  return typeof id === 'string' ? id : null
}

function cursorId (mark: number, taskId: string): string {
  return `${mark}-${encodeURIComponent(taskId)}`
}

/** An id that we have not made is none. */
function cursorIn (id: string | null): EventCursor | null {
  const [, mark, taskId] = /^(\d{1,15})-([\w.!~*'()%-]{0,2400})$/.exec(id ?? '') ?? []
  if (mark === undefined) return null
  try {
    return { at: Number(mark), taskId: decodeURIComponent(taskId!) }
  } catch {
    return null
  }
}
