import type { Logger } from 'pino'
import type { AuditTrail } from '../domain/audit.ts'
import type { KeyRing } from '../domain/key-ring.ts'
import type { LedgerClient } from '../domain/ledger-client.ts'
import type { CreditAccounts, Repeats } from '../domain/ledger.ts'
import type { Model, Plan } from '../domain/policy.ts'
import type { ListedPrice } from '../domain/prices.ts'
import type { TaskRecords } from '../domain/records.ts'
import type { ResultSource } from '../domain/results.ts'
import type { Secret, SecretRef } from '../domain/secret.ts'
import type { IssueTimes, Revocations, SessionIssuer, SessionVerifier } from '../domain/session.ts'
import type { SlotSearch } from '../domain/slot-search.ts'
import type { StatusPoller } from '../domain/status-poller.ts'
import type { CallbackAddress } from '../domain/submit.ts'
import type { TaskEvents } from '../domain/task-status.ts'
import type { Clock, Timers } from '../domain/time.ts'
import type { TokenStore } from '../domain/tokens.ts'
import type { Upstream } from '../domain/upstream.ts'
import type { Deliveries } from '../domain/webhooks.ts'
import type { Callbacks } from '../features/callbacks/inbound.ts'
import type { WebhookDispatcher } from '../features/callbacks/outbound.ts'
import type { EventStreams } from '../features/events/sse.ts'
import type { TaskWatchers } from '../features/events/task-watcher.ts'
import type { Guests, ProofChallenges } from '../features/guests/guests.ts'
import type { ResultTickets } from '../features/results/tickets.ts'
import type { Authenticate, AuthenticateOperator, OwnOrigin } from './authenticate.ts'
import type { SubmitRules } from './authorize.ts'
import type { BodyBudget } from './body-budget.ts'
import type { Metrics } from './observe.ts'
import type { Rates } from './rates.ts'
import type { Earliest } from './repeats.ts'
import type { SessionCookie } from './session-cookie.ts'

/**
 * All that routes and stages work with, each part under its name. A function takes the `Pick` of it that it needs, so
 * that its signature says what it can reach, and a part that is renamed or forgotten does not compile.
 *
 * It holds neither the settings nor the store: which part gets which of them is to be seen in one place, where this is
 * made. A feature that the operator has not opened is `null`.
 */
export interface Services {
  readonly clock: Clock
  readonly timers: Timers
  readonly log: Logger
  readonly metrics: Metrics
  /** Throws `GW_STORE_DOWN` while the store can't serve. It is asked once a second at most, however many call. */
  readonly probeStore: () => Promise<void>

  readonly upstream: Upstream
  readonly keys: KeyRing

  readonly ledger: LedgerClient
  readonly accounts: CreditAccounts
  readonly records: TaskRecords
  readonly repeats: Repeats
  readonly earliest: Earliest
  readonly audit: AuditTrail

  readonly poller: StatusPoller
  readonly watcher: TaskWatchers
  readonly events: TaskEvents
  readonly slots: SlotSearch

  readonly bodyBudget: BodyBudget
  readonly rates: Rates
  readonly streams: EventStreams

  readonly authenticate: Authenticate
  /** All that verify sessions, in the order in which they are asked. */
  readonly verifiers: readonly SessionVerifier[]
  readonly issuer: SessionIssuer
  readonly issueTimes: IssueTimes
  readonly revocations: Revocations
  readonly cookie: SessionCookie
  readonly plans: ReadonlyMap<string, Plan>
  readonly lifetimes: SessionLifetimes
  /** What the app's backend mints sessions with; `undefined`: minting is off. */
  readonly issuerToken: SecretRef<Secret | undefined>
  readonly tokens: TokenStore
  /** Without an admin token there is no admin API. */
  readonly authenticateOperator: AuthenticateOperator | null

  /** Our own origin, as callers see it. */
  readonly ownOrigin: OwnOrigin
  /** The same as the operator has written it, `null` where they have not. */
  readonly publicUrl: string | null
  /** Origins whose pages may call us, beside our own. */
  readonly allowedOrigins: readonly string[]

  readonly submitRules: SubmitRules
  /** Those that the operator has written down. */
  readonly models: readonly Model[]
  readonly listedPrice: (model: Model) => ListedPrice | null

  readonly results: ResultSource
  readonly tickets: ResultTickets
  /** Forgets copies of results that are past their retention; `null`: none are kept. */
  readonly tidyResults: (() => Promise<void>) | null

  /** Deliveries that are due are made, or given up, also where `callbacks.allowedHosts` has been emptied since. */
  readonly webhooks: WebhookDispatcher
  readonly deliveries: Deliveries
  readonly callbacks: InboundCallbacks | null
  readonly guests: GuestSessions | null
}

/** `sessions` of the config file, as routes need it. */
interface SessionLifetimes {
  readonly defaultTtlSeconds: number
  readonly maxTtlSeconds: number
}

/** The upstream announces the end of tasks. */
export interface InboundCallbacks extends Callbacks {
  /** Makes the address that the upstream is to call for a submit. */
  readonly newAddress: () => CallbackAddress
}

/** Sessions for anybody. */
export interface GuestSessions extends Guests {
  /** `null`: what guests prove, they do not prove to us, or they prove nothing. */
  readonly challenges: ProofChallenges | null
  /** The name of their plan. */
  readonly plan: string
}
