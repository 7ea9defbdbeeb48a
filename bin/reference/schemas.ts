import Type, { type TSchema } from 'typebox'
import { scopes } from '../../src/domain/session.ts'
import { errorTable } from '../../src/errors.ts'

/**
 * What the gateway answers, for its reference alone: no route serialises by these, or a field that is missing here
 * would be missing from the answer. A test holds every answer to them, and the types of the client too.
 */

const described = (description: string) => ({ description })
const orNull = <Schema extends TSchema>(schema: Schema, description?: string) =>
  Type.Union([schema, Type.Null()], description === undefined ? {} : { description })

/** RFC 3339, UTC. */
const instant = Type.String({ format: 'date-time' })
const credits = Type.Number(described('Credits, of at most six decimals.'))
const taskState = Type.Enum(['running', 'success', 'failed', 'unknown'])
const level = Type.Enum(['gateway', 'pool', 'plan'])
export const scope = Type.Enum([...scopes])
const text = Type.String()
const anything = Type.Unknown()
const count = Type.Integer({ minimum: 0 })

const errorCode = Type.Enum(errorTable.map(({ code }) => code), described('Compare codes, never text.'))
const error = Type.Object({
  code: Type.Integer(described('The HTTP status.')),
  message: text,
  data: Type.Null(),
  error: Type.Object({
    code: errorCode,
    requestId: text,
    retryAfterSeconds: Type.Optional(
      Type.Integer(described('When to come again, where that is longer than a client should wait by itself.'))
    ),
    level: Type.Optional(Type.Enum(['gateway', 'pool', 'plan'], described('The account above the subject that has no room.'))),
    resetsAt: Type.Optional(orNull(instant, 'When that account has room again; `null`: it never begins anew.'))
  })
}, described('The upstream\'s envelope, with the gateway\'s own part beside it.'))

const openAiError = Type.Object({
  error: Type.Object({ message: text, type: text, code: errorCode, param: Type.Null() })
})
const anthropicError = Type.Object({
  type: Type.Literal('error'),
  error: Type.Object({ type: errorCode, message: text }),
  request_id: text
})
const geminiError = Type.Object({
  error: Type.Object({ code: Type.Integer(), message: text, status: errorCode })
})

const taskData = Type.Object({
  taskId: text,
  state: Type.String(described('`waiting`, `generating`, `success`, `fail`, and whatever the upstream adds.')),
  resultJson: Type.Optional(Type.Unknown(described('JSON in a string, or an object; `resultUrls` in it.'))),
  failCode: Type.Optional(text),
  failMsg: Type.Optional(text)
}, { additionalProperties: true })
const taskEnvelope = Type.Object({
  code: Type.Optional(Type.Integer()),
  message: Type.Optional(text),
  data: Type.Optional(orNull(taskData)),
  taskId: Type.Optional(text)
}, { additionalProperties: true, ...described('What the upstream says of a task, byte for byte.') })
const submitEnvelope = Type.Object({
  code: Type.Optional(Type.Integer()),
  message: Type.Optional(text),
  data: Type.Optional(orNull(Type.Object({ taskId: text }, { additionalProperties: true }))),
  taskId: Type.Optional(text)
}, { additionalProperties: true, ...described('What the upstream says of a submit, byte for byte.') })
const batchEnvelope = Type.Object({ code: Type.Integer(), message: text, data: anything }, {
  additionalProperties: true, ...described('What the upstream says of a batch, byte for byte.')
})

const input = Type.Record(Type.String(), anything, described('The model\'s own fields, as the upstream documents them.'))
const submitBody = Type.Object({
  input,
  request_type: Type.Optional(Type.Enum(['async', 'callback'], described('`callback` only with `callback_url`.'))),
  provider: Type.Optional(Type.Enum(['auto', 'official'], described('`official` where the model says so.'))),
  callback_url: Type.Optional(Type.String(described('Where the operator permits the host: told the end of the task.')))
}, described('Other names only where the operator lets them pass (`submit.fields`).'))
const batchBody = Type.Object({
  items: Type.Array(Type.Object({
    client_item_id: Type.String({ minLength: 1, maxLength: 128 }),
    idempotency_key: Type.String({ minLength: 1, maxLength: 255 }),
    input
  }), { minItems: 1, maxItems: 50 })
})
const vendorBody = Type.Object({}, { additionalProperties: true, ...described('As the vendor documents it.') })

