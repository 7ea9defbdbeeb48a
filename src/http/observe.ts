import type { FastifyInstance, FastifyRequest } from 'fastify'
import { type DestinationStream, type Logger, pino } from 'pino'
import { collectDefaultMetrics, Counter, Gauge, Registry } from 'prom-client'
import { type AlarmBoard, alarmKinds } from '../domain/alarms.ts'
import type { RejectionCounter } from '../domain/audit.ts'
import { type KeyRing, keyStates } from '../domain/key-ring.ts'
import type { CreditMetrics } from '../domain/ledger-client.ts'
import { creditsFrom } from '../domain/ledger.ts'
import { errorTable } from '../errors.ts'
import type { AuthenticateOperator } from './authenticate.ts'
import type { OnRequestEnd } from './context.ts'
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

/** The program's log. */
export interface ProgramLog {
  /** As JSON lines. Errors go in with their codes and stacks, never with a request or an answer. */
  readonly log: Logger
  /** Where its lines go, for those that are written in other ways. */
  readonly lines: DestinationStream
}

export function programLog ({ level, destination = 1, buffered }: LoggerOptions): ProgramLog {
  const options = { level, base: null, timestamp: () => `,"time":"${isoTime()}"`, serializers: { err: errorFields } }
  if (typeof destination !== 'number') return { log: pino(options, destination), lines: destination }
  const stream = pino.destination({
    dest: destination,
    sync: true,
    ...(buffered ? { minLength: 4096, periodicFlush: 200 } : {})
  })
  return { log: pino(options, stream), lines: together(stream) }
}

/** Hands on the lines of one turn as one text: whatever the stream has gathered, it measures anew with each. */
function together (stream: DestinationStream): DestinationStream {
  let lines = ''
  const handOn = (): void => {
    stream.write(lines)
    lines = ''
  }
  return {
    write (line) {
      if (lines === '') setImmediate(handOn)
      lines += line
    }
  }
}

let second = 0
let isoSecond = ''

