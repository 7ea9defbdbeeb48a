import { undiciPassing } from './adapters/undici/passing.ts'
import { undiciResults } from './adapters/undici/results.ts'
import type { ClientOptions } from './adapters/undici/upstream.ts'
import { undiciWebhooks } from './adapters/undici/webhooks.ts'
import type { LedgerClient } from './domain/ledger-client.ts'
import { intervalBy } from './domain/policy.ts'
import type { ResultSource } from './domain/results.ts'
import type { Revocations } from './domain/session.ts'
import type { Store } from './domain/store.ts'
import { dayMs } from './domain/time.ts'
import { hasTokenPrices, isTokenRule, tokenPrices } from './domain/token-prices.ts'
import type { Deliveries } from './domain/webhooks.ts'
import type { OperatorServices } from './features/admin/subjects.ts'
import type { Callbacks } from './features/callbacks/inbound.ts'
import { type CallbackHosts, type WebhookDispatcher, webhookDispatcher } from './features/callbacks/outbound.ts'
import type { EventServices } from './features/events/routes.ts'
import { eventStreams } from './features/events/sse.ts'
import { taskWatchers } from './features/events/watchers.ts'
import type { Guests } from './features/guests/guests.ts'
import type { LlmServices } from './features/llm/routes.ts'
import type { KeptResults } from './features/results/copies.ts'
import { type ResultServices, resultTickets, type ResultTickets } from './features/results/routes.ts'
import type { Services } from './http/services.ts'
import type { Ground } from './services.ts'
import type { Settings } from './settings.ts'

/** What the optional products alone work with; `null`: the operator has not opened it, and nothing of it is loaded. */
export interface Features {
  readonly callbacks: Callbacks | null
  readonly deliveries: Deliveries
  readonly events: EventServices
  readonly guests: Guests | null
  readonly llm: LlmServices | null
  readonly results: ResultServices
  readonly operator: OperatorServices
  /** What they have to do now and then. */
  readonly jobs: ReadonlyArray<() => Promise<void>>
}

export function operatorServices (
  { store: place, file }: Settings, { deliveries, ceilings, subjects }: Store
): OperatorServices {
  return {
    deliveries,
    extras: { raise: extra => ceilings.raise(extra), rules: file },
    subjects,
    async forgetCopies (task) {
      const { copiesDirectory, forgetCopies } = await import('./features/results/copies.ts')
      await forgetCopies(copiesDirectory(place), task)
    }
  }
}

/** LLM calls, once a model has a price per token: without one nothing may be sent. */
export function openLlm (
  { llmBaseUrl, models, file: { prices, llm: settings } }: Settings,
  client: ClientOptions,
  { store: { unknownCalls, upstreamStates }, closing }: Ground
): LlmServices | null {
  if (!hasTokenPrices(prices)) return null
  const { defaultMaxOutputTokens, askForUsage, statefulFields } = settings
  const { headersMs, idleMs, totalMs, heartbeatMs, maxCalls } = settings
  const { connectMs, keepAliveMs, userAgent } = client
  const upstream = undiciPassing({
    baseUrl: llmBaseUrl, connectMs, headersMs, bodyIdleMs: idleMs, keepAliveMs, userAgent
  })
  return {
    upstream: closing.adopt(upstream, it => it.close()),
    priceOf: tokenPrices(prices),
    names: [
      ...models.filter(({ category }) => category === 'text').map(({ id }) => id),
      ...Object.entries(prices).filter(([, rule]) => isTokenRule(rule)).map(([name]) => name)
    ],
    defaultMaxOutputTokens,
    askForUsage,
    totalMs,
    heartbeatMs,
    maxCalls,
    unknownCalls,
    statefulFields,
    states: upstreamStates
  }
}