const mintedSession = Type.Object({ token: text, subject: text, expiresAt: instant })
const cookieSession = Type.Object({ subject: text, expiresAt: instant })
const leftAbove = Type.Object({ level, left: credits, resetsAt: orNull(instant, '`null`: it never begins anew.') })
const sessionInfo = Type.Object({
  subject: text,
  expiresAt: instant,
  issuedAt: instant,
  plan: text,
  models: Type.Array(text, described('Globs.')),
  scopes: Type.Array(scope),
  origins: orNull(Type.Array(text)),
  addressPrefix: orNull(text),
  credits: Type.Object({
    limit: orNull(credits, '`null`: unlimited.'),
    used: credits,
    granted: credits,
    left: orNull(credits, '`null`: unlimited.'),
    resetsAt: instant,
    session: orNull(
      Type.Object({ limit: credits, used: credits, left: credits }), 'Of a session with credits of its own.'
    )
  }),
  uses: orNull(Type.Object({ limit: count, left: count }), '`null`: any number.'),
  tasks: Type.Object({ unfinished: count, limit: count }),
  requests: Type.Object({ perMinute: count }),
  polls: Type.Object({ perMinute: count }),
  above: Type.Optional(Type.Array(leftAbove, described('Where the gateway has ceilings: what is above this session.')))
})

const plain = Type.Union([Type.String(), Type.Number(), Type.Boolean()])
const priceRule = Type.Object({
  when: Type.Record(Type.String(), Type.Array(plain)),
  credits,
  per: Type.Array(text),
  default: Type.Record(Type.String(), Type.Number()),
  min: credits,
  onFailed: Type.Enum(['refund', 'charge'])
})
const taskPrice = Type.Object({
  credits,
  per: Type.Optional(Type.Union([text, Type.Array(text)])),
  default: Type.Optional(Type.Union([Type.Number(), Type.Record(Type.String(), Type.Number())])),
  min: Type.Optional(credits),
  onFailed: Type.Optional(Type.Enum(['refund', 'charge'])),
  rules: Type.Optional(Type.Array(priceRule, described('In their order: the first that matches counts.')))
})
const tokenPrice = Type.Object({
  inputPerMillion: credits, outputPerMillion: credits
}, { additionalProperties: true, ...described('Credits for a million tokens.') })
const modelInfo = Type.Object({
  id: text,
  category: Type.Enum(['image', 'video', 'audio', 'text']),
  provider: Type.Optional(Type.Literal('official')),
  options: Type.Optional(Type.Record(Type.String(), anything, described('As the operator wrote them: for a form.'))),
  price: orNull(Type.Union([taskPrice, tokenPrice]))
})
const modelList = Type.Object({ models: Type.Array(modelInfo) })
const quote = Type.Object({
  model: text,
  credits,
  refundable: Type.Boolean(described('Whether they come back when the task fails.')),
  rule: priceRule,
  left: orNull(credits, '`null`: unlimited.'),
  enough: Type.Boolean()
})
const balance = Type.Object({ code: Type.Literal(200), message: Type.Literal('success'), data: orNull(credits, '`null`: unlimited.') })

