import type { ErrorCode } from '../../src/errors.ts'
import type { SchemaName } from './schemas.ts'

/** Who may call. `caller`: a session, as header or cookie; `page`: anybody. */
export type Credential = 'caller' | 'bearer' | 'issuer' | 'admin' | 'page'

/** A body that is answered: JSON by its schema's name, or a type alone. */
export interface DocumentedAnswer {
  readonly description: string
  readonly schema?: SchemaName
  /** Other than JSON, or beside it. */
  readonly types?: readonly string[]
  readonly headers?: readonly HeaderName[]
  readonly events?: readonly EventName[]
}

/** Kinds of server-sent events, and the JSON that their data is. */
export const eventData = {
  state: 'TaskEnvelope', results: 'TaskResults', credits: 'CreditsEvent', resync: 'ResyncEvent'
} as const satisfies Record<string, SchemaName>

export type EventName = keyof typeof eventData

export type HeaderName =
  'ratelimit-limit' | 'ratelimit-remaining' | 'ratelimit-reset' | 'retry-after' | 'x-should-retry' | 'x-gateway-error' |
  'x-gateway-credits' | 'idempotency-replayed' | 'set-cookie' | 'content-disposition' | 'content-range' | 'etag' |
  'www-authenticate' | 'request-id'

/** What the reference says of an operation beyond what its route knows. */
export interface DocumentedOperation {
  readonly tag: string
  readonly summary: string
  readonly description?: string
  readonly credential: Credential
  /** Of a query without a schema: what each name means. */
  readonly query?: Readonly<Record<string, string>>
  readonly requiredQuery?: readonly string[]
  /** Of a body that the route reads as bytes. */
  readonly body?: SchemaName
  readonly bodyIsOptional?: boolean
  readonly headers?: readonly ('Idempotency-Key' | 'Last-Event-ID' | 'Range' | 'x-apixo-proof' | 'anthropic-version' | 'anthropic-beta')[]
  readonly answers: Readonly<Record<number, DocumentedAnswer>>
  readonly errors: readonly ErrorCode[]
  /** Any other status: the upstream's own answer, as it came. */
  readonly passesOn?: true
  readonly errorBody?: 'OpenAiError' | 'AnthropicError' | 'GeminiError'
}

/** What every route may answer. */
export const everywhere = ['GW_BAD_REQUEST', 'GW_THROTTLED', 'GW_OVERLOADED', 'GW_INTERNAL'] as const satisfies readonly ErrorCode[]

const session = ['GW_NO_SESSION', 'GW_BAD_SESSION', 'GW_ORIGIN_DENIED', 'GW_STORE_DOWN'] as const
const polled = [...session, 'GW_RATE_LIMITED'] as const
const scoped = [...polled, 'GW_SCOPE_DENIED'] as const
const ofTask = [...scoped, 'GW_TASK_NOT_FOUND', 'GW_MODEL_DENIED'] as const
const body = ['GW_TOO_LARGE', 'GW_UNSUPPORTED_MEDIA_TYPE'] as const
const upstream = [
  'GW_UPSTREAM_UNREACHABLE', 'GW_UPSTREAM_INVALID', 'GW_UPSTREAM_REFUSED_KEY', 'GW_NO_KEY'
] as const
const paid = [
  ...scoped, ...body, ...upstream, 'GW_MODEL_DENIED', 'GW_SESSION_SPENT', 'GW_CREDITS_EXHAUSTED', 'GW_TOO_MANY_TASKS',
  'GW_OUTCOME_UNKNOWN'
] as const
const submitted = [
  ...paid, 'GW_TASK_NOT_FOUND', 'GW_CALLBACK_DENIED', 'GW_IDEMPOTENCY_PENDING', 'GW_IDEMPOTENCY_MISMATCH'
] as const
const admin = ['GW_NO_SESSION', 'GW_BAD_SESSION', 'GW_STORE_DOWN'] as const

