import type { Logger } from 'pino'
import type { Alarms } from '../domain/alarms.ts'
import type { AuditTrail } from '../domain/audit.ts'
import type { CeilingAccounts, Ceilings } from '../domain/ceilings.ts'
import type { CreditNotices } from '../domain/credit-notices.ts'
import type { KeyRing } from '../domain/key-ring.ts'
import type { LedgerClient } from '../domain/ledger-client.ts'
import type { CreditAccounts, Repeats } from '../domain/ledger.ts'
import type { Model, Plan } from '../domain/policy.ts'
import type { ListedPrice } from '../domain/prices.ts'
import type { TaskRecords } from '../domain/records.ts'
import type { ResultsOf } from '../domain/results.ts'
import type { Secret, SecretRef } from '../domain/secret.ts'
import type { IssueTimes, Revocations, SessionIssuer, SessionVerifier } from '../domain/session.ts'
import type { SlotSearch, StatusPoller } from '../domain/status-poller.ts'
import type { TaskEvents } from '../domain/task-status.ts'
import type { Clock, Timers } from '../domain/time.ts'
import type { TokenStore } from '../domain/tokens.ts'
import type { Upstream } from '../domain/upstream.ts'
import type { Authenticate, AuthenticateOperator, OwnOrigin } from './authenticate.ts'
import type { SubmitRules } from './authorize.ts'
import type { BodyBudget } from './body-budget.ts'
import type { Metrics } from './observe.ts'
import type { Rates } from './rates.ts'
import type { Earliest } from './repeats.ts'
import type { SessionCookie } from './session-cookie.ts'
import type { ProveGuest } from './stages.ts'

/**
 * All that routes and stages work with, each part under its name. A function takes the `Pick` of it that it needs, so
 * that its signature says what it can reach, and a part that is renamed or forgotten does not compile.
 *
 * It holds neither the settings nor the store: which part gets which of them is to be seen in one place, where this is
 * made. What an optional product alone needs is not here: its routes are given it (`Features`).
 */
export interface Services {
  readonly clock: Clock
  readonly timers: Timers
  readonly log: Logger
  readonly metrics: Metrics
  /** What the operator has to hear of. */
  readonly alarms: Alarms
  /** Throws `GW_STORE_DOWN` while the store can't serve. It is asked once a second at most, however many call. */
  readonly probeStore: () => Promise<void>

  readonly upstream: Upstream
  readonly keys: KeyRing

  readonly ledger: LedgerClient
  readonly accounts: CreditAccounts
  /** What is set above the subjects, and what is left of it; `null`: nothing is. */
  readonly ceilings: (Ceilings & Pick<CeilingAccounts, 'stateOf'>) | null
  /** Tells callers that their credits come to an end. */
  readonly creditNotices: CreditNotices
  readonly records: TaskRecords
  readonly repeats: Repeats
  readonly earliest: Earliest
  readonly audit: AuditTrail

  readonly poller: StatusPoller
  readonly events: TaskEvents
  readonly slots: SlotSearch

  readonly bodyBudget: BodyBudget
  readonly rates: Rates

  readonly authenticate: Authenticate
  /** All that verify sessions, in the order in which they are asked. */
  readonly verifiers: readonly SessionVerifier[]
  readonly issuer: SessionIssuer
  readonly issueTimes: IssueTimes
  readonly revocations: Revocations
  readonly cookie: SessionCookie
  readonly plans: ReadonlyMap<string, Plan>
  /** Their names. */
  readonly pools: ReadonlySet<string>
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
  readonly proveGuest: ProveGuest
  /** Those that the operator has written down. */
  readonly models: readonly Model[]
  readonly listedPrice: (model: Model) => ListedPrice | null

  /** Where a caller gets the results of a task. */
  readonly resultsOf: ResultsOf
}

/** `sessions` of the config file, as routes need it. */
interface SessionLifetimes {
  readonly defaultTtlSeconds: number
  readonly maxTtlSeconds: number
}
