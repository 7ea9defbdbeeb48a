import type { FastifyInstance } from 'fastify'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import type { Logger } from 'pino'
import { jwtSessions } from './adapters/jwt-sessions/jwt-sessions.ts'
import { localPollLeases } from './adapters/local.ts'
import { signedSessions } from './adapters/signed-sessions.ts'
import { undiciPassing } from './adapters/undici/passing.ts'
import { undiciResults } from './adapters/undici/results.ts'
import { type ClientOptions, undiciUpstream } from './adapters/undici/upstream.ts'
import { undiciWebhooks, type UndiciWebhooksOptions } from './adapters/undici/webhooks.ts'
import type { AlarmBoard } from './domain/alarms.ts'
import { caps } from './domain/caps.ts'
import { ceilings } from './domain/ceilings.ts'
import { creditNotices } from './domain/credit-notices.ts'
import { goneKeys } from './domain/gone-keys.ts'
import { type KeyRing, keyRing, readProbe } from './domain/key-ring.ts'
import { type LedgerClient, ledgerClient } from './domain/ledger-client.ts'
import { intervalBy, officialModels, plans as compilePlans } from './domain/policy.ts'
import { freeModels, priceList, quotes } from './domain/prices.ts'
import { hasTokenPrices, tokenPrices } from './domain/token-prices.ts'
import type { ResultSource } from './domain/results.ts'
import type { Secret, SecretRef } from './domain/secret.ts'
import { issueTimes, mintedInTime, type Revocations } from './domain/session.ts'
import { refreshTask, type SlotSearch, slotSearch, statusPoller, type StatusPoller } from './domain/status-poller.ts'
import { sharedProbe, type Store } from './domain/store.ts'
import type { TaskEvents } from './domain/task-status.ts'
import { type Clock, dayMs, type Timers } from './domain/time.ts'
import { balancePath, type Upstream, type UpstreamKey } from './domain/upstream.ts'
import type { Deliveries } from './domain/webhooks.ts'
import { loadZones } from './domain/windows.ts'
import type { Callbacks } from './features/callbacks/inbound.ts'
import { callbackHosts, type WebhookDispatcher, webhookDispatcher } from './features/callbacks/outbound.ts'
import type { EventServices } from './features/events/routes.ts'
import { eventStreams } from './features/events/sse.ts'
import { taskWatchers } from './features/events/watchers.ts'
import type { Guests } from './features/guests/guests.ts'
import type { OperatorServices } from './features/admin/subjects.ts'
import type { LlmServices } from './features/llm/routes.ts'
import type { KeptResults } from './features/results/copies.ts'
import { resultLinks, type ResultServices, resultTickets, type ResultTickets } from './features/results/routes.ts'
import { teamTokens, type TeamTokens } from './features/tokens/tokens.ts'
import {
  type AuthenticateOperator, authenticator, operatorAuthenticator, ownOrigins, sessionGate
} from './http/authenticate.ts'
import type { SubmitRules } from './http/authorize.ts'
import type { BodyBudget } from './http/body-budget.ts'
import type { Metrics } from './http/observe.ts'
import { localRates, type Rates, subjectRates } from './http/rates.ts'
import { earliest } from './http/repeats.ts'
import type { Services } from './http/services.ts'
import { sessionCookie } from './http/session-cookie.ts'
import { refuseGuest } from './http/stages.ts'
import type { LiveSecrets, Settings } from './settings.ts'
import { patienceMs } from './stores.ts'

const { version } = JSON.parse(readFileSync(join(import.meta.dirname, '../package.json'), 'utf8')) as {
  readonly version: string
}
/** Counts of requests that are kept in this process, one for each subject and limit. */
const maxRateKeys = 150_000
/** A verifier that has not answered by then vouches for nobody, ms. */
const verifierMs = 5000

/** What is elsewhere than in the world, for tests. */
export interface Elsewhere {
  /** Servers of callers that are on this machine. */
  readonly webhooks?: Pick<UndiciWebhooksOptions, 'ca' | 'resolve' | 'isAllowed' | 'timeoutMs'> | undefined
  /** In place of Cloudflare's, where Turnstile's tokens are verified. */
  readonly siteverifyUrl?: string | undefined
}

