import type { FastifyInstance } from 'fastify'
import type { DestinationStream, Logger } from 'pino'
import { nodeTimers } from './adapters/local.ts'
import { type WatchedFiles, watchedFiles } from './adapters/watched-files.ts'
import {
  type RejectionCounter,
  rejectionCounter,
  rotations,
  type SecretRotation,
  settingsRecord
} from './domain/audit.ts'
import type { KeyRing } from './domain/key-ring.ts'
import { type Maintenance, maintenance, reconciler, tasksOfGoneKeys } from './domain/maintenance.ts'
import { refreshTask } from './domain/status-poller.ts'
import type { Store } from './domain/store.ts'
import { type Clock, systemClock, type Timers } from './domain/time.ts'
import { ownOrigins } from './http/authenticate.ts'
import { bodyBudget as boundedUploads } from './http/body-budget.ts'
import { accessLine, healthRoutes, logger, type Metrics, metrics } from './http/observe.ts'
import { listener, type ListenerOptions, withMethods } from './http/server.ts'
import { announcement, type EventStreams, eventStreams } from './http/sse.ts'
import { registerOperatorRoutes, registerRoutes } from './routes.ts'
import { createServices, type Services, upstreamKey, type WebhookTest } from './services.ts'
import { type LiveSecrets, type SecretNews, type Settings, shownSettings } from './settings.ts'
import { patienceMs, tidyMs } from './stores.ts'

interface SecretHolders {
  readonly secrets: LiveSecrets
  readonly keys: KeyRing
  readonly timers: Timers
}

interface SecretFollowers {
  /** A secret under which sessions were signed is gone, and they with it. */
  readonly onSessionsEnded: () => void
  /** Writes it into the audit trail, or keeps it until it can; a rejection is logged. */
  readonly writeRotation: (rotation: SecretRotation) => Promise<void>
}

/** Secrets that came from files follow their files. */
export function followSecrets (
  { secretFiles }: Settings,
  { secrets, keys, timers }: SecretHolders,
  log: Logger,
  { onSessionsEnded, writeRotation }: SecretFollowers
): WatchedFiles {
  const take = (news: SecretNews): void => {
    if ('problem' in news) {
      log.error(
        { alarm: 'secret-file', ...news },
        'a file with a secret can not be used; what was read before stays in use'
      )
      return
    }
    log.info(news, 'a file with a secret was read again')
    if (!news.rotated) return
    if (news.setting === 'APIXO_API_KEY') keys.replace(secrets.apiKeys.current.map(upstreamKey))
    if (signsSessions(news.setting) && news.gone.length > 0) onSessionsEnded()
    const { setting } = news
    writeRotation(news).catch(err =>
      log.error({ err, setting }, 'the audit trail does not have this rotation yet; it is tried again')
    )
  }
  return watchedFiles({ paths: [...secretFiles.values()], onChange: () => secrets.refresh().forEach(take), timers })
}

function signsSessions (setting: string): boolean {
  return setting === 'GATEWAY_SESSION_SECRET' || setting.startsWith('issuers[')
}

/** What a test puts in the place of the real thing. */
export interface GatewayOptions extends Partial<Clock> {
  readonly timers?: Timers
  /** Closed with the gateway. */
  readonly store?: Store
  /** How often the housekeeping runs, ms. */
  readonly tidyEveryMs?: number
  readonly logTo?: DestinationStream
  /** Servers of callers that are on this machine. */
  readonly webhooks?: WebhookTest
  /** Where Turnstile's tokens are verified. */
  readonly siteverifyUrl?: string
}

/** A gateway that is ready to listen. */
export interface Gateway {
  readonly app: FastifyInstance
  /** What listens on the admin port, when there is one. */
  readonly adminApp: FastifyInstance | undefined
  readonly log: Logger
  /** Resolves to the origin it listens on. */
  listen (): Promise<string>
  /** One round of the housekeeping that otherwise runs every few seconds. */
  tidy (): Promise<void>
  /**
   * Refuses new requests, lets running ones finish within `upstream.drainMs`, cuts off and answers the rest, closes the
   * store.
   */
  close (): Promise<void>
  /** Ends the time that a `close` gives to what runs. */
  hurry (): void
}