const budget = ['ratelimit-limit', 'ratelimit-remaining', 'ratelimit-reset'] as const
const page = {
  cursor: '`next` of the page before.', limit: 'From 1 to 100; 20 when absent.'
}
const days = { from: 'A day of UTC, `2026-12-01`, included.', to: 'A day of UTC, included.' }
const json = (schema: SchemaName, description: string): DocumentedAnswer => ({ description, schema })
const read = (schema: SchemaName, description: string): DocumentedAnswer => ({ description, schema, headers: budget })
const noContent = (description: string): DocumentedAnswer => ({ description, types: [] })

const resultAnswers = (more: readonly HeaderName[]): DocumentedOperation['answers'] => ({
  200: {
    description: 'The bytes, as their host gives them.',
    types: ['application/octet-stream'],
    headers: ['content-disposition', 'etag', ...more]
  },
  206: {
    description: 'A part of them.',
    types: ['application/octet-stream'],
    headers: ['content-disposition', 'content-range', 'etag', ...more]
  },
  304: { description: 'As the caller knows it.', headers: ['etag', ...more] }
})
const resultErrors = [
  'GW_RATE_LIMITED', 'GW_RESULT_EXPIRED', 'GW_STORE_DOWN', 'GW_UPSTREAM_UNREACHABLE', 'GW_UPSTREAM_INVALID',
  'GW_UPSTREAM_TIMEOUT'
] as const

const streams = 'Server-sent events. `state`: a `TaskEnvelope`, for each change of a task. `results`: a `TaskResults`, ' +
  'after the end of a task that has some. '
const stream = (...names: readonly EventName[]): DocumentedAnswer =>
  ({ description: 'The events.', types: ['text/event-stream'], events: names, headers: budget })