const taskInfo = Type.Object({
  taskId: orNull(text, '`null`: the upstream has not named it, or its answer was lost.'),
  model: text,
  state: taskState,
  credits,
  refunded: Type.Boolean(),
  createdAt: instant,
  endedAt: orNull(instant),
  abandonedAt: orNull(instant),
  results: Type.Array(text, described('Links, each good for some minutes.'))
})
const nextCursor = orNull(text, 'The `cursor` of the next page; `null`: there is no more.')
const taskPage = Type.Object({ tasks: Type.Array(taskInfo), next: nextCursor })
const taskResults = Type.Object({ taskId: text, results: Type.Array(text) })
const abandonedTask = Type.Object({
  taskId: text,
  model: text,
  state: orNull(text),
  credits,
  abandonedAt: Type.Optional(instant),
  notice: Type.Optional(Type.String(described('Only where it still ran.')))
})
const deliveries = Type.Object({
  webhookId: orNull(text),
  state: Type.Enum(['none', 'waiting', 'due', 'delivered', 'given-up']),
  attempts: Type.Array(Type.Object({ at: instant, status: orNull(Type.Integer()), error: orNull(text) })),
  nextAttemptAt: orNull(instant)
})
const spent = { tasks: count, charged: credits, refunded: credits, setAside: credits }
const ownUsage = Type.Object({
  from: text,
  to: text,
  by: Type.Array(Type.Enum(['day', 'model', 'state'])),
  rows: Type.Array(Type.Object({
    day: Type.Optional(text), model: Type.Optional(text), state: Type.Optional(taskState), ...spent
  })),
  total: Type.Object(spent)
})

const challenge = Type.Object({
  parameters: Type.Record(Type.String(), anything), signature: text
}, described('For ALTCHA\'s widget or library.'))
const acceptedToken = Type.Object({
  id: text, token: Type.String(described('Shown this once.')), subject: text, plan: text, expiresAt: instant
})

const pageOf = <Item extends TSchema>(item: Item) => Type.Object({ items: Type.Array(item), next: nextCursor })
const unknownFields = {
  id: text,
  subject: text,
  taskId: orNull(text),
  operation: text,
  model: text,
  credits,
  createdAt: instant,
  endedAt: orNull(instant)
}
const shownTask = Type.Object({ ...unknownFields, state: taskState, refunded: Type.Boolean() })
const shownTaskDetail = Type.Object({
  ...unknownFields,
  state: taskState,
  refunded: Type.Boolean(),
  stage: Type.Enum(['reserved', 'sent', 'claimed', 'settled', 'unknown']),
  keyId: text,
  refundable: Type.Boolean(),
  creditsFromGrants: credits,
  periodStart: instant,
  session: orNull(text),
  givenUpAt: orNull(instant),
  answerBytes: orNull(count),
  delivery: orNull(Type.Object({ host: text, attempts: count, nextAt: orNull(instant) }))
})
const usageReport = Type.Object({
  from: text,
  to: text,
  by: Type.Array(Type.Enum(['subject', 'model', 'day'])),
  rows: Type.Array(Type.Object({
    subject: Type.Optional(text),
    model: Type.Optional(text),
    day: Type.Optional(text),
    tasks: count,
    succeeded: count,
    failed: count,
    unknown: count,
    credits
  }))
})
const auditEntry = Type.Object({
  at: instant,
  kind: text,
  actor: text,
  subject: orNull(text),
  detail: Type.Record(Type.String(), Type.Union([Type.String(), Type.Number(), Type.Boolean(), Type.Null()]))
})
const keyStatus = Type.Object({
  keyId: Type.String(described('A fingerprint.')),
  state: text,
  reason: Type.Optional(Type.Enum(['refused', 'empty'])),
  since: instant,
  restingUntil: Type.Optional(instant),
  balance: Type.Optional(Type.Unknown())
})
const grant = Type.Object({ subject: text, granted: credits })
const givenExtra = Type.Object({
  subject: Type.Optional(text),
  pool: Type.Optional(text),
  gateway: Type.Optional(Type.Boolean()),
  total: credits,
  until: orNull(instant)
})
const endedSessions = Type.Object({
  subject: Type.Optional(text), before: Type.Optional(instant), session: Type.Optional(text)
})
const erasure = Type.Object({
  subject: text, pseudonym: text, tasks: count, tokens: count, auditEntries: count, unfinished: count
}, { additionalProperties: true })
const shownToken = Type.Object({
  id: text,
  subject: text,
  state: Type.Enum(['active', 'invited', 'expired', 'revoked']),
  plan: text,
  pool: orNull(text),
  models: Type.Array(text),
  scopes: Type.Array(scope),
  createdAt: instant,
  expiresAt: instant,
  usedAt: orNull(instant),
  spent: credits
})
const printedToken = Type.Object({
  id: text,
  token: Type.String(described('Shown this once.')),
  subject: text,
  plan: text,
  expiresAt: instant,
  previousUntil: Type.Optional(instant)
})
const invitation = Type.Object({ id: text, subject: text, plan: text, expiresAt: instant, link: text })

