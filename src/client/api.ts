/**
 * What the gateway's own routes take and give, and what of the upstream's answers a page reads. Types alone; a test
 * holds them to what the routes really answer. Instants are text of RFC 3339, in UTC; amounts are credits.
 */

/** Every error that the gateway answers with: in the header `x-gateway-error`, and as `error.code` in the body. */
export type GatewayCode =
  | 'GW_BAD_REQUEST' | 'GW_NO_SESSION' | 'GW_BAD_SESSION' | 'GW_SESSION_SPENT' | 'GW_CREDITS_EXHAUSTED'
  | 'GW_SCOPE_DENIED' | 'GW_MODEL_DENIED' | 'GW_ORIGIN_DENIED' | 'GW_CALLBACK_DENIED'
  | 'GW_NOT_FOUND' | 'GW_TASK_NOT_FOUND' | 'GW_METHOD_NOT_ALLOWED'
  | 'GW_IDEMPOTENCY_PENDING' | 'GW_IDEMPOTENCY_MISMATCH' | 'GW_RESULT_EXPIRED'
  | 'GW_FILE_NOT_FOUND' | 'GW_FILE_EXPIRED' | 'GW_FILE_TYPE_DENIED' | 'GW_FILE_BUDGET' | 'GW_NO_PUBLIC_URL'
  | 'GW_TOO_LARGE' | 'GW_UNSUPPORTED_MEDIA_TYPE'
  | 'GW_THROTTLED' | 'GW_RATE_LIMITED' | 'GW_TOO_MANY_TASKS' | 'GW_INTERNAL'
  | 'GW_UPSTREAM_UNREACHABLE' | 'GW_UPSTREAM_INVALID' | 'GW_UPSTREAM_REFUSED_KEY' | 'GW_OUTCOME_UNKNOWN'
  | 'GW_NO_KEY' | 'GW_STORE_DOWN' | 'GW_OVERLOADED' | 'GW_UPSTREAM_TIMEOUT'

/** The body of a refusal: the upstream's envelope, with the gateway's own part beside it. */
export interface ErrorEnvelope {
  /** The HTTP status. */
  readonly code: number
  readonly message: string
  readonly data: null
  readonly error: {
    readonly code: GatewayCode
    readonly requestId: string
    /** When to come again, seconds, where that is longer than a client should wait by itself. */
    readonly retryAfterSeconds?: number
    /** Which account above the subject has no room, and until when; `null`: for ever. */
    readonly level?: 'gateway' | 'pool' | 'plan'
    readonly resetsAt?: string | null
  }
}

export type Scope = 'tasks:write' | 'tasks:read' | 'llm' | 'files'

/** Body of `POST /gateway/sessions`, which the app's backend sends with the issuer token. */
export interface SessionRequest {
  readonly subject: string
  readonly ttlSeconds?: number
  /** Globs; empty means none. */
  readonly models?: readonly string[]
  readonly scopes?: readonly Scope[]
  /** Exact origins of the pages that may use it. */
  readonly origins?: readonly string[]
  /** Submits and LLM calls. */
  readonly uses?: number
  readonly plan?: string
  readonly pool?: string
  /** A network such as `203.0.113.0/24`. */
  readonly addressPrefix?: string
  readonly credits?: number
}

/** Of a new session; without `token` where it is in a cookie. */
export interface MintedSession {
  readonly token: string
  readonly subject: string
  readonly expiresAt: string
}

/** `null` is unlimited. */
interface Budget { readonly limit: number | null, readonly left: number | null }

/** What an account above a session has left. */
export interface LeftAbove {
  readonly level: 'gateway' | 'pool' | 'plan'
  readonly left: number
  /** `null`: it never begins anew. */
  readonly resetsAt: string | null
}