const tasks: Readonly<Record<string, DocumentedOperation>> = {
  generateTask: {
    tag: 'Tasks',
    summary: 'Submit a task',
    description: 'It is charged here, and given back if it fails and its price says so. Send an `Idempotency-Key`, a new ' +
      'one for each task and the same at each try: then a try that is repeated is charged once. After ' +
      '`GW_OUTCOME_UNKNOWN` (502, `x-should-retry: false`) the task may exist: look into `GET /gateway/tasks`. Scope: `tasks:write`.',
    credential: 'caller',
    headers: ['Idempotency-Key', 'x-apixo-proof'],
    body: 'SubmitBody',
    answers: {
      200: {
        description: 'Accepted; `data.taskId` is the task\'s id.',
        schema: 'SubmitEnvelope',
        headers: [...budget, 'idempotency-replayed', 'x-gateway-credits']
      }
    },
    errors: submitted,
    passesOn: true
  },
  statusTask: {
    tag: 'Tasks',
    summary: 'Ask what has become of a task',
    description: 'The upstream is asked once per interval, however often this is called; `retry-after` says when there can be news. ' +
      'Final are `success` and `fail` (also written `failed`). Scope: `tasks:read`.',
    credential: 'caller',
    query: { taskId: 'The task\'s id.' },
    requiredQuery: ['taskId'],
    answers: {
      200: { description: 'The upstream\'s last answer.', schema: 'TaskEnvelope', headers: [...budget, 'retry-after'] }
    },
    errors: [...ofTask, ...upstream, 'GW_UPSTREAM_TIMEOUT'],
    passesOn: true
  },
  generateBatch: {
    tag: 'Tasks',
    summary: 'Submit up to 50 tasks at once',
    description: 'All are reserved, or none. Off by default (`batches.enabled`). Scope: `tasks:write`.',
    credential: 'caller',
    headers: ['Idempotency-Key'],
    body: 'BatchBody',
    answers: {
      200: {
        description: 'Accepted.', schema: 'BatchEnvelope', headers: [...budget, 'idempotency-replayed', 'x-gateway-credits']
      }
    },
    errors: submitted,
    passesOn: true
  },
  statusBatch: {
    tag: 'Tasks',
    summary: 'Ask what has become of a batch',
    description: 'Scope: `tasks:read`.',
    credential: 'caller',
    answers: {
      200: { description: 'The upstream\'s answer.', schema: 'BatchEnvelope', headers: [...budget, 'retry-after'] }
    },
    errors: [...ofTask, ...upstream, 'GW_UPSTREAM_TIMEOUT'],
    passesOn: true
  },
  currentBalance: {
    tag: 'Account',
    summary: 'What the caller may still spend, in the upstream\'s envelope',
    credential: 'caller',
    answers: { 200: read('Balance', 'Its credits; never the operator\'s.') },
    errors: polled
  },
  quote: {
    tag: 'Account',
    summary: 'What a submit with this body would cost',
    description: 'Nothing is set aside or sent. Scope: `tasks:write`.',
    credential: 'caller',
    body: 'SubmitBody',
    answers: { 200: read('Quote', 'The price, and whether there is enough.') },
    errors: [...ofTask, ...body, 'GW_CALLBACK_DENIED', 'GW_NO_KEY']
  },
  listModels: {
    tag: 'Account',
    summary: 'The models that this session may use',
    credential: 'caller',
    answers: { 200: read('ModelList', 'Those that the operator has written down, with their prices.') },
    errors: polled
  },
  ownUsage: {
    tag: 'Account',
    summary: 'What the caller has used',
    description: 'Scope: `tasks:read`.',
    credential: 'caller',
    query: {
      ...days, by: 'Some of `day`, `model`, `state`, with commas between them.', format: '`json` or `csv`; else `accept` decides.'
    },
    answers: {
      200: {
        description: 'Sums.', schema: 'OwnUsage', types: ['text/csv'], headers: [...budget, 'content-disposition']
      }
    },
    errors: scoped
  },
  listTasks: {
    tag: 'Tasks',
    summary: 'The caller\'s own tasks, the newest first',
    description: 'A page may be shorter than its limit: `next` alone says whether there is more. Scope: `tasks:read`.',
    credential: 'caller',
    query: { ...page, ...days, state: '`running`, `success`, `failed` or `unknown`.', model: 'The name of a model.' },
    answers: { 200: read('TaskPage', 'A page.') },
    errors: scoped
  },
  abandonTask: {
    tag: 'Tasks',
    summary: 'Give a task up',
    description: 'Its slot is free; the upstream goes on, and its charge stays. Scope: `tasks:write`.',
    credential: 'caller',
    query: {},
    answers: { 200: read('AbandonedTask', 'Given up, or as it has ended.') },
    errors: ofTask
  },
  taskEvents: {
    tag: 'Events',
    summary: 'The events of one task',
    description: `${streams}After the end the stream ends. Scope: \`tasks:read\`.`,
    credential: 'caller',
    headers: ['Last-Event-ID'],
    answers: { 200: stream('state', 'results'), 204: { ...noContent('The end has been told: an `EventSource` does not come back.'), headers: budget } },
    errors: ofTask
  },
  events: {
    tag: 'Events',
    summary: 'The events of all tasks of the caller',
    description: `${streams}\`credits\`: a \`CreditsEvent\`, when 80 % and all of the credits are used. \`resync\`: a ` +
      '`ResyncEvent`; events since then may be missing, so ask for the list. With `Last-Event-ID` it goes on where it was left. ' +
      'Scope: `tasks:read`.',
    credential: 'caller',
    headers: ['Last-Event-ID'],
    answers: { 200: stream('state', 'results', 'credits', 'resync') },
    errors: scoped
  },
  listResults: {
    tag: 'Results',
    summary: 'Links to the results of a task',
    description: 'For `<img>` and `<video>`: each is good for some minutes, without a header. Scope: `tasks:read`.',
    credential: 'caller',
    answers: { 200: read('TaskResults', 'None while it runs.') },
    errors: ofTask
  },
  result: {
    tag: 'Results',
    summary: 'The bytes of a result',
    description: 'Scope: `tasks:read`.',
    credential: 'caller',
    query: { download: '`1`: to save it.' },
    headers: ['Range'],
    answers: resultAnswers(budget),
    errors: [...ofTask, ...resultErrors]
  },
  ticketResult: {
    tag: 'Results',
    summary: 'The bytes of a result, by a link',
    description: 'The ticket in the path is the credential.',
    credential: 'page',
    query: { download: '`1`: to save it.' },
    headers: ['Range'],
    answers: resultAnswers([]),
    errors: ['GW_NOT_FOUND', ...resultErrors]
  },
  listDeliveries: {
    tag: 'Tasks',
    summary: 'How the end of a task was told to a server of the caller\'s',
    description: 'For a submit with `callback_url`. Scope: `tasks:read`.',
    credential: 'caller',
    answers: { 200: read('Deliveries', 'The attempts.') },
    errors: ofTask
  },
  callback: {
    tag: 'Upstream',
    summary: 'The upstream announces the end of a task',
    description: 'Nothing of it is believed: the upstream is asked. The secret in the path is the credential.',
    credential: 'page',
    body: 'VendorBody',
    bodyIsOptional: true,
    answers: { 200: json('Nothing', 'Noted.') },
    errors: ['GW_NOT_FOUND', 'GW_STORE_DOWN']
  }
}