const health = Type.Object({ status: text })
const readiness = Type.Object({ status: Type.Enum(['ok', 'unavailable']), store: Type.Enum(['ok', 'down']) })
const creditsEvent = Type.Object({
  level: Type.Enum(['subject', 'pool']),
  usedPercent: Type.Enum([80, 100]),
  left: credits,
  resetsAt: orNull(instant)
})
const resyncEvent = Type.Object({ since: instant })
const nothing = Type.Object({}, described('Always the same.'))

/** What has a name in the document. Where one of these stands in another, it is a reference. */
export const schemas = {
  Error: error,
  OpenAiError: openAiError,
  AnthropicError: anthropicError,
  GeminiError: geminiError,
  Scope: scope,
  TaskState: taskState,
  TaskData: taskData,
  TaskEnvelope: taskEnvelope,
  SubmitEnvelope: submitEnvelope,
  BatchEnvelope: batchEnvelope,
  SubmitBody: submitBody,
  BatchBody: batchBody,
  VendorBody: vendorBody,
  MintedSession: mintedSession,
  CookieSession: cookieSession,
  LeftAbove: leftAbove,
  SessionInfo: sessionInfo,
  PriceRule: priceRule,
  TaskPrice: taskPrice,
  TokenPrice: tokenPrice,
  ModelInfo: modelInfo,
  ModelList: modelList,
  Quote: quote,
  Balance: balance,
  TaskInfo: taskInfo,
  TaskPage: taskPage,
  TaskResults: taskResults,
  AbandonedTask: abandonedTask,
  Deliveries: deliveries,
  OwnUsage: ownUsage,
  Challenge: challenge,
  AcceptedToken: acceptedToken,
  Health: health,
  Readiness: readiness,
  CreditsEvent: creditsEvent,
  ResyncEvent: resyncEvent,
  Nothing: nothing,
  AdminTask: shownTaskDetail,
  AdminTaskPage: pageOf(shownTask),
  UnknownTaskPage: pageOf(Type.Object(unknownFields)),
  UsageReport: usageReport,
  AuditPage: pageOf(auditEntry),
  KeyList: Type.Array(keyStatus),
  Grant: grant,
  GivenExtra: givenExtra,
  EndedSessions: endedSessions,
  Erasure: erasure,
  TokenPage: pageOf(shownToken),
  PrintedToken: printedToken,
  Invitation: invitation
} as const

export type SchemaName = keyof typeof schemas

/** The schemas as the document has them: plain JSON, each that has a name written out once. */
export function namedSchemas (): Record<string, object> {
  const names = new Map<unknown, string>(Object.entries(schemas).map(([name, schema]) => [schema, name]))
  const plainOf = (value: unknown, isRoot: boolean): unknown => {
    const name = isRoot ? undefined : names.get(value)
    if (name !== undefined) return { $ref: `#/components/schemas/${name}` }
    if (Array.isArray(value)) return value.map(item => plainOf(item, false))
    if (typeof value !== 'object' || value === null) return value
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, plainOf(inner, false)]))
  }
  return Object.fromEntries(Object.entries(schemas).map(([name, schema]) => [name, plainOf(schema, true) as object]))
}
