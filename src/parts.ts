import { readFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import type { Logger } from 'pino'
import { altchaProofs } from './adapters/altcha-proofs.ts'
import { type KeptResults, keptResults } from './adapters/kept-results.ts'
import { localEvents } from './adapters/local-events.ts'
import { localTurns } from './adapters/local-turns.ts'
import { redisStore } from './adapters/redis/store.ts'
import { sqliteStore } from './adapters/sqlite/store.ts'
import { turnstileProofs } from './adapters/turnstile.ts'
import { undiciResults, type UndiciResultsOptions } from './adapters/undici-results.ts'
import { undiciUpstream } from './adapters/undici-upstream.ts'
import type { UndiciWebhooksOptions } from './adapters/undici-webhooks.ts'
import { type WatchedFiles, watchedFiles } from './adapters/watched-files.ts'
import { balancePath } from './domain/catalog.ts'
import type { TaskEvents } from './domain/events.ts'
import { type Guests, guests, type ProofChallenges } from './domain/guests.ts'
import { type KeyRing, keyRing, readProbe } from './domain/keys.ts'
import { keepingLedger } from './domain/keeping-ledger.ts'
import type { TaskLedger } from './domain/ledger.ts'
import { type CreditMeter, meteredLedger } from './domain/metered-ledger.ts'
import { intervalBy } from './domain/models.ts'
import { type PatientLedger, patientLedger } from './domain/patient-ledger.ts'
import type { ResultSource } from './domain/results.ts'
import type { Secret } from './domain/secret.ts'
import { type StatusDesk, statusDesk } from './domain/status-desk.ts'
import type { SessionVerifier } from './domain/session.ts'
import type { Store } from './domain/store.ts'
import { resultTickets, type ResultTickets } from './domain/tickets.ts'
import type { Timers } from './domain/timers.ts'
import { teamTokens } from './domain/token-sessions.ts'
import type { Upstream, UpstreamKey } from './domain/upstream.ts'
import { type Watching, watching } from './domain/watching.ts'
import { type CallbackParts, openCallbacks } from './parts/callbacks.ts'
import { type LiveSecrets, liveSecrets, type SecretNews, type Settings } from './settings.ts'

const { version } = JSON.parse(readFileSync(join(import.meta.dirname, '../package.json'), 'utf8')) as { readonly version: string }
/** How often what has overstayed is let go, ms. */
export const tidyMs = 5000
/** How long a reply waits for a store that has gone away between the upstream's answer and our note of it, ms. */
const patienceMs = 10_000
/** A reservation that is not sent by then never will be, ms. */
const reservedMs = 30_000
const dayMs = 86_400_000

/** How the servers of callers are reached, where a test has them. */
export type WebhookTest = Pick<UndiciWebhooksOptions, 'ca' | 'resolve' | 'isAllowed' | 'timeoutMs'>

/** What a test puts in the place of the real thing. */
interface PartsTest {
  readonly store: Store | undefined
  readonly webhooks: WebhookTest | undefined
  readonly siteverifyUrl: string | undefined
}

/** What stands behind the seams. */
export interface Parts extends CallbackParts {
  readonly secrets: LiveSecrets
  readonly store: Store
  readonly tokenSessions: SessionVerifier
  readonly upstream: Upstream
  readonly keys: KeyRing
  readonly patient: PatientLedger
  readonly results: ResultSource
  /** Forgets copies of results that are past their retention. */
  readonly tidyResults: () => Promise<void>
  readonly tickets: ResultTickets
  readonly events: TaskEvents
  readonly desk: StatusDesk
  readonly watching: Watching
  /** `undefined`: there are none. */
  readonly guests: Guests | undefined
  /** `null`: guests solve nothing of ours. */
  readonly challenges: ProofChallenges | null
  readonly timers: Timers
  readonly now: () => number
}

/** `meter`: told what becomes of credits. */
export async function openParts (
  settings: Settings,
  log: Logger,
  { now, timers, store: given, webhooks, siteverifyUrl }: PartsTest & { readonly now: () => number, readonly timers: Timers },
  meter: CreditMeter
): Promise<Parts> {
  const { upstream: waits } = settings.file
  const client = { ...waits, baseUrl: settings.tasksBaseUrl, userAgent: `apixo-gateway/${version}` }
  const opened = given ?? await openStore(settings, now, 'server', err => log.warn({ err }, 'the connection to the store was lost; it is made again'))
  const { keep, ...results } = openResults(settings, { ...client, taskOf: opened.ledger.taskOf, log, now })
  const { tokenSessions, revocations } = teamTokens(opened, now)
  const store = { ...opened, revocations, ledger: meteredLedger(keepingLedger(opened.ledger, keep), meter) }
  meter.unknown(store.lost)
  if (store.lost > 0) log.error({ alarm: 'unknown-outcome', count: store.lost }, 'submits that a crash cut off may have been accepted')
  const upstream = undiciUpstream(client)
  const patient = patientLedger({
    ledger: store.ledger,
    now,
    wait,
    patienceMs,
    onOwed: (reservation, { to, ...step }) => log.error({ alarm: 'store-down', reservation, to, taskId: 'taskId' in step ? step.taskId : undefined }, 'the store did not take this step; it is kept and tried again')
  })
  const secrets = liveSecrets(settings)
  const tickets = resultTickets({ ...settings.file.results, secrets: secrets.sessionSecrets, taskOf: store.ledger.taskOf, now })
  const keys = openKeys(settings, upstream, log, now)
  const inquiries = openInquiries(settings, { ...store, upstream, keys, timers, now })
  const callbacks = openCallbacks(settings, {
    store, patient, upstream, keys, timers, now, log, ...inquiries, sessionSecrets: secrets.sessionSecrets, webhooks: { ...client, ...webhooks }
  })
  const guestParts = openGuests(settings, { store, now, sessionSecrets: secrets.sessionSecrets, siteverifyUrl })
  return { secrets, store, tokenSessions, upstream, patient, tickets, timers, now, keys, ...inquiries, ...callbacks, ...guestParts, ...results }
}

type ResultClient = Omit<UndiciResultsOptions, 'hosts' | 'maxBytes'> & Pick<TaskLedger, 'taskOf'> & Pick<Parts, 'now'> & { readonly log: Logger }

/** Results come from their hosts, or from copies that are made as soon as a task has ended. */
function openResults (
  { store, file: { results: { keep, ...limits }, tasks } }: Settings, { log, ...client }: ResultClient
): Pick<Parts, 'results' | 'tidyResults'> & Pick<KeptResults, 'keep'> {
  const results = undiciResults({ ...client, ...limits })
  if (keep === 'none') return { results, tidyResults: async () => {}, keep: () => {} }
  const kept = keptResults({
    ...client,
    directory: store.kind === 'sqlite' && store.path !== ':memory:' ? join(dirname(store.path), 'results') : resolve('data/results'),
    results,
    retentionMs: tasks.retentionDays * dayMs,
    onTrouble: (err, taskId) => log.warn({ err, taskId }, 'a result could not be kept; it is tried again when somebody asks for it')
  })
  return { results: kept, tidyResults: kept.tidy, keep: kept.keep }
}

/** Who asks how tasks are, and who is told. */
function openInquiries (
  { file, models }: Settings, base: Pick<Parts, 'upstream' | 'keys' | 'timers' | 'now'> & Pick<Store, 'ledger' | 'events' | 'turns'>
) {
  const { upstream: { connectMs, headersMs, bodyIdleMs }, polling } = file
  const answerMs = connectMs + headersMs
  const { events = localEvents(), turns = localTurns({ now: base.now, leaseMs: answerMs + bodyIdleMs }) } = base
  const intervalOf = intervalBy(polling, models)
  const desk = statusDesk({ ...base, turns, events, intervalOf, answerMs })
  return { events, desk, watching: watching({ ...base, desk, events, intervalOf }) }
}

interface GuestTerms extends Pick<Parts, 'store' | 'now'>, Pick<PartsTest, 'siteverifyUrl'> {
  readonly sessionSecrets: LiveSecrets['sessionSecrets']
}

/** Sessions for anybody, when the operator has opened them. */
function openGuests (settings: Settings, { store, now, sessionSecrets, siteverifyUrl }: GuestTerms): Pick<Parts, 'guests' | 'challenges'> {
  const { file: { guests: { enabled, proof, sessionsPerAddressPerDay } }, turnstileSecret, allowedOrigins, publicUrl } = settings
  if (!enabled) return { guests: undefined, challenges: null }
  const altcha = proof === 'work' ? altchaProofs({ secrets: sessionSecrets, now }) : null
  const hostnames = new Set([...allowedOrigins, publicUrl ?? []].flat().map(origin => new URL(origin).hostname))
  const turnstile = proof === 'turnstile' ? turnstileProofs({ secret: turnstileSecret!, hostnames, now, url: siteverifyUrl }) : null
  const proofs = altcha ?? turnstile
  return { guests: guests({ proofs, spent: store.spentProofs, counts: store.guestCounts, sessionsPerAddressPerDay }), challenges: altcha }
}

/**
 * `operator`: for the CLI, beside a running server: nothing is recovered, and a ledger that is not there is not made.
 * `onLost` is told whenever the connection to Redis is lost.
 */
export async function openStore (
  { store, file }: Settings, now: () => number, role: 'server' | 'operator' = 'server', onLost: (reason: Error) => void = () => {}
): Promise<Store> {
  const { upstream, tasks, limits, ledger } = file
  const terms = {
    reservedMs,
    // A submit that has had all its time upstream and all our patience is not coming back.
    sentMs: upstream.connectMs + upstream.headersMs + upstream.bodyIdleMs + patienceMs + tidyMs,
    giveUpMs: tasks.giveUpMs,
    refundsPerPeriod: limits.refundsPerPeriod,
    retentionMs: tasks.retentionDays * dayMs
  }
  return store.kind === 'redis'
    ? await redisStore({ url: store.url, terms, now, onLost })
    : sqliteStore({ path: store.path, role, synchronous: ledger.synchronous, now, terms })
}

function openKeys ({ apiKeys, file: { tasks } }: Settings, upstream: Upstream, log: Logger, now: () => number): KeyRing {
  return keyRing({
    keys: apiKeys.map(upstreamKey),
    probe: key => upstream.send({ method: 'GET', path: balancePath, key }).answer.then(readProbe, () => ({ verdict: 'unclear', balance: null })),
    drainMs: tasks.giveUpMs,
    now,
    onChange: (keyId, state) => state === 'ready'
      ? log.info({ keyId }, 'the key is back in use')
      : log.error({ alarm: 'key-benched', keyId, state }, 'the upstream does not serve this key; it is benched')
  })
}

function upstreamKey (secret: Secret): UpstreamKey {
  return { id: secret.fingerprint, secret }
}

/** Secrets that came from files follow their files. `sessionsEnded`: with a session secret, all sessions that it has signed. */
export function followSecrets (
  { secretFiles }: Settings, { secrets, keys, timers }: Parts, log: Logger, sessionsEnded: () => void
): WatchedFiles {
  const take = (news: SecretNews): void => {
    if ('problem' in news) {
      log.error({ alarm: 'secret-file', ...news }, 'a file with a secret can not be used; what was read before stays in use')
      return
    }
    log.info(news, 'a file with a secret was read again')
    if (news.setting === 'APIXO_API_KEY') keys.replace(secrets.apiKeys.current.map(upstreamKey))
    if (news.setting === 'GATEWAY_SESSION_SECRET' && news.gone.length > 0) sessionsEnded()
  }
  return watchedFiles({ paths: [...secretFiles.values()], onChange: () => secrets.refresh().forEach(take), timers })
}
