import type { FastifyInstance } from 'fastify'
import type { Task } from '../../domain/ledger.ts'
import type { ResultsOf } from '../../domain/results.ts'
import { endOf, type TaskEvent } from '../../domain/task-status.ts'
import { instant } from '../../domain/time.ts'
import type { RequestContext } from '../../http/context.ts'
import { readRoute, type ReadServices } from '../../http/guarded-routes.ts'
import { poolOf, shownCredits } from '../../http/left.ts'
import type { Services } from '../../http/services.ts'
import { eventFields, type EventStream, type EventStreams } from './sse.ts'
import {
  type EventCursor, type SubjectEvents, subjectEvents, type SubjectEventsRequest, type TaskWatchers
} from './watchers.ts'

/** What event streams alone work with. */
export interface EventServices {
  readonly streams: EventStreams
  readonly watcher: TaskWatchers
}

/** Where events come from, and where they go. */
interface EventWiring extends EventServices {
  readonly openEvents: (request: SubjectEventsRequest) => SubjectEvents
  readonly storyOf: StoryOf
  readonly creditNotices: Services['creditNotices']
}

/**
 * States of tasks as server-sent events, each with the upstream's envelope as its data. `state` for each change; after
 * a final one `results`, where there are any. And `credits`, when most of what the caller may spend is used.
 *
 * https://html.spec.whatwg.org/multipage/server-sent-events.html
 */
export function eventRoutes (
  app: FastifyInstance,
  services: ReadServices & Pick<Services, 'records' | 'resultsOf' | 'creditNotices' | 'clock'>,
  { streams, watcher }: EventServices
): void {
  const { records, ledger, resultsOf, creditNotices, clock: { now } } = services
  const openEvents = subjectEvents({ watchers: watcher, records, ledger, now })
  const wiring: EventWiring = { watcher, streams, openEvents, storyOf: stories(resultsOf, now), creditNotices }
  const scope = 'tasks:read'

  readRoute(app, services, {
    url: '/gateway/tasks/:taskId/events', operation: 'taskEvents', scope, query: [], task: 'own'
  }, ({ context, reply, task }) => {
    const seen = lastEventId(context)
    const end = endOf(task, now())
    // After its last event a stream ends, and EventSource would come back for ever.
    if (end !== null && seen === stateId(end)) return reply.code(204).send()
    if (end === null) streamTask(task, seen, wiring, context)
    else sendEnd(end, streams.open(context), wiring)
    return reply
  })

  readRoute(app, services, {
    url: '/gateway/events', operation: 'events', scope, query: [], task: null
  }, ({ context, reply }) => {
    streamSubject(wiring, context)
    return reply
  })
}

function streamTask (task: Task, seen: string | null, wiring: EventWiring, context: RequestContext): void {
  const stream = wiring.streams.open(context, { closed: () => stop() })
  let isFirst = true
  const stop = wiring.watcher.watchTask(task, event => {
    const id = stateId(event)
    const isKnown = isFirst && id === seen
    isFirst = false
    if (event.isFinal) sendEnd(event, stream, wiring)
    else if (!isKnown) stream.send({ fields: wiring.storyOf(event).state, id })
  })
}

function sendEnd (event: TaskEvent, stream: EventStream, { storyOf }: EventWiring): void {
  sendStory(stream, storyOf(event), stateId(event), stateId(event))
  stream.end()
}

/**
 * Ids are cursors. With its end come the results of a task: the first of the two events has the cursor before it, so
 * that a reader whose connection ends between them gets the end again.
 */
function streamSubject (
  { streams, openEvents, storyOf, creditNotices }: EventWiring, context: RequestContext
): void {
  const { call: { session, plan } } = context
  const closed = (): void => {
    events.stop()
    unwatch()
  }
  const stream = streams.open(context, { closed, beat: () => events.refresh() })
  const unwatch = watchCredits(creditNotices, context, stream)
  const events = openEvents({
    subject: session.subject,
    permits: model => session.permits(model) && plan.permits(model),
    since: cursorIn(lastEventId(context)),
    emit: (event, at) => {
      sendStory(stream, storyOf(event), cursorId(at - 1, event.taskId), cursorId(at, event.taskId))
      return stream.room()
    },
    resync: (from, at) =>
      stream.send({ fields: eventFields('resync', JSON.stringify({ since: instant(from) })), id: cursorId(at, '') })
  })
  events.refresh()
}

/** Another session of the subject may have another plan, or another pool. They have no cursor: none is told again. */
function watchCredits (
  creditNotices: Services['creditNotices'], { call }: RequestContext, stream: EventStream
): () => void {
  const pool = poolOf(call)
  return creditNotices.watch(call.session.subject, event => {
    if (event.plan !== call.plan.name || (event.pool ?? pool) !== pool) return
    stream.send({ fields: eventFields('credits', JSON.stringify(shownCredits(event))) })
  })
}

/** What is told of a task's event, but for the ids: one event, or two, since with a task's end come its results. */
interface Story {
  readonly state: string
  readonly results: string | null
}

type StoryOf = (event: TaskEvent) => Story

/** How long the links of a story are as good as new, ms: theirs is a time that begins when they are made. */
const freshMs = 1000

/** Each event's story, made once for all who are told it at that moment. */
function stories (resultsOf: ResultsOf, now: () => number): StoryOf {
  const made = new WeakMap<TaskEvent, Story & { readonly at: number }>()
  return event => {
    const known = made.get(event)
    if (known !== undefined && now() - known.at < freshMs) return known
    const results = event.isFinal ? resultsOf(event) : []
    const story = {
      at: now(),
      state: eventFields('state', event.body.toString()),
      results: results.length === 0
        ? null
        : eventFields('results', JSON.stringify({ taskId: event.taskId, results }))
    }
    made.set(event, story)
    return story
  }
}

/** `first`: the id of the state where results follow; `last`: that of whatever comes last. */
function sendStory (stream: EventStream, { state, results }: Story, first: string, last: string): void {
  if (results === null) stream.send({ fields: state, id: last })
  else stream.send({ fields: state, id: first }, { fields: results, id: last })
}

/** The id of an event in a task's own stream is its state: it means the same on every replica. */
function stateId ({ state }: TaskEvent): string {
  return state.slice(0, 64).replaceAll(/[^\w-]/g, '_')
}

function lastEventId ({ request }: RequestContext): string | null {
  const id = request.headers['last-event-id']
  return typeof id === 'string' ? id : null
}

function cursorId (at: number, taskId: string): string {
  return `${at}-${encodeURIComponent(taskId)}`
}

/** An id that we have not made is none. */
function cursorIn (id: string | null): EventCursor | null {
  const [, at, taskId] = /^(\d{1,15})-([\w.!~*'()%-]{0,2400})$/.exec(id ?? '') ?? []
  if (at === undefined) return null
  try {
    return { at: Number(at), taskId: decodeURIComponent(taskId!) }
  } catch {
    return null
  }
}