/** Answer of `GET /gateway/session`. */
export interface SessionInfo {
  readonly subject: string
  readonly expiresAt: string
  readonly issuedAt: string
  readonly plan: string
  readonly models: readonly string[]
  readonly scopes: readonly Scope[]
  readonly origins: readonly string[] | null
  readonly addressPrefix: string | null
  readonly credits: Budget & {
    readonly used: number
    readonly granted: number
    readonly resetsAt: string
    /** Of a session with credits of its own. */
    readonly session: { readonly limit: number, readonly used: number, readonly left: number } | null
  }
  readonly uses: { readonly limit: number, readonly left: number } | null
  readonly tasks: { readonly unfinished: number, readonly limit: number }
  readonly requests: { readonly perMinute: number }
  readonly polls: { readonly perMinute: number }
  /** Where the gateway has ceilings: the accounts above this session that have less than it has, and its pool. */
  readonly above?: readonly LeftAbove[]
}

type Plain = string | number | boolean

/** A rule of a price, in one form. */
export interface PriceRule {
  readonly when: Readonly<Record<string, readonly Plain[]>>
  readonly credits: number
  readonly per: readonly string[]
  readonly default: Readonly<Record<string, number>>
  readonly min: number
  readonly onFailed: 'refund' | 'charge'
}

/** What a task costs, as the operator wrote it. Of several rules the last one, which counts when no other matches. */
export interface TaskPrice {
  readonly credits: number
  readonly per?: string | readonly string[]
  readonly default?: number | Readonly<Record<string, number>>
  readonly min?: number
  readonly onFailed?: 'refund' | 'charge'
  readonly rules?: readonly PriceRule[]
}

/** What the tokens of a model cost, in credits for a million. */
export interface TokenPrice {
  readonly inputPerMillion: number
  readonly outputPerMillion: number
  readonly [name: string]: unknown
}

/** One of `GET /gateway/models`. */
export interface ModelInfo {
  readonly id: string
  readonly category: 'image' | 'video' | 'audio' | 'text'
  readonly provider?: 'official'
  readonly options?: Readonly<Record<string, unknown>>
  readonly price: TaskPrice | TokenPrice | null
}

/** Answer of `POST /gateway/quote/:model`. */
export interface Quote {
  readonly model: string
  readonly credits: number
  /** Whether they come back when the task fails. */
  readonly refundable: boolean
  readonly rule: PriceRule
  /** `null` is unlimited. */
  readonly left: number | null
  readonly enough: boolean
}

export type TaskState = 'running' | 'success' | 'failed' | 'unknown'

/** Query of `GET /gateway/tasks`. Days are those of UTC, `2026-12-01`, both included. */
export interface TaskQuery {
  readonly state?: TaskState | undefined
  readonly model?: string | undefined
  readonly from?: string | undefined
  readonly to?: string | undefined
  /** From 1 to 100; 20 when absent. */
  readonly limit?: number | undefined
  /** `next` of the page before. */
  readonly cursor?: string | undefined
}

/** One of `GET /gateway/tasks`. */
export interface TaskInfo {
  /** `null`: the upstream has not named it, or its answer was lost. */
  readonly taskId: string | null
  readonly model: string
  readonly state: TaskState
  readonly credits: number
  readonly refunded: boolean
  readonly createdAt: string
  readonly endedAt: string | null
  readonly abandonedAt: string | null
  /** Links to its results, each good for some minutes. */
  readonly results: readonly string[]
}

export interface TaskPage {
  /** The newest first; it may be shorter than its limit. */
  readonly tasks: readonly TaskInfo[]
  /** `null`: there is no more. */
  readonly next: string | null
}

/** Answer of `GET /gateway/tasks/:taskId/results`, and data of the event `results`. */
export interface TaskResults {
  readonly taskId: string
  readonly results: readonly string[]
}

/** Answer of `POST /gateway/files`. */
export interface UploadedFile {
  readonly fileId: string
  readonly url: string
  readonly expiresAt: string
}

/** What the upstream says of a task. Its list of states is open, and so are its reasons. */
export interface TaskData {
  readonly taskId: string
  readonly state: string
  /** JSON in a string, or an object. */
  readonly resultJson?: unknown
  readonly failCode?: string
  readonly failMsg?: string
  readonly [name: string]: unknown
}

/** The upstream's envelope of a submit, and of a status; seen without a code, and with the task's id beside it. */
export interface TaskEnvelope<Data = TaskData> {
  readonly code?: number
  readonly message?: string
  readonly data?: Data | null
  readonly taskId?: string
}
