import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { type DestinationStream, type Logger, pino } from 'pino'
import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client'
import { type KeyRing, keyStates } from '../domain/key-ring.ts'
import type { CreditMetrics } from '../domain/ledger-client.ts'
import { creditsFrom } from '../domain/ledger.ts'
import type { AuthenticateOperator } from './authenticate.ts'
import type { Services } from './services.ts'

interface LoggerOptions {
  readonly level: string
  /** A file descriptor, standard output by default; or what a test listens with. */
  readonly destination?: number | DestinationStream | undefined
  /**
   * Lines are written in blocks of 4 kB or every 200 ms: one write call a line costs as much as the whole access check.
   */
  readonly buffered: boolean
}

/** The program's log, as JSON lines. Errors go in with their codes and stacks, never with a request or an answer. */
export function logger ({ level, destination = 1, buffered }: LoggerOptions): Logger {
  return pino(
    { level, base: null, timestamp: pino.stdTimeFunctions.isoTime, serializers: { err: errorFields } },
    typeof destination === 'number'
      ? pino.destination({
        dest: destination,
        sync: true,
        ...(buffered ? { minLength: 4096, periodicFlush: 200 } : {})
      })
      : destination
  )
}

/**
 * The outline of an error and of its causes. Other fields are left out: an error of a library may carry what it was
 * given, headers and tokens included.
 */
function errorFields (error: Error & { code?: unknown }, depth = 0): object {
  const { cause } = error
  return {
    type: error.name,
    code: error.code,
    message: error.message,
    stack: error.stack,
    ...(cause instanceof Error && depth < 4 ? { cause: errorFields(cause, depth + 1) } : {})
  }
}

/** nginx's code for a caller that did not wait for the answer. */
const hungUp = 499

/** The access line: one a request, written when its response is out and its work is done. */
export function accessLine (log: Logger) {
  return ({ call, id, method }: FastifyRequest, reply: FastifyReply): void => {
    const passed = call.code === 'OK'
    log.info({
      requestId: id,
      operation: call.operation,
      method,
      route: call.route,
      stage: passed ? 'reply' : call.stage,
      granted: passed || call.granted,
      code: call.code,
      subject: call.session?.subject ?? null,
      model: call.model,
      taskId: call.taskId,
      keyId: call.keyId,
      status: reply.raw.writableFinished ? reply.statusCode : hungUp,
      upstreamMs: Math.round(call.upstreamMs),
      ms: Math.round(performance.now() - call.startedAt)
    }, 'request')
  }
}

/** What the gauges read, at each scrape. */
interface Gauges {
  readonly keys: Pick<KeyRing, 'states'>
  /** Throws while the store can't serve. */
  readonly ping: () => Promise<void>
  /** Open event streams. */
  readonly eventStreams: () => number
}

/**
 * The gateway's numbers, for Prometheus. A label is a word of the program's own: never a subject, a task id or what a
 * caller wrote, each of which would be a row for ever.
 */
export interface Metrics extends CreditMetrics {
  /** Counts a request that has ended. */
  readonly ended: (request: FastifyRequest) => void
  /** Adds the gauges. */
  watch (gauges: Gauges): void
  /** All there is, in Prometheus' own text format. */
  scrape (): Promise<string>
}

/** https://prometheus.io/docs/instrumenting/exposition_formats/#basic-info */
const metricsType = Registry.PROMETHEUS_CONTENT_TYPE
/** From a status call that the ledger answers to a submit that waits for its upstream, seconds. */
const buckets = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300]
/** From a page that was left at once to one that is open all day, seconds. */
const streamBuckets = [1, 10, 60, 300, 1800, 3600, 14_400, 86_400]
/** Their requests last for as long as somebody listens, which says nothing of how fast we are. */
const streamOperations: ReadonlySet<string> = new Set(['events', 'taskEvents'])

/** `longestMs`: a request that waits for everything that it may wait for has ended by then. */
export function metrics (longestMs: number): Metrics {
  const registry = new Registry()
  const registers = [registry]
  const credits = new Counter({
    name: 'gateway_credits_total',
    help: 'Credits, by what became of them.',
    labelNames: ['operation', 'outcome'],
    registers
  })
  const unknowns = new Counter({
    name: 'gateway_unknown_outcomes_total',
    help: 'Submits and tasks without a known end.',
    registers
  })
  return {
    ended: requestCounts(registers, longestMs),
    credits: (operation, outcome, microcredits) => credits.inc({ operation, outcome }, creditsFrom(microcredits)),
    unknown: count => unknowns.inc(count),
    watch: gauges => registerGauges(registers, gauges),
    scrape: async () => `${await registry.metrics()}\n${await processMetrics()}`
  }
}