/** What the services stand on. */
interface Ground {
  /** The main port. */
  readonly app: FastifyInstance
  readonly store: Store
  readonly secrets: LiveSecrets
  readonly clock: Clock
  readonly timers: Timers
  readonly log: Logger
  readonly metrics: Metrics
  readonly alarms: AlarmBoard
  readonly events: TaskEvents
  readonly bodyBudget: BodyBudget
  /** What is opened here is closed with it, in the opposite order. */
  readonly closing: AsyncDisposableStack
  readonly test: Elsewhere
}

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

interface Created { readonly services: Services, readonly features: Features }

/** Makes all that routes work with, from the settings and the store, which no route sees. */
// eslint-disable-next-line max-lines-per-function -- one list of all that exists, each part on a line
export async function createServices (settings: Settings, ground: Ground): Promise<Created> {
  const { store, secrets, clock, timers, log, metrics, alarms, events, bodyBudget, closing } = ground
  const { file, models, publicUrl = null, allowedOrigins } = settings
  const client = upstreamClient(settings)

  const { source, copies } = await openResults(settings, client, ground)
  const ledger = openLedger(ground, copies)
  const upstream = closing.adopt(undiciUpstream(client), it => it.close())
  const keys = openKeys(settings, upstream, ground)
  const poller = openPoller(settings, { upstream, keys, ledger }, ground)
  const tokens = teamTokens(store, clock)
  const { streams, watcher } = openEvents(settings, tokens.revocations, { poller, ledger }, ground)
  const webhooks = openWebhooks(settings, client, ground)
  const callbacks = await openCallbacks(settings, { upstream, keys, ledger, poller }, ground)
  const guests = await openGuests(settings, ground)
  // A caller that comes back with a token under a key that is gone is refused.
  const sessions = await openSessions(settings, tokens, streams.renew, ground)
  const tickets = openTickets(settings, ledger, ground)

  return {
    services: {
      clock,
      timers,
      log,
      metrics,
      alarms,
      probeStore: sharedProbe(store.ping, clock.elapsed),
      upstream,
      keys,
      ledger,
      accounts: store.accounts,
      ceilings: await openCeilings(settings, ground),
      creditNotices: closing.adopt(creditNotices(store.creditsEvents), it => it.close()),
      records: store.records,
      repeats: store.repeats,
      earliest: earliest({ idempotency: store.idempotency, repeats: store.repeats, timers }),
      audit: store.audit,
      poller,
      events,
      slots: openSlots(settings, { ledger, poller }, ground),
      bodyBudget,
      rates: openRates(settings, ground),
      authenticate: sessions.authenticate,
      verifiers: sessions.verifiers,
      issuer: sessions.issuer,
      issueTimes: sessions.issueTimes,
      revocations: tokens.revocations,
      cookie: sessions.cookie,
      plans: sessions.plans,
      pools: sessions.pools,
      lifetimes: file.sessions,
      issuerToken: secrets.issuerToken,
      tokens: store.tokens,
      authenticateOperator: openAdmin(settings, secrets),
      ownOrigin: sessions.ownOrigin,
      publicUrl,
      allowedOrigins,
      submitRules: submitRules(settings, callbacks),
      proveGuest: guests?.prove ?? refuseGuest,
      models,
      listedPrice: priceList(file.prices),
      resultsOf: resultLinks(tickets, publicUrl)
    },
    features: {
      callbacks,
      deliveries: store.deliveries,
      events: { streams, watcher },
      guests,
      llm: openLlm(settings, client, ground),
      results: { source, tickets },
      operator: operatorServices(settings, store),
      jobs: [...(copies === null ? [] : [copies.tidy]), onLeader(store, webhooks.runOnce)]
    }
  }
}

