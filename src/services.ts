import type { FastifyInstance } from 'fastify'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import type { Logger } from 'pino'
import { jwtSessions } from './adapters/jwt-sessions/jwt-sessions.ts'
import { localPollLeases } from './adapters/local.ts'
import { signedSessions } from './adapters/signed-sessions.ts'
import { type ClientOptions, undiciUpstream } from './adapters/undici/upstream.ts'
import type { UndiciWebhooksOptions } from './adapters/undici/webhooks.ts'
import type { AlarmBoard } from './domain/alarms.ts'
import { caps } from './domain/caps.ts'
import { ceilings } from './domain/ceilings.ts'
import { creditNotices } from './domain/credit-notices.ts'
import { goneKeys } from './domain/gone-keys.ts'
import { type KeyRing, keyRing, readProbe } from './domain/key-ring.ts'
import { type LedgerClient, ledgerClient } from './domain/ledger-client.ts'
import { intervalBy, officialModels, plans as compilePlans } from './domain/policy.ts'
import { freeModels, priceList, quotes } from './domain/prices.ts'
import type { Secret, SecretRef } from './domain/secret.ts'
import { issueTimes, mintedInTime } from './domain/session.ts'
import { refreshTask, type SlotSearch, slotSearch, statusPoller, type StatusPoller } from './domain/status-poller.ts'
import { sharedProbe, type Store } from './domain/store.ts'
import type { TaskEvents } from './domain/task-status.ts'
import type { Clock, Timers } from './domain/time.ts'
import { balancePath, type Upstream, type UpstreamKey } from './domain/upstream.ts'
import { loadZones } from './domain/windows.ts'
import {
  type Features, openCallbacks, openEvents, openGuests, openLlm, openResults, openTickets, openWebhooks,
  operatorServices
} from './features.ts'
import type { Callbacks } from './features/callbacks/inbound.ts'
import { type CallbackHosts, callbackHosts } from './features/callbacks/outbound.ts'
import type { KeptResults } from './features/results/copies.ts'
import { resultLinks } from './features/results/routes.ts'
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
export interface Ground {
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

interface Created { readonly services: Services, readonly features: Features }

/** Makes all that routes work with, from the settings and the store, which no route sees. */
// eslint-disable-next-line max-lines-per-function -- one list of all that exists, each part on a line
export async function createServices (settings: Settings, ground: Ground): Promise<Created> {
  const { store, secrets, clock, timers, log, metrics, alarms, events, bodyBudget, closing } = ground
  const { file, models, publicUrl = null, allowedOrigins } = settings
  const client = upstreamClient(settings)
  const hosts = callbackHosts(file.callbacks.allowedHosts)

  const { source, copies } = await openResults(settings, client, ground)
  const ledger = openLedger(ground, copies)
  const upstream = closing.adopt(undiciUpstream(client), it => it.close())
  const keys = openKeys(settings, upstream, ground)
  const poller = openPoller(settings, { upstream, keys, ledger }, ground)
  const tokens = teamTokens(store, clock)
  const { streams, watcher } = openEvents(settings, tokens.revocations, { poller, ledger }, ground)
  const webhooks = openWebhooks(hosts, client, ground)
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
      submitRules: submitRules(settings, hosts, callbacks),
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
  { file: { submit, prices, caps: capRules }, models }: Settings, hosts: CallbackHosts, inbound: Callbacks | null
): SubmitRules {
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