const sessions: Readonly<Record<string, DocumentedOperation>> = {
  mintSession: {
    tag: 'Sessions',
    summary: 'Mint a session',
    description: 'From the app\'s backend, never from a page: a request with an `origin` is refused.',
    credential: 'issuer',
    answers: { 201: { ...json('MintedSession', 'Hand the token to the page.'), headers: budget } },
    errors: [
      'GW_NO_SESSION', 'GW_BAD_SESSION', 'GW_SCOPE_DENIED', 'GW_ORIGIN_DENIED', 'GW_NOT_FOUND', 'GW_RATE_LIMITED', 'GW_STORE_DOWN', ...body
    ]
  },
  showSession: {
    tag: 'Sessions',
    summary: 'What the caller is, and what it has left',
    credential: 'caller',
    answers: { 200: read('SessionInfo', 'Of the session in use.') },
    errors: polled
  },
  endSession: {
    tag: 'Sessions',
    summary: 'Log out, for good',
    credential: 'caller',
    query: { everywhere: '`true`: all sessions of the subject.' },
    answers: { 204: { ...noContent('Ended.'), headers: ['set-cookie'] } },
    errors: session
  },
  swapSession: {
    tag: 'Sessions',
    summary: 'Swap a token for an HttpOnly cookie',
    description: 'For pages of the gateway\'s own origin, over https. The token ends.',
    credential: 'bearer',
    bodyIsOptional: true,
    answers: { 201: { ...json('CookieSession', 'The cookie is set.'), headers: ['set-cookie', ...budget] } },
    errors: [...polled, ...body]
  },
  mintGuestSession: {
    tag: 'Sessions',
    summary: 'Begin a session as a guest',
    description: 'Off by default (`guests.enabled`). From a page of a permitted origin, with a proof where one is asked for.',
    credential: 'page',
    headers: ['x-apixo-proof'],
    bodyIsOptional: true,
    answers: { 201: json('MintedSession', 'A session of the guests\' plan.') },
    errors: ['GW_ORIGIN_DENIED', 'GW_SCOPE_DENIED', 'GW_STORE_DOWN', ...body]
  },
  guestChallenge: {
    tag: 'Sessions',
    summary: 'What a guest has to solve to begin a session',
    credential: 'page',
    answers: { 200: json('Challenge', 'Good for five minutes.') },
    errors: []
  },
  submitChallenge: {
    tag: 'Sessions',
    summary: 'What a guest has to solve for its next submit',
    credential: 'caller',
    answers: { 200: read('Challenge', 'Good for five minutes.') },
    errors: polled
  },
  acceptInvitation: {
    tag: 'Sessions',
    summary: 'Take the token of an invitation',
    description: 'Once. The invitation in the body is the credential.',
    credential: 'page',
    answers: { 201: json('AcceptedToken', 'The token.') },
    errors: ['GW_NOT_FOUND', 'GW_STORE_DOWN', ...body]
  }
}