/** Subjects and codes whose refusals are counted apart in an hour. */
const maxRefusals = 200

/** The composition root: settings → seams → Fastify. It reads like a contents page; what happens is told elsewhere. */
export async function createGateway (
  settings: Settings,
  {
    now = systemClock.now,
    elapsed = systemClock.elapsed,
    timers = nodeTimers(),
    store,
    tidyEveryMs = tidyMs,
    logTo,
    webhooks,
    siteverifyUrl
  }: GatewayOptions = {}
): Promise<Gateway> {
  const {
    host,
    port,
    adminPort,
    file: {
      upstream: { drainMs }
    }
  } = settings
  const log = logger({
    level: settings.logLevel,
    buffered: !process.stdout.isTTY,
    ...(logTo === undefined ? {} : { destination: logTo })
  })
  const numbers = metrics(longestOf(settings))
  const parts = await createServices(settings, log, { now, elapsed, timers, store, webhooks, siteverifyUrl }, numbers)
  const audit = openAudit(settings, parts)
  const streams = eventStreams({ ...parts, ...settings.file.limits, revocations: parts.store.revocations })
  const { main, admin } = await openListeners(settings, parts, { log, numbers, streams, refused: audit.refused })

  const chores = [
    audit.keep,
    parts.times.note,
    parts.store.ping,
    parts.tidyResults,
    holdKeys(parts),
    deliveries(parts),
    crowding(parts, log)
  ]
  const { runOnce: tidy } = openHousekeeping(parts, log, chores)
  const failed = (when: string) => (error: unknown) => log.error({ err: error, owed: parts.patient.pending }, when)
  const timer = setInterval(() => {
    tidy().catch(failed('housekeeping failed; it is tried again'))
  }, tidyEveryMs).unref()
  const secretFiles = followSecrets(settings, parts, log, {
    onSessionsEnded: streams.renew,
    writeRotation: audit.writeRotation
  })
  const hurry = Promise.withResolvers<void>()
  await audit.keep().catch(failed('the audit trail does not have the settings yet; it is tried again'))
  await holdKeys(parts)().catch(failed('the other replicas do not know our keys yet; it is tried again'))
  warnOfGoneKeys(parts, log).catch(failed('tasks whose key is gone could not be counted'))

  return {
    app: main.app,
    adminApp: admin?.app,
    log,
    tidy,
    async listen () {
      await admin?.app.listen({
        host,
        port: adminPort!,
        listenTextResolver: address => `admin and metrics on ${address}`
      })
      return await main.app.listen({ host, port, listenTextResolver: address => `listening on ${address}` })
    },
    async close () {
      clearInterval(timer)
      secretFiles.close()
      streams.close()
      const cutOff = (): void => {
        parts.patient.hurry()
        parts.upstream.close().catch(failed('the calls to the upstream could not be ended'))
      }
      const drain = { drainMs, hurried: hurry.promise, cutOff }
      await Promise.all([main.drain(drain), admin?.drain(drain)])
      parts.watching.close()
      await parts.upstream.close()
      await parts.callbacks.close()
      await parts.deliverer.close()
      await parts.results.close()
      await tidy().catch(failed('the last housekeeping failed'))
      await audit.refused.flush(true).catch(failed('the last refusals are not in the audit trail'))
      await parts.store.close()
      log.flush()
    },
    hurry: hurry.resolve
  }
}

/** Tells the other replicas which keys this one has. */
function holdKeys ({ store: { heldKeys }, keys }: Services): () => Promise<void> {
  return async () => { await heldKeys?.hold(keys.states().map(({ keyId }) => keyId)) }
}