/** Now, in ISO 8601 to the millisecond. All but the milliseconds is made once a second. */
function isoTime (): string {
  const at = Date.now()
  const ms = at % 1000
  if (at - ms !== second) {
    second = at - ms
    isoSecond = new Date(second).toISOString().slice(0, -4)
  }
  return `${isoSecond}${String(ms).padStart(3, '0')}Z`
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
export function accessLine ({ log, lines }: ProgramLog): OnRequestEnd {
  return ({ call, id, method }, reply) => {
    if (!log.isLevelEnabled('info')) return
    const passed = call.code === 'OK'
    // As the logger writes it, but by hand: its serialising costs more than all that is in the line. What is not a word
    // of the program's own is quoted.
    lines.write(
      `{"level":30,"time":"${isoTime()}","requestId":"${id}","operation":"${call.operation}","method":"${method}",` +
      `"route":${quote(call.route)},"stage":"${passed ? 'reply' : call.stage}","granted":${passed || call.granted},` +
      `"code":"${call.code}","subject":${quote(call.session?.subject)},"model":${quote(call.model)},` +
      `"taskId":${quote(call.taskId)},"keyId":${quote(call.keyId)},` +
      `"status":${reply.raw.writableFinished ? reply.statusCode : hungUp},` +
      `"upstreamMs":${Math.round(call.upstreamMs)},"ms":${Math.round(call.durationMs)},"msg":"request"}\n`
    )
  }
}

/** Nothing in it has to be escaped: so are most names. */
const plain = /^[\w:.@/ -]*$/

/** Half of a surrogate pair, which JSON would escape, is no character to many readers: they would refuse the line. */
function quote (text: string | null | undefined): string {
  if (text === null || text === undefined) return 'null'
  return plain.test(text) ? `"${text}"` : JSON.stringify(text.toWellFormed())
}

/** What the gauges read, at each scrape. */
interface Gauges {
  readonly keys: Pick<KeyRing, 'states'>
  /** Throws while the store can't serve. */
  readonly ping: () => Promise<void>
  /** Open event streams. */
  readonly eventStreams: () => number
  readonly alarms: Pick<AlarmBoard, 'active'>
}

/**
 * The gateway's numbers, for Prometheus. A label is a word of the program's own: never a subject, a task id or what a
 * caller wrote, each of which would be a row for ever.
 */
export interface Metrics extends CreditMetrics {
  /** Counts a request that has ended. */
  readonly ended: (request: Pick<FastifyRequest, 'call'>) => void
  /** The books of the ledger were looked through: so many faults, in so many seconds, at that instant (Unix ms). */
  verified (faults: number, seconds: number, at: number): void
  /** Requests that were refused with 401, 402 or 403, since the start. */
  refusals (): number
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
  const { ended, refusals, timings } = requestCounts(registers, longestMs)
  let books: ReturnType<typeof bookGauges> | undefined
  return {
    ended,
    refusals,
    credits: (operation, outcome, microcredits) => credits.inc({ operation, outcome }, creditsFrom(microcredits)),
    unknown: count => unknowns.inc(count),
    verified (faults, seconds, at) {
      books ??= bookGauges(registers)
      books.faults.set(faults)
      books.seconds.set(seconds)
      books.at.set(at / 1000)
    },
    watch: gauges => registerGauges(registers, gauges),
    async scrape () {
      const texts = [await registry.metrics(), ...timings.map(({ text }) => text), await processMetrics()]
      return texts.join('\n')
    }
  }
}

/** They are there from the first verification on: 0 faults are not the same as none looked for. */
function bookGauges (registers: Registry[]) {
  const gauge = (name: string, help: string) => new Gauge({ name, help, registers })
  return {
    faults: gauge('gateway_ledger_faults', 'Faults that the last verification of the ledger has found.'),
    seconds: gauge('gateway_ledger_verification_seconds', 'How long the last verification of the ledger took.'),
    at: gauge('gateway_ledger_verification_timestamp_seconds', 'When the last verification of the ledger ended.')
  }
}

/** What somebody gets who guesses, or whose login is broken. */
const refusalCodes: ReadonlySet<string> = new Set(
  errorTable.filter(({ status }) => status === 401 || status === 402 || status === 403).map(({ code }) => code)
)

/** How many have ended so. */
interface Ends { readonly operation: string, readonly stage: string, readonly code: string, n: number }

/** What is noted of each request. */
interface RequestCounts {
  readonly ended: Metrics['ended']
  readonly refusals: Metrics['refusals']
  readonly timings: readonly Timings[]
}

/** Plain numbers, of which the library is told when it is asked. */
function requestCounts (registers: Registry[], longestMs: number): RequestCounts {
  const ends = new Map<string, Ends>()
  const requests: Counter<'operation' | 'stage' | 'code'> = new Counter({
    name: 'gateway_requests_total',
    help: 'Requests, by the stage where they ended and their code.',
    labelNames: ['operation', 'stage', 'code'],
    registers,
    collect () {
      requests.reset()
      for (const { operation, stage, code, n } of ends.values()) requests.inc({ operation, stage, code }, n)
    }
  })
  // No quantile is ever told that lies above the last bound, so that must lie above every time-out.
  const top = Math.ceil(longestMs / 1000) + 1
  const bounds = [...buckets.filter(bound => bound < top), top]
  const seconds = new Timings('gateway_request_seconds', 'From arrival to the end of all work.', bounds)
  const upstreamSeconds = new Timings('gateway_upstream_seconds', 'Waiting for the upstream.', bounds)
  const streamSeconds = new Timings('gateway_event_stream_seconds', 'How long event streams were open.', streamBuckets)

  const ended: Metrics['ended'] = ({ call: { operation, stage: last, code, durationMs, upstreamMs } }) => {
    const stage = code === 'OK' ? 'reply' : last
    const name = `${operation} ${stage} ${code}`
    const end = ends.get(name)
    if (end === undefined) ends.set(name, { operation, stage, code, n: 1 })
    else end.n++
    const took = streamOperations.has(operation) && code === 'OK' ? streamSeconds : seconds
    took.note(operation, durationMs / 1000)
    if (upstreamMs > 0) upstreamSeconds.note(operation, upstreamMs / 1000)
  }
  const refusals = (): number => {
    let sum = 0
    for (const { code, n } of ends.values()) if (refusalCodes.has(code)) sum += n
    return sum
  }
  return { ended, refusals, timings: [seconds, upstreamSeconds, streamSeconds] }
}

/**
 * A histogram of how long each operation took. It is counted, and written in Prometheus' text format, by hand: for each
 * value the library would make the name of a row anew.
 */
class Timings {
  readonly #name: string
  readonly #help: string
  readonly #bounds: readonly number[]
  readonly #rows = new Map<string, { sum: number, readonly counts: number[] }>()

  /** `bounds`: ascending, seconds. */
  constructor (name: string, help: string, bounds: readonly number[]) {
    this.#name = name
    this.#help = help
    this.#bounds = bounds
  }

  note (operation: string, seconds: number): void {
    let row = this.#rows.get(operation)
    if (row === undefined) {
      row = { sum: 0, counts: Array<number>(this.#bounds.length + 1).fill(0) }
      this.#rows.set(operation, row)
    }
    let bucket = 0
    while (seconds > this.#bounds[bucket]!) bucket++ // it is not above the bound that is not there
    row.counts[bucket]!++
    row.sum += seconds
  }

  get text (): string {
    const lines = [`# HELP ${this.#name} ${this.#help}`, `# TYPE ${this.#name} histogram`]
    for (const [operation, { sum, counts }] of this.#rows) {
      let count = 0
      for (const [index, inBucket] of counts.entries()) {
        count += inBucket
        lines.push(`${this.#name}_bucket{le="${this.#bounds[index] ?? '+Inf'}",operation="${operation}"} ${count}`)
      }
      lines.push(`${this.#name}_sum{operation="${operation}"} ${sum}`)
      lines.push(`${this.#name}_count{operation="${operation}"} ${count}`)
    }
    return `${lines.join('\n')}\n`
  }
}

function registerGauges (registers: Registry[], { keys, ping, eventStreams, alarms }: Gauges): void {
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
  const alarmGauge: Gauge<'kind'> = new Gauge({
    name: 'gateway_alarms',
    help: 'Whether an alarm of this kind is on.',
    labelNames: ['kind'],
    registers,
    collect () {
      const on = new Set<string>(alarms.active().map(({ kind }) => kind))
      for (const kind of Object.keys(alarmKinds)) alarmGauge.set({ kind }, on.has(kind) ? 1 : 0)
    }
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

/** An outage is nobody's refusal: what is our own trouble has a status of 500 and more. */
export function rejections (refused: RejectionCounter): OnRequestEnd {
  return ({ call }, { statusCode }) => {
    if (call.code !== 'OK' && !call.granted && statusCode < 500) {
      refused.count(call.code, call.stage, call.session?.subject ?? null)
    }
  }
}