/** Results come from their hosts, or from copies that are made as soon as a task has ended. */
export async function openResults (
  { store: place, file: { results: { keep, hosts, maxBytes }, tasks } }: Settings,
  client: ClientOptions,
  { store, clock: { now, elapsed }, log, closing }: Ground
): Promise<{ readonly source: ResultSource, readonly copies: KeptResults | null }> {
  const source = closing.adopt(undiciResults({ ...client, hosts, maxBytes }), it => it.close())
  if (keep === 'none') return { source, copies: null }
  const { copiesDirectory, resultCache } = await import('./features/results/copies.ts')
  const copies = closing.adopt(resultCache({
    directory: copiesDirectory(place),
    results: source,
    taskOf: store.ledger.taskOf,
    retentionMs: tasks.retentionDays * dayMs,
    now,
    elapsed,
    onTrouble: (err, taskId) =>
      log.warn({ err, taskId }, 'a result could not be kept; it is tried again when somebody asks for it')
  }), it => it.close())
  return { source: copies, copies }
}

export function openTickets (
  { file: { results: { ticketSeconds } } }: Settings, { taskOf }: LedgerClient,
  { secrets: { sessionSecrets }, clock: { now } }: Ground
): ResultTickets {
  return resultTickets({ secrets: sessionSecrets, ticketSeconds, taskOf, now })
}

/** Tells the servers of callers how their tasks have ended. */
export function openWebhooks (
  hosts: CallbackHosts,
  { userAgent, connectMs }: ClientOptions,
  { store, secrets, clock: { now }, log, closing, test }: Ground
): WebhookDispatcher {
  return closing.adopt(webhookDispatcher({
    deliveries: store.deliveries,
    sender: undiciWebhooks({ userAgent, connectMs, ...test.webhooks }),
    hosts,
    secrets: secrets.sessionSecrets,
    now,
    onGivenUp: (taskId, { status, error }) =>
      log.warn({ taskId, status, error }, 'the end of a task could not be delivered; it is given up'),
    onTrouble: err => log.warn({ err }, 'a delivery could not be kept; it is made again')
  }), it => it.close())
}

/** Tells pages and programs how their tasks are. */
export function openEvents (
  { file: { limits: { streamsPerSubject }, polling }, models }: Settings,
  revocations: Revocations,
  { poller, ledger }: Pick<Services, 'poller' | 'ledger'>,
  { events, timers, clock: { now, elapsed }, closing }: Ground
): EventServices {
  const intervalOf = intervalBy(polling, models)
  const watcher = taskWatchers({ poller, events, ledger, intervalOf, timers, now, elapsed })
  return {
    streams: eventStreams({ streamsPerSubject, revocations, timers, now, elapsed }),
    watcher: closing.adopt(watcher, it => it.close())
  }
}

/** Hears from the upstream how tasks have ended, when the operator has opened that. */
export async function openCallbacks (
  { file, models, publicUrl }: Settings,
  { upstream, keys, ledger, poller }: Pick<Services, 'upstream' | 'keys' | 'ledger' | 'poller'>,
  { store, events, timers, clock: { now, elapsed }, log, closing }: Ground
): Promise<Callbacks | null> {
  if (!file.callbacks.inbound) return null
  const { callbacks } = await import('./features/callbacks/inbound.ts')
  return closing.adopt(callbacks({
    publicUrl: publicUrl!,
    secrets: store.callbackSecrets,
    ledger,
    upstream,
    keys,
    poller,
    events,
    intervalOf: intervalBy(file.polling, models),
    timers,
    now,
    elapsed,
    onAnomaly: ({ reservation }, oddity) =>
      log.warn({ reservation, oddity }, 'a callback said what can not be so; it is ignored'),
    onFound: ({ reservation }, taskId) =>
      log.info({ reservation, taskId }, 'a callback named the task of a submit whose answer had not come'),
    onTrouble: ({ reservation }, err) =>
      log.warn({ reservation, err }, 'a callback could not be looked into; the task is asked about later')
  }), it => it.close())
}

/** Sessions for anybody, when the operator has opened them. */
export async function openGuests (
  { file: { guests: settings }, allowedOrigins, publicUrl }: Settings,
  { store, secrets: { sessionSecrets, turnstileSecret }, clock: { now }, test: { siteverifyUrl } }: Ground
): Promise<Guests | null> {
  if (!settings.enabled) return null
  const { guests } = await import('./features/guests/guests.ts')
  return guests({
    settings,
    origins: [...allowedOrigins, ...(publicUrl === undefined ? [] : [publicUrl])],
    sessionSecrets,
    turnstileSecret,
    siteverifyUrl,
    spent: store.spentProofs,
    counts: store.guestCounts,
    now
  })
}
