import type { FastifyInstance } from 'fastify'
import { readFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import type { Logger } from 'pino'
import { jwtSessions } from './adapters/jwt-sessions/jwt-sessions.ts'
import { localPollLeases } from './adapters/local.ts'
import { signedSessions } from './adapters/signed-sessions.ts'
import type { ClientOptions } from './adapters/undici/client.ts'
import { undiciResults } from './adapters/undici/results.ts'
import { undiciUpstream } from './adapters/undici/upstream.ts'
import { undiciWebhooks, type UndiciWebhooksOptions } from './adapters/undici/webhooks.ts'
import { caps } from './domain/caps.ts'
import { goneKeys } from './domain/gone-keys.ts'
import { type KeyRing, keyRing, readProbe } from './domain/key-ring.ts'
import { type LedgerClient, ledgerClient } from './domain/ledger-client.ts'
import { intervalBy, officialModels, plans as compilePlans } from './domain/policy.ts'
import { freeModels, priceList, pricing } from './domain/prices.ts'
import type { ResultSource } from './domain/results.ts'
import type { Secret, SecretRef } from './domain/secret.ts'
import { issueTimes, mintedInTime } from './domain/session.ts'
import { slotSearch } from './domain/slot-search.ts'
import { refreshTask, statusPoller, type StatusPoller } from './domain/status-poller.ts'
import { sharedProbe, type Store } from './domain/store.ts'
import type { TaskEvents } from './domain/task-status.ts'
import { type Clock, dayMs, type Timers } from './domain/time.ts'
import { balancePath, type Upstream, type UpstreamKey } from './domain/upstream.ts'
import { callbackAddresses, callbacks } from './features/callbacks/inbound.ts'
import {
  type CallbackHosts, callbackHosts, type WebhookDispatcher, webhookDispatcher
} from './features/callbacks/outbound.ts'
import { eventStreams } from './features/events/sse.ts'
import { taskWatchers } from './features/events/task-watcher.ts'
import { guests } from './features/guests/guests.ts'
import { altchaProofs, turnstileProofs } from './features/guests/proofs.ts'
import { type KeptResults, resultCache } from './features/results/copies.ts'
import { resultTickets, type ResultTickets } from './features/results/tickets.ts'
import { teamTokens } from './features/tokens/tokens.ts'
import {
  type AuthenticateOperator, authenticator, operatorAuthenticator, ownOrigins, sessionGate
} from './http/authenticate.ts'
import type { SubmitRules } from './http/authorize.ts'
import type { BodyBudget } from './http/body-budget.ts'
import type { Metrics } from './http/observe.ts'
import { subjectRates } from './http/rates.ts'
import { earliest } from './http/repeats.ts'
import type { GuestSessions, InboundCallbacks, Services } from './http/services.ts'
import { sessionCookie } from './http/session-cookie.ts'
import type { LiveSecrets, Settings } from './settings.ts'
import { patienceMs } from './stores.ts'

const { version } = JSON.parse(readFileSync(join(import.meta.dirname, '../package.json'), 'utf8')) as {
  readonly version: string
}
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
  readonly events: TaskEvents
  readonly bodyBudget: BodyBudget
  /** What is opened here is closed with it, in the opposite order. */
  readonly closing: AsyncDisposableStack
  readonly test: Elsewhere
}

/** Makes all that routes work with, from the settings and the store, which no route sees. */
export async function createServices (settings: Settings, ground: Ground): Promise<Services> {
  const { store, secrets, clock, timers, log, metrics, events, bodyBudget, closing } = ground
  const { now, elapsed } = clock
  const { file, models, publicUrl = null, allowedOrigins } = settings
  const client = upstreamClient(settings)
  const intervalOf = intervalBy(file.polling, models)

  const { results, cache } = openResults(settings, client, ground)
  const ledger = openLedger(ground, cache)
  const upstream = closing.adopt(undiciUpstream(client), it => it.close())
  const keys = openKeys(settings, upstream, log, clock)
  const poller = openPoller(settings, { upstream, keys, ledger }, ground)
  const watcher = closing.adopt(
    taskWatchers({ poller, events, ledger, intervalOf, timers, now }), it => it.close()
  )
  const slots = slotSearch({
    records: store.records, ledger, refreshTask: refreshTask({ ledger, poller }), intervalOf, timers, elapsed
  })
  const hosts = callbackHosts(file.callbacks.allowedHosts)
  const webhooks = openWebhooks(hosts, client, ground)
  const callbacks = openCallbacks(settings, { upstream, keys, ledger, poller }, ground)
  const sessions = await openSessions(settings, ground)

  return {
    clock,
    timers,
    log,
    metrics,
    probeStore: sharedProbe(store.ping, elapsed),
    upstream,
    keys,
    ledger,
    accounts: store.accounts,
    records: store.records,
    repeats: store.repeats,
    earliest: earliest({ idempotency: store.idempotency, repeats: store.repeats, timers }),
    audit: store.audit,
    poller,
    watcher,
    events,
    slots,
    bodyBudget,
    rates: subjectRates(ground.app, { counter: store.rates, onStoreError: file.limits.onStoreError }),
    streams: sessions.streams,
    authenticate: sessions.authenticate,
    verifiers: sessions.verifiers,
    issuer: sessions.issuer,
    issueTimes: sessions.issueTimes,
    revocations: sessions.revocations,
    cookie: sessions.cookie,
    plans: sessions.plans,
    lifetimes: file.sessions,
    issuerToken: secrets.issuerToken,
    tokens: store.tokens,
    authenticateOperator: openAdmin(settings, secrets),
    ownOrigin: sessions.ownOrigin,
    publicUrl,
    allowedOrigins,
    submitRules: submitRules(settings, hosts, callbacks),
    models,
    listedPrice: priceList(file.prices),
    results,
    tickets: openTickets(settings, ledger, ground),
    tidyResults: cache === null ? null : cache.tidy,
    webhooks,
    deliveries: store.deliveries,
    callbacks,
    guests: openGuests(settings, ground)
  }
}