const llm = (
  summary: string, errorBody: DocumentedOperation['errorBody'] & string, headers: DocumentedOperation['headers'] = []
): DocumentedOperation => ({
  tag: 'LLM',
  summary,
  description: 'Bodies, streams and answers are the vendor\'s; errors of the gateway have its form, so that stock SDKs raise their own classes. ' +
    'Only models with a price per token. Scope: `llm`.',
  credential: 'caller',
  headers,
  body: 'VendorBody',
  answers: {
    200: {
      description: 'The vendor\'s answer, as it comes.',
      schema: 'VendorBody',
      types: ['text/event-stream'],
      headers: [...budget, 'request-id']
    }
  },
  errors: [...paid, 'GW_UPSTREAM_TIMEOUT', ...(errorBody === 'GeminiError' ? ['GW_NOT_FOUND'] as const : [])],
  passesOn: true,
  errorBody
})

const modelsAs = (vendor: string, errorBody: DocumentedOperation['errorBody'] & string): DocumentedOperation => ({
  tag: 'LLM',
  summary: `The models that this session may use, as ${vendor} list them`,
  description: 'Those with a price per token that the operator has written down. Scope: `llm`.',
  credential: 'caller',
  answers: {
    200: { ...read('VendorBody', 'In the form of whoever asks.'), headers: [...budget, 'request-id'] }
  },
  errors: polled,
  errorBody
})

const vendors: Readonly<Record<string, DocumentedOperation>> = {
  chatCompletions: llm('OpenAI\'s chat completions', 'OpenAiError'),
  responses: llm('OpenAI\'s responses', 'OpenAiError'),
  messages: llm('Anthropic\'s messages', 'AnthropicError', ['anthropic-version', 'anthropic-beta']),
  generateContent: llm('Gemini\'s generateContent', 'GeminiError'),
  listLlmModels: modelsAs('SDKs', 'OpenAiError'),
  listGeminiModels: modelsAs('Gemini\'s SDKs', 'GeminiError')
}

const operator = (
  summary: string, answers: DocumentedOperation['answers'], more: Partial<DocumentedOperation> = {}
): DocumentedOperation => ({ tag: 'Operator', summary, credential: 'admin', answers, errors: admin, ...more })
const withBody = { errors: [...admin, ...body] } as const
const orUnknown = { errors: [...admin, ...body, 'GW_TASK_NOT_FOUND'] } as const
const orNone = { errors: [...admin, ...body, 'GW_NOT_FOUND'] } as const