function operatorServices (
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

/** What is set above the subjects, and what is left of it. */
async function openCeilings ({ file }: Settings, { store: { ceilings: accounts } }: Ground): Promise<Services['ceilings']> {
  const set = ceilings(file)
  if (set === null) return null
  await loadZones([file.gateway, ...Object.values(file.pools), ...Object.values(file.plans)])
  return { above: set.above, all: set.all, stateOf: holds => accounts.stateOf(holds) }
}

/** On one of all replicas. */
function onLeader (store: Pick<Store, 'leads'>, job: () => Promise<void>): () => Promise<void> {
  return async () => { if (await store.leads()) await job() }
}

export function upstreamClient ({ tasksBaseUrl, file: { upstream } }: Settings): ClientOptions {
  const { connectMs, headersMs, bodyIdleMs, keepAliveMs } = upstream
  const userAgent = `apixo-gateway/${version}`
  return { baseUrl: tasksBaseUrl, connectMs, headersMs, bodyIdleMs, keepAliveMs, userAgent }
}

/** LLM calls, once a model has a price per token: without one nothing may be sent. */
function openLlm (
  { llmBaseUrl, file: { prices, llm: { defaultMaxOutputTokens, askForUsage, headersMs, idleMs, totalMs } } }: Settings,
  client: ClientOptions,
  { store: { unknownCalls }, closing }: Ground
): LlmServices | null {
  if (!hasTokenPrices(prices)) return null
  const { connectMs, keepAliveMs, userAgent } = client
  const upstream = undiciPassing({
    baseUrl: llmBaseUrl, connectMs, headersMs, bodyIdleMs: idleMs, keepAliveMs, userAgent
  })
  return {
    upstream: closing.adopt(upstream, it => it.close()),
    priceOf: tokenPrices(prices),
    defaultMaxOutputTokens,
    askForUsage,
    totalMs,
    unknownCalls
  }
}

/** Results come from their hosts, or from copies that are made as soon as a task has ended. */
async function openResults (
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

function openTickets (
  { file: { results: { ticketSeconds } } }: Settings, { taskOf }: LedgerClient,
  { secrets: { sessionSecrets }, clock: { now } }: Ground
): ResultTickets {
  return resultTickets({ secrets: sessionSecrets, ticketSeconds, taskOf, now })
}

function openLedger (
  { store, metrics, alarms, clock: { elapsed } }: Ground, copies: Pick<KeptResults, 'keep'> | null
): LedgerClient {
  return ledgerClient(store.ledger, {
    metrics,
    onSucceeded: taskId => copies?.keep(taskId),
    elapsed,
    wait,
    patienceMs,
    onDelayed: (reservation, { to, taskId }: { readonly to: string, readonly taskId?: string | undefined }) =>
      alarms.raise({
        kind: 'store-down',
        about: '',
        fields: { reservation, to, taskId },
        text: 'the store did not take this step; it is kept and tried again'
      })
  })
}

function openKeys (
  { apiKeys, file: { tasks } }: Settings,
  upstream: Upstream,
  { alarms, log, clock: { now, elapsed } }: Ground
): KeyRing {
  return keyRing({
    keys: apiKeys.map(upstreamKey),
    probe: key =>
      upstream
        .send({ method: 'GET', path: balancePath, key })
        .answer.then(readProbe, () => ({ verdict: 'unclear', balance: null })),
    drainMs: tasks.giveUpMs,
    now,
    elapsed,
    onChange (keyId, state) {
      if (state === 'ready') {
        log.info({ keyId }, 'the key is back in use')
        alarms.clear('key-benched', keyId)
        return
      }
      alarms.raise({
        kind: 'key-benched',
        about: keyId,
        fields: { keyId, state },
        text: 'the upstream does not serve this key; it is benched'
      })
    }
  })
}

export function upstreamKey (secret: Secret): UpstreamKey {
  return { id: secret.fingerprint, secret }
}

function openPoller (
  { file: { polling, upstream: { connectMs, headersMs, bodyIdleMs } }, models }: Settings,
  { upstream, keys, ledger }: Pick<Services, 'upstream' | 'keys' | 'ledger'>,
  { store, events, timers, clock: { now, elapsed }, alarms }: Ground
): StatusPoller {
  const answerMs = connectMs + headersMs
  const intervalOf = intervalBy(polling, models)
  const gone = goneKeys({
    upstream,
    keys,
    held: store.heldKeys,
    ledger,
    intervalOf,
    elapsed,
    onGivenUp: ({ taskId, keyId }) =>
      alarms.raise({
        kind: 'unknown-outcome',
        about: '',
        fields: { taskId, keyId },
        text: 'the key of this task is gone, and no other knows the task: it is given up, and stays charged'
      })
  })
  const leases = store.leases ?? localPollLeases({ elapsed, leaseMs: answerMs + bodyIdleMs })
  return statusPoller({
    upstream, keys, goneKeys: gone, ledger, leases, events, intervalOf, answerMs, timers, now, elapsed
  })
}

function openSlots (
  { file: { polling }, models }: Settings, { ledger, poller }: Pick<Services, 'ledger' | 'poller'>,
  { store: { records }, timers, clock: { elapsed } }: Ground
): SlotSearch {
  const intervalOf = intervalBy(polling, models)
  return slotSearch({ records, ledger, refreshTask: refreshTask({ ledger, poller }), intervalOf, timers, elapsed })
}

function openRates (
  { file: { limits: { onStoreError } } }: Settings, { app, store, clock: { elapsed } }: Ground
): Rates {
  return subjectRates(app, { counter: store.rates ?? localRates({ elapsed, maxKeys: maxRateKeys }), onStoreError })
}

/** Tells the servers of callers how their tasks have ended. */
function openWebhooks (
  { file: { callbacks: { allowedHosts } } }: Settings,
  { userAgent, connectMs }: ClientOptions,
  { store, secrets, clock: { now }, log, closing, test }: Ground
): WebhookDispatcher {
  return closing.adopt(webhookDispatcher({
    deliveries: store.deliveries,
    sender: undiciWebhooks({ userAgent, connectMs, ...test.webhooks }),
    hosts: callbackHosts(allowedHosts),
    secrets: secrets.sessionSecrets,
    now,
    onGivenUp: (taskId, { status, error }) =>
      log.warn({ taskId, status, error }, 'the end of a task could not be delivered; it is given up'),
    onTrouble: err => log.warn({ err }, 'a delivery could not be kept; it is made again')
  }), it => it.close())
}

/** Tells pages and programs how their tasks are. */
function openEvents (
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
async function openCallbacks (
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

/** Who may call, and how that is found out. */
async function openSessions (
  { file, publicUrl }: Settings,
  { tokenSessions, revocations }: TeamTokens,
  onKeysChanged: () => void,
  { app, secrets, clock: { now, elapsed }, alarms }: Ground
) {
  const times = issueTimes({ revocations, now })
  const issuer = mintedInTime(signedSessions({ secrets: secrets.sessionSecrets, now }), times)
  const issued = jwtSessions({
    issuers: file.issuers,
    secrets: secrets.issuerSecrets,
    now,
    elapsed,
    onKeysFailed: (issuer, err) =>
      alarms.raise({
        kind: 'issuer-keys',
        about: issuer,
        fields: { issuer, err },
        text: 'the keys of an issuer can not be read; those known before stay in use'
      }, 'warn'),
    onKeysChanged
  })
  const verifiers = [tokenSessions, issuer, issued]
  const plans = compilePlans(file.plans)
  const pools = new Set(Object.keys(file.pools))
  const ownOrigin = ownOrigins(publicUrl)
  const { cookieMaxAgeSeconds, maxTtlSeconds } = file.sessions
  const cookie = await sessionCookie(app, { issuer, cookieMaxAgeSeconds, maxTtlSeconds, ownOrigin, now })
  const { passes, onVouched } = sessionGate(app, { verifiers, own: issuer, cookie, timeoutMs: verifierMs })
  app.letPass(passes)
  const authenticate = authenticator({
    verifiers, revocations, plans, pools, cookie, ownOrigin, timeoutMs: verifierMs, onVouched
  })
  return { authenticate, verifiers, issuer, issueTimes: times, cookie, plans, pools, ownOrigin }
}

/** Whoever has an admin token at the start has one for good: a file that was emptied changes nothing. */
function openAdmin ({ adminToken }: Settings, secrets: LiveSecrets): AuthenticateOperator | null {
  return adminToken === undefined ? null : operatorAuthenticator(secrets.adminToken as SecretRef<Secret>)
}

function submitRules (
  { file: { submit, prices, caps: capRules, callbacks: { allowedHosts } }, models }: Settings,
  inbound: Callbacks | null
): SubmitRules {
  const hosts = callbackHosts(allowedHosts)
  return {
    extraFields: new Set(submit.fields),
    mayBeOfficial: officialModels(models),
    checkCallbackUrl: hosts.isEmpty ? null : hosts.check,
    newCallbackAddress: inbound === null ? null : inbound.newAddress,
    isFree: freeModels(prices),
    quoteOf: quotes(prices, capRules),
    enforceCaps: caps(capRules)
  }
}

/** Sessions for anybody, when the operator has opened them. */
async function openGuests (
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