function upstreamClient ({ tasksBaseUrl, file: { upstream } }: Settings): ClientOptions {
  const { connectMs, headersMs, bodyIdleMs, keepAliveMs } = upstream
  const userAgent = `apixo-gateway/${version}`
  return { baseUrl: tasksBaseUrl, connectMs, headersMs, bodyIdleMs, keepAliveMs, userAgent }
}

/** Results come from their hosts, or from copies that are made as soon as a task has ended. */
function openResults (
  { store: place, file: { results: { keep, hosts, maxBytes }, tasks } }: Settings,
  client: ClientOptions,
  { store, clock: { now, elapsed }, log, closing }: Ground
): { readonly results: ResultSource, readonly cache: KeptResults | null } {
  const source = closing.adopt(undiciResults({ ...client, hosts, maxBytes }), it => it.close())
  if (keep === 'none') return { results: source, cache: null }
  const directory = place.kind === 'sqlite' && place.path !== ':memory:'
    ? join(dirname(place.path), 'results')
    : resolve('data/results')
  const cache = closing.adopt(resultCache({
    directory,
    results: source,
    taskOf: store.ledger.taskOf,
    retentionMs: tasks.retentionDays * dayMs,
    now,
    elapsed,
    onTrouble: (err, taskId) =>
      log.warn({ err, taskId }, 'a result could not be kept; it is tried again when somebody asks for it')
  }), it => it.close())
  return { results: cache, cache }
}

function openTickets (
  { file: { results: { ticketSeconds } } }: Settings,
  { taskOf }: LedgerClient,
  { secrets: { sessionSecrets }, clock: { now } }: Ground
): ResultTickets {
  return resultTickets({ secrets: sessionSecrets, ticketSeconds, taskOf, now })
}

function openLedger (
  { store, metrics, log, clock: { elapsed } }: Ground, cache: Pick<KeptResults, 'keep'> | null
): LedgerClient {
  return ledgerClient(store.ledger, {
    metrics,
    onSucceeded: taskId => cache?.keep(taskId),
    elapsed,
    wait,
    patienceMs,
    onDelayed: (reservation, { to, taskId }: { readonly to: string, readonly taskId?: string | undefined }) =>
      log.error(
        { alarm: 'store-down', reservation, to, taskId },
        'the store did not take this step; it is kept and tried again'
      )
  })
}

function openKeys (
  { apiKeys, file: { tasks } }: Settings,
  upstream: Upstream,
  log: Logger,
  { now, elapsed }: Clock
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
    onChange: (keyId, state) => state === 'ready'
      ? log.info({ keyId }, 'the key is back in use')
      : log.error({ alarm: 'key-benched', keyId, state }, 'the upstream does not serve this key; it is benched')
  })
}

export function upstreamKey (secret: Secret): UpstreamKey {
  return { id: secret.fingerprint, secret }
}

function openPoller (
  { file: { polling, upstream: { connectMs, headersMs, bodyIdleMs } }, models }: Settings,
  { upstream, keys, ledger }: Pick<Services, 'upstream' | 'keys' | 'ledger'>,
  { store, events, timers, clock: { now, elapsed }, log }: Ground
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
      log.error(
        { alarm: 'unknown-outcome', taskId, keyId },
        'the key of this task is gone, and no other knows the task: it is given up, and stays charged'
      )
  })
  const leases = store.leases ?? localPollLeases({ elapsed, leaseMs: answerMs + bodyIdleMs })
  return statusPoller({
    upstream, keys, goneKeys: gone, ledger, leases, events, intervalOf, answerMs, timers, now, elapsed
  })
}