const operators: Readonly<Record<string, DocumentedOperation>> = {
  showUsage: operator('What everybody has used', {
    200: { description: 'Sums.', schema: 'UsageReport', types: ['text/csv'], headers: ['content-disposition'] }
  }),
  listAllTasks: operator('Everybody\'s tasks, the newest first', { 200: json('AdminTaskPage', 'A page.') }),
  showTask: operator('One task in full', { 200: json('AdminTask', 'Never its prompt, nor its answer.') }, orUnknown),
  grantCredits: operator('Give a subject credits beyond its plan', { 201: json('Grant', 'All it has of grants.') }, withBody),
  giveExtra: operator(
    'Raise what a subject, a pool or the gateway may spend', { 201: json('GivenExtra', 'What is in force now.') }, withBody
  ),
  listUnknown: operator('Tasks whose outcome is not known', { 200: json('UnknownTaskPage', 'A page, the oldest first.') }),
  releaseUnknown: operator('Give the credits of such a task back', { 204: noContent('Done.') }, {
    ...orUnknown, bodyIsOptional: true
  }),
  endSessions: operator(
    'End a session, or all of a subject', { 201: json('EndedSessions', 'Within a second, on all replicas.') }, withBody
  ),
  listAudit: operator('The audit trail, the newest first', { 200: json('AuditPage', 'A page.') }),
  listKeys: operator('The upstream keys, by fingerprint', { 200: json('KeyList', 'Their states.') }),
  exportSubject: operator('All that is held of a subject', {
    200: { description: 'JSON lines.', types: ['application/x-ndjson'] }
  }, withBody),
  eraseSubject: operator('Take away all that is held of a subject', { 201: json('Erasure', 'What was erased.') }, withBody),
  createToken: operator('Print a personal token', { 201: json('PrintedToken', 'Shown this once.') }, withBody),
  listTokens: operator('Personal tokens and invitations, the newest first', { 200: json('TokenPage', 'A page.') }),
  revokeToken: operator('End a token or an invitation', { 204: noContent('Ended.') }, { ...orNone, bodyIsOptional: true }),
  rotateToken: operator('Print a token anew', { 200: json('PrintedToken', 'Shown this once.') }, {
    ...orNone, bodyIsOptional: true
  }),
  inviteToToken: operator('Invite somebody to a personal token', { 201: json('Invitation', 'The link opens once.') }, withBody),
  metrics: operator('Prometheus metrics', { 200: { description: 'Text format 0.0.4.', types: ['text/plain'] } }, {
    description: 'On the admin port without a token.', errors: ['GW_NO_SESSION', 'GW_BAD_SESSION']
  })
}

const open = (summary: string, type: string): DocumentedOperation => ({
  tag: 'Pages',
  summary,
  credential: 'page',
  answers: type === 'text/html'
    ? { 200: { description: 'The page.', types: [type] } }
    : { 200: { description: 'The file.', types: [type], headers: ['etag'] }, 304: { description: 'As known.', headers: ['etag'] } },
  errors: []
})

const health: Readonly<Record<string, DocumentedOperation>> = {
  livez: {
    tag: 'Health',
    summary: 'Whether the process answers',
    credential: 'page',
    answers: { 200: json('Health', 'It does.') },
    errors: []
  },
  readyz: {
    tag: 'Health',
    summary: 'Whether it may be given requests',
    credential: 'page',
    answers: { 200: json('Readiness', 'Its store serves.'), 503: json('Readiness', 'It does not.') },
    errors: []
  }
}

/** By the name that each has in logs and metrics. A route without a row here fails the test of the reference. */
export const operations: Readonly<Record<string, DocumentedOperation>> = {
  ...tasks,
  ...sessions,
  ...vendors,
  ...operators,
  ...health,
  showPlayground: open('The playground', 'text/html'),
  showInvitation: open('Where the link of an invitation leads', 'text/html'),
  showReference: open('This reference, as a page', 'text/html'),
  openApi: open('This reference, as OpenAPI 3.1', 'application/json'),
  llmsText: open('This reference, in short, for agents', 'text/plain')
}

/**
 * Routes that are none of the reference: ways to others, what is no route of ours, and the built client, which is there
 * where it was built.
 */
export const unlisted: ReadonlySet<string> = new Set([
  'findPlayground', 'methodNotAllowed', 'none', 'showFile', 'showClient'
])

export const tags: Readonly<Record<string, string>> = {
  Sessions: 'Where a caller\'s credential comes from, and where it ends.',
  Account: 'What a caller may use, what it costs, what is left.',
  Tasks: 'The upstream\'s task API, with the caller\'s session in the place of a key.',
  Events: 'States of tasks as they change.',
  Results: 'What tasks have made, from the gateway\'s own origin.',
  LLM: 'The addresses of stock SDKs: give them a base URL and a session token.',
  Operator: 'The admin API, with the operator\'s own token. On the admin port where there is one.',
  Upstream: 'What the upstream calls.',
  Health: 'For whoever runs it.',
  Pages: 'For browsers.'
}