/** Called for every request: three counts cost less than a microsecond, with no cache of labels to keep. */
function requestCounts (registers: Registry[], longestMs: number): Metrics['ended'] {
  const requests = new Counter({
    name: 'gateway_requests_total',
    help: 'Requests, by the stage where they ended and their code.',
    labelNames: ['operation', 'stage', 'code'],
    registers
  })
  // No quantile is ever told that lies above the last bound, so that must lie above every time-out.
  const top = Math.ceil(longestMs / 1000) + 1
  const timing = { labelNames: ['operation'], buckets: [...buckets.filter(bound => bound < top), top], registers }
  const seconds = new Histogram({
    ...timing,
    name: 'gateway_request_seconds',
    help: 'From arrival to the end of all work.'
  })
  const upstreamSeconds = new Histogram({
    ...timing,
    name: 'gateway_upstream_seconds',
    help: 'Waiting for the upstream.'
  })
  const streamSeconds = new Histogram({
    name: 'gateway_event_stream_seconds',
    help: 'How long event streams were open.',
    labelNames: ['operation'],
    buckets: streamBuckets,
    registers
  })
  return ({ call, call: { operation } }) => {
    requests.inc({ operation, stage: call.code === 'OK' ? 'reply' : call.stage, code: call.code })
    const took = streamOperations.has(operation) && call.code === 'OK' ? streamSeconds : seconds
    took.observe({ operation }, (performance.now() - call.startedAt) / 1000)
    if (call.upstreamMs > 0) upstreamSeconds.observe({ operation }, call.upstreamMs / 1000)
  }
}

function registerGauges (registers: Registry[], { keys, ping, eventStreams }: Gauges): void {
  const stateGauge: Gauge<'state'> = new Gauge({
    name: 'gateway_keys',
    help: 'Upstream keys, by state.',
    labelNames: ['state'],
    registers,
    collect () {
      const states = keys.states()
      for (const state of keyStates) stateGauge.set({ state }, states.filter(key => key.state === state).length)
    }
  })
  const storeUp: Gauge = new Gauge({
    name: 'gateway_store_up',
    help: 'Whether the store serves.',
    registers,
    collect: async () => storeUp.set(await ping().then(() => 1, () => 0))
  })
  const streams: Gauge = new Gauge({
    name: 'gateway_event_streams',
    help: 'Open event streams.',
    registers,
    collect: () => streams.set(eventStreams())
  })
}

let processRegistry: Registry | undefined

/**
 * Numbers of Node and its process, which is one, however many gateways there are in it. Their observers are set up by
 * the first scrape: where nobody looks, nothing is measured.
 */
async function processMetrics (): Promise<string> {
  if (processRegistry === undefined) {
    processRegistry = new Registry()
    collectDefaultMetrics({ register: processRegistry })
  }
  // A mean of nothing yet is no number, and written in a way that not every reader knows.
  return (await processRegistry.metrics()).replace(/^\S+ nan\n/gim, '')
}

/**
 * `/livez`: the process answers. `/readyz`: it may be given requests, since its store serves. Keys are not asked: a
 * benched key is an alarm, and no reason to stop.
 */
export function healthRoutes (app: FastifyInstance, { probeStore }: Pick<Services, 'probeStore'>): void {
  app.get('/livez', { config: { operation: 'livez', exempt: true } }, async () => ({ status: 'ok' }))

  app.get('/readyz', { config: { operation: 'readyz', exempt: true } }, async (_request, reply) => {
    const store = await probeStore().then(() => 'ok', () => 'down')
    return reply.code(store === 'ok' ? 200 : 503).send({ status: store === 'ok' ? 'ok' : 'unavailable', store })
  })
}

/** `authenticate`: `null` on the admin port, whose callers have been let in by the network. */
export function metricsRoutes (
  app: FastifyInstance,
  { metrics }: Pick<Services, 'metrics'>,
  authenticate: AuthenticateOperator | null
): void {
  const options = authenticate === null
    ? { config: { operation: 'metrics' } }
    : { config: { operation: 'metrics', opensWith: 'admin token' as const }, onRequest: authenticate }

  app.get('/metrics', options, async (_request, reply) => {
    const text = await metrics.scrape()
    return reply.type(metricsType).send(text)
  })
}