/** Tells the servers of callers how their tasks have ended. */
function openWebhooks (
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

/** Hears from the upstream how tasks have ended, when the operator has opened that. */
function openCallbacks (
  { file, models, publicUrl }: Settings,
  { upstream, keys, ledger, poller }: Pick<Services, 'upstream' | 'keys' | 'ledger' | 'poller'>,
  { store, events, timers, clock: { now, elapsed }, log, closing }: Ground
): InboundCallbacks | null {
  if (!file.callbacks.inbound) return null
  const { find, handle, close } = callbacks({
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
  })
  closing.defer(close)
  return { find, handle, close, newAddress: callbackAddresses(publicUrl!) }
}

/** Who may call, how that is found out, and whose streams end when it is over. */
async function openSessions (
  { file, publicUrl }: Settings,
  { app, store, secrets, timers, clock, log }: Ground
) {
  const { now, elapsed } = clock
  const { tokenSessions, revocations } = teamTokens(store, clock)
  const times = issueTimes({ revocations, now })
  const streams = eventStreams({ streamsPerSubject: file.limits.streamsPerSubject, revocations, timers, now })
  const issuer = mintedInTime(signedSessions({ secrets: secrets.sessionSecrets, now }), times)
  const issued = jwtSessions({
    issuers: file.issuers,
    secrets: secrets.issuerSecrets,
    now,
    elapsed,
    onKeysFailed: (issuer, err) =>
      log.warn(
        { alarm: 'issuer-keys', issuer, err },
        'the keys of an issuer can not be read; those known before stay in use'
      ),
    // A caller that comes back with a token under a key that is gone is refused.
    onKeysChanged: streams.renew
  })
  const verifiers = [tokenSessions, issuer, issued]
  const plans = compilePlans(file.plans)
  const ownOrigin = ownOrigins(publicUrl)
  const { cookieMaxAgeSeconds, maxTtlSeconds } = file.sessions
  const cookie = await sessionCookie(app, { issuer, cookieMaxAgeSeconds, maxTtlSeconds, ownOrigin, now })
  const { passes, onVouched } = sessionGate(app, { verifiers, own: issuer, cookie, timeoutMs: verifierMs })
  app.letPass(passes)
  const authenticate = authenticator({
    verifiers, revocations, plans, cookie, ownOrigin, timeoutMs: verifierMs, onVouched
  })
  return { authenticate, verifiers, issuer, issueTimes: times, revocations, cookie, plans, ownOrigin, streams }
}

/** Whoever has an admin token at the start has one for good: a file that was emptied changes nothing. */
function openAdmin ({ adminToken }: Settings, secrets: LiveSecrets): AuthenticateOperator | null {
  return adminToken === undefined ? null : operatorAuthenticator(secrets.adminToken as SecretRef<Secret>)
}

function submitRules (
  { file: { submit, prices, caps: capRules }, models }: Settings,
  hosts: CallbackHosts,
  inbound: InboundCallbacks | null
): SubmitRules {
  return {
    extraFields: new Set(submit.fields),
    mayBeOfficial: officialModels(models),
    checkCallbackUrl: hosts.isEmpty ? null : hosts.check,
    newCallbackAddress: inbound === null ? null : inbound.newAddress,
    isFree: freeModels(prices),
    priceOf: pricing(prices, capRules),
    enforceCaps: caps(capRules)
  }
}

/** Sessions for anybody, when the operator has opened them. */
function openGuests (
  { file: { guests: { enabled, plan, proof, sessionsPerAddressPerDay } }, allowedOrigins, publicUrl }: Settings,
  { store, secrets, clock: { now }, test: { siteverifyUrl } }: Ground
): GuestSessions | null {
  if (!enabled) return null
  const altcha = proof === 'work' ? altchaProofs({ secrets: secrets.sessionSecrets, now }) : null
  const hostnames = new Set([...allowedOrigins, publicUrl ?? []].flat().map(origin => new URL(origin).hostname))
  // Settings that ask for Turnstile have its secret, and a file that is emptied later changes nothing.
  const secret = secrets.turnstileSecret as SecretRef<Secret>
  const turnstile = proof === 'turnstile' ? turnstileProofs({ secret, hostnames, now, url: siteverifyUrl }) : null
  const { admit, prove } = guests({
    proofs: altcha ?? turnstile,
    spent: store.spentProofs,
    counts: store.guestCounts,
    sessionsPerAddressPerDay
  })
  return { admit, prove, challenges: altcha, plan }
}