/** After a key was replaced while nothing ran: how many tasks have to be asked about with another key. */
async function warnOfGoneKeys ({ store: { unfinished }, keys, now }: Services, log: Logger): Promise<void> {
  for (const [keyId, count] of await tasksOfGoneKeys({ unfinished, keys, now })) {
    log.warn(
      { alarm: 'key-gone', keyId, count },
      'unfinished tasks belong to a key that is not in the ring: the other keys are asked about them'
    )
  }
}

/** How long a request may last, ms: one that waits for its body, the upstream, and a store that has gone away. */
function longestOf ({ file: { upstream: { connectMs, headersMs, bodyIdleMs } } }: Settings): number {
  return 2 * bodyIdleMs + connectMs + headersMs + patienceMs
}

/** On one of all replicas. */
function deliveries ({ store, deliverer }: Services): () => Promise<void> {
  return async () => { if (await store.leads()) await deliverer.runOnce() }
}

/** Whoever repeats more lost submits than are remembered may pay for some of them again. */
function crowding ({ store: { repeats } }: Services, log: Logger): () => Promise<void> {
  return async () => {
    for (const subject of repeats.crowded()) {
      log.error({ alarm: 'repeats', subject }, 'more lost submits than are remembered: the oldest may be made again')
    }
  }
}

/** What goes into the audit trail by itself, and not with a request. */
function openAudit (settings: Settings, { store: { audit: trail }, now, elapsed }: Services) {
  const refused = rejectionCounter({ trail, now, elapsed, maxRows: maxRefusals })
  const record = settingsRecord(trail, shownSettings(settings), now)
  const rotated = rotations(trail, now)
  return {
    refused,
    writeRotation: rotated.write,
    async keep (): Promise<void> {
      await record.write()
      await refused.flush()
      await rotated.flush()
    }
  }
}

interface Observers {
  readonly log: Logger
  readonly numbers: Metrics
  readonly refused: RejectionCounter
  readonly streams: EventStreams
}

/** The main port, and the admin port when there is one: what is for the operator is on one of the two only. */
async function openListeners (settings: Settings, parts: Services, { log, numbers, refused, streams }: Observers) {
  const { adminPort, trustProxy, allowedOrigins, publicUrl, file: { limits, upstream } } = settings
  const uploads = boundedUploads({ ...limits, timers: parts.timers })
  const endings: ListenerOptions['endings'] = [
    accessLine(log),
    numbers.ended,
    // An outage is nobody's refusal: what is our own trouble has a status of 500 and more.
    ({ call }, { statusCode }) => {
      if (call.code !== 'OK' && !call.granted && statusCode < 500) {
        refused.count(call.code, call.stage, call.session?.subject ?? null)
      }
    },
    ({ call }) => uploads.release(call),
    announcement(parts)
  ]
  const common = { ...limits, stallMs: upstream.bodyIdleMs, log, elapsed: parts.elapsed, trustProxy, endings }
  numbers.watch({ keys: parts.keys, ping: parts.store.ping, eventStreams: () => streams.count })
  const main = await listener({
    ...common,
    allowedOrigins,
    originsSetting: 'GATEWAY_ALLOWED_ORIGINS',
    ownOrigin: ownOrigins(publicUrl)
  })
  await registerRoutes(main.app, settings, parts, { log, uploads, numbers, streams })
  if (adminPort === undefined) return { main }
  const admin = await listener({
    ...common,
    allowedOrigins: [],
    originsSetting: null,
    ownOrigin: ownOrigins(undefined)
  })
  await withMethods(admin.app, async () => {
    healthRoutes(admin.app, parts.store.ping)
    await registerOperatorRoutes(admin.app, settings, parts, numbers)
  })
  return { main, admin }
}

function openHousekeeping (
  { store, patient, ...parts }: Services,
  log: Logger,
  chores: ReadonlyArray<() => Promise<void>>
): Maintenance {
  return maintenance({
    patient,
    store,
    jobs: chores,
    reconciler: reconciler({ ...parts, ...store, end: refreshTask({ ...parts, ...store }) }),
    onUnknown: count => log.error({ alarm: 'unknown-outcome', count }, 'tasks without a known end')
  })
}
