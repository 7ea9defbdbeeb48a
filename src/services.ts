import { readFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import type { Logger } from 'pino'
import { altchaProofs, turnstileProofs } from './adapters/guest-proofs.ts'
import { type KeptResults, resultCache } from './adapters/kept-results.ts'
import { localEvents, localTurns } from './adapters/local.ts'
import { undiciResults, type UndiciResultsOptions } from './adapters/undici-results.ts'
import { undiciUpstream } from './adapters/undici-upstream.ts'
import { undiciWebhooks, type UndiciWebhooksOptions } from './adapters/undici-webhooks.ts'
import { type CallbackAddress, callbackAddresses, type Callbacks, callbacks } from './domain/callbacks.ts'
import { goneKeys } from './domain/gone-keys.ts'
import { type Guests, guests, type ProofChallenges } from './domain/guests.ts'
import { type KeyRing, keyRing, readProbe } from './domain/key-ring.ts'
import {
  type CreditMetrics, keepingLedger, meteredLedger, type PatientLedger, patientLedger
} from './domain/ledger-client.ts'
import type { TaskLedger } from './domain/ledger.ts'
import { intervalBy } from './domain/policy.ts'
import { type ResultSource, resultTickets, type ResultTickets } from './domain/results.ts'
import type { SecretRef, Secret } from './domain/secret.ts'
import { type IssueTimes, issueTimes, type SessionVerifier } from './domain/session.ts'
import {
  type SlotSearch, slotSearch, type StatusPoller, statusPoller, refreshTask, type TaskEvents
} from './domain/status-poller.ts'
import { sharedProbe, type Store } from './domain/store.ts'
import { type TaskWatchers, taskWatchers } from './domain/task-watcher.ts'
import type { Clock, Timers } from './domain/time.ts'
import { teamTokens } from './domain/tokens.ts'
import { balancePath, type Upstream, type UpstreamKey } from './domain/upstream.ts'
import { callbackHosts, type CallbackHosts, type WebhookDispatcher, webhookDispatcher } from './domain/webhooks.ts'
import { type LiveSecrets, liveSecrets, type Settings } from './settings.ts'
import { dayMs, openStore, patienceMs } from './stores.ts'

/** What the upstream tells us, and what we tell the servers of callers. */
export interface CallbackParts {
  readonly callbacks: Callbacks
  /** Makes the address that the upstream is to call with the end of a task; it is not asked to without it. */
  readonly callbackAddress: (() => CallbackAddress) | undefined
  readonly callbackHosts: CallbackHosts
  readonly deliverer: WebhookDispatcher
}

export interface CallbackPartsOptions extends Clock {
  readonly store: Store
  readonly patient: PatientLedger
  readonly upstream: Upstream
  readonly keys: KeyRing
  readonly desk: StatusPoller
  readonly events: TaskEvents
  readonly timers: Timers
  readonly log: Logger
  readonly sessionSecrets: SecretRef<readonly Secret[]>
  readonly webhooks: UndiciWebhooksOptions
}

export function openCallbacks ({ file, models, publicUrl }: Settings, options: CallbackPartsOptions): CallbackParts {
  const { store, log, sessionSecrets, now } = options
  const hosts = callbackHosts(file.callbacks.allowedHosts)
  return {
    callbackHosts: hosts,
    callbackAddress: file.callbacks.inbound ? callbackAddresses(publicUrl!) : undefined,
    callbacks: callbacks({
      ...options,
      secrets: store.callbackSecrets,
      ledger: store.ledger,
      intervalOf: intervalBy(file.polling, models),
      onOdd: ({ reservation }, oddity) =>
        log.warn({ reservation, oddity }, 'a callback said what can not be so; it is ignored'),
      onFound: ({ reservation }, taskId) =>
        log.info({ reservation, taskId }, 'a callback named the task of a submit whose answer had not come'),
      onTrouble: ({ reservation }, err) =>
        log.warn({ reservation, err }, 'a callback could not be looked into; the task is asked about later')
    }),
    deliverer: webhookDispatcher({
      deliveries: store.deliveries,
      courier: undiciWebhooks(options.webhooks),
      hosts,
      secrets: sessionSecrets,
      now,
      onGivenUp: (taskId, { status, error }) =>
        log.warn({ taskId, status, error }, 'the end of a task could not be delivered; it is given up'),
      onTrouble: err => log.warn({ err }, 'a delivery could not be kept; it is made again')
    })
  }
}

export interface GuestParts {
  /** `undefined`: there are none. */
  readonly guests: Guests | undefined
  /** `null`: guests solve nothing of ours. */
  readonly challenges: ProofChallenges | null
}

export interface GuestTerms {
  readonly store: Store
  readonly now: () => number
  /** In place of Cloudflare's, for tests. */
  readonly siteverifyUrl: string | undefined
  readonly secrets: Pick<LiveSecrets, 'sessionSecrets' | 'turnstileSecret'>
}

/** Sessions for anybody, when the operator has opened them. */
export function openGuests (settings: Settings, { store, now, secrets, siteverifyUrl }: GuestTerms): GuestParts {
  const { file: { guests: { enabled, proof, sessionsPerAddressPerDay } }, allowedOrigins, publicUrl } = settings
  if (!enabled) return { guests: undefined, challenges: null }
  const altcha = proof === 'work' ? altchaProofs({ secrets: secrets.sessionSecrets, now }) : null
  const hostnames = new Set([...allowedOrigins, publicUrl ?? []].flat().map(origin => new URL(origin).hostname))
  // Settings that ask for Turnstile have its secret, and a file that is emptied later changes nothing.
  const secret = secrets.turnstileSecret as SecretRef<Secret>
  const turnstile = proof === 'turnstile' ? turnstileProofs({ secret, hostnames, now, url: siteverifyUrl }) : null
  const proofs = altcha ?? turnstile
  return {
    guests: guests({ proofs, spent: store.spentProofs, counts: store.guestCounts, sessionsPerAddressPerDay }),
    challenges: altcha
  }
}

export function openKeys (
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

export interface ResultParts {
  readonly results: ResultSource
  /** Forgets copies of results that are past their retention. */
  readonly tidyResults: () => Promise<void>
}

interface ResultClient extends Clock, Omit<UndiciResultsOptions, 'hosts' | 'maxBytes'>, Pick<TaskLedger, 'taskOf'> {
  readonly log: Logger
}

/** Results come from their hosts, or from copies that are made as soon as a task has ended. */
export function openResults (
  { store, file: { results: { keep, ...limits }, tasks } }: Settings, { log, ...client }: ResultClient
): ResultParts & Pick<KeptResults, 'keep'> {
  const results = undiciResults({ ...client, ...limits })
  if (keep === 'none') return { results, tidyResults: async () => {}, keep: () => {} }
  const kept = resultCache({
    ...client,
    directory:
      store.kind === 'sqlite' && store.path !== ':memory:'
        ? join(dirname(store.path), 'results')
        : resolve('data/results'),
    results,
    retentionMs: tasks.retentionDays * dayMs,
    onTrouble: (err, taskId) =>
      log.warn({ err, taskId }, 'a result could not be kept; it is tried again when somebody asks for it')
  })
  return { results: kept, tidyResults: kept.tidy, keep: kept.keep }
}

const { version } = JSON.parse(readFileSync(join(import.meta.dirname, '../package.json'), 'utf8')) as {
  readonly version: string
}
/** How the servers of callers are reached, where a test has them. */
export type WebhookTest = Pick<UndiciWebhooksOptions, 'ca' | 'resolve' | 'isAllowed' | 'timeoutMs'>

/** What a test puts in the place of the real thing. */
interface PartsTest extends Clock {
  readonly timers: Timers
  readonly store: Store | undefined
  readonly webhooks: WebhookTest | undefined
  readonly siteverifyUrl: string | undefined
}

/** What stands behind the seams. */
export interface Services extends Clock, CallbackParts, ResultParts, GuestParts {
  readonly secrets: LiveSecrets
  readonly store: Store
  readonly times: IssueTimes
  readonly tokenSessions: SessionVerifier
  readonly upstream: Upstream
  readonly keys: KeyRing
  readonly patient: PatientLedger
  readonly tickets: ResultTickets
  readonly events: TaskEvents
  readonly desk: StatusPoller
  readonly slots: SlotSearch
  readonly watching: TaskWatchers
  readonly timers: Timers
}

/** `meter`: told what becomes of credits. */
export async function createServices (
  settings: Settings,
  log: Logger,
  { now, elapsed, timers, store: given, webhooks, siteverifyUrl }: PartsTest,
  meter: CreditMetrics
): Promise<Services> {
  const { upstream: waits } = settings.file
  const client = { ...waits, baseUrl: settings.tasksBaseUrl, userAgent: `apixo-gateway/${version}` }
  const opened =
    given ??
    (await openStore(settings, { now, elapsed }, 'server', {
      onLost: err => log.warn({ err }, 'the connection to the store was lost; it is made again'),
      onGone: problem =>
        log.error({ alarm: 'store-gone', problem }, 'the store is not the one it was; nothing is served from it')
    }))
  const { keep, ...results } = openResults(settings, { ...client, taskOf: opened.ledger.taskOf, log, now, elapsed })
  const { tokenSessions, revocations } = teamTokens(opened, { now, elapsed })
  const times = issueTimes({ revocations, now })
  const store = {
    ...opened,
    ping: sharedProbe(opened.ping, elapsed),
    revocations,
    ledger: meteredLedger(keepingLedger(opened.ledger, keep), meter)
  }
  meter.unknown(store.lost)
  if (store.lost > 0) {
    log.error({ alarm: 'unknown-outcome', count: store.lost }, 'submits that a crash cut off may have been accepted')
  }
  const upstream = undiciUpstream(client)
  const patient = patientLedger({
    ledger: store.ledger,
    elapsed,
    wait,
    patienceMs,
    onOwed: (reservation, { to, taskId }: { readonly to: string, readonly taskId?: string }) =>
      log.error(
        { alarm: 'store-down', reservation, to, taskId },
        'the store did not take this step; it is kept and tried again'
      )
  })
  const secrets = liveSecrets(settings)
  const tickets = resultTickets({
    ...settings.file.results,
    secrets: secrets.sessionSecrets,
    taskOf: store.ledger.taskOf,
    now
  })
  const keys = openKeys(settings, upstream, log, { now, elapsed })
  const inquiries = openInquiries(settings, { ...store, upstream, keys, timers, now, elapsed, log })
  const callbacks = openCallbacks(settings, {
    store,
    patient,
    upstream,
    keys,
    timers,
    now,
    elapsed,
    log,
    ...inquiries,
    sessionSecrets: secrets.sessionSecrets,
    webhooks: { ...client, ...webhooks }
  })
  const guestParts = openGuests(settings, { store, now, secrets, siteverifyUrl })
  return {
    secrets,
    store,
    times,
    tokenSessions,
    upstream,
    patient,
    tickets,
    timers,
    now,
    elapsed,
    keys,
    ...inquiries,
    ...callbacks,
    ...guestParts,
    ...results
  }
}

/** Who asks how tasks are, and who is told. */
function openInquiries (
  { file, models }: Settings, base: Pick<Services, 'upstream' | 'keys' | 'timers' | keyof Clock> &
  Pick<Store, 'ledger' | 'records' | 'events' | 'turns' | 'heldKeys'> & { readonly log: Logger }
) {
  const { upstream: { connectMs, headersMs, bodyIdleMs }, polling } = file
  const answerMs = connectMs + headersMs
  const { events = localEvents(), turns = localTurns({ elapsed: base.elapsed, leaseMs: answerMs + bodyIdleMs }) } = base
  const intervalOf = intervalBy(polling, models)
  const { upstream, keys, heldKeys: held = null, log } = base
  const gone = goneKeys({
    upstream,
    keys,
    held,
    ledger: base.ledger,
    intervalOf,
    elapsed: base.elapsed,
    onGivenUp: ({ taskId, keyId }) =>
      log.error(
        { alarm: 'unknown-outcome', taskId, keyId },
        'the key of this task is gone, and no other knows the task: it is given up, and stays charged'
      )
  })
  const desk = statusPoller({ ...base, gone, turns, events, intervalOf, answerMs })
  const { ledger, records, timers, elapsed } = base
  const slots = slotSearch({ records, ledger, end: refreshTask({ ledger, desk }), intervalOf, timers, elapsed })
  return { events, desk, slots, watching: taskWatchers({ ...base, desk, events, intervalOf }) }
}
