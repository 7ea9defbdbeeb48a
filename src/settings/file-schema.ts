import { type Static, Type } from 'typebox'
import { alarmSettings } from '../features/alarms/settings.ts'
import { batchSettings } from '../features/batches/settings.ts'
import { callbackSettings } from '../features/callbacks/settings.ts'
import { guestSettings } from '../features/guests/settings.ts'
import { llmSettings } from '../features/llm/settings.ts'
import { resultSettings } from '../features/results/settings.ts'
import {
  amount, bytes, conditionPath, count, countOrNone, days, exact, fieldPath, glob, group, inputPath,
  milliseconds, modelMap, name, oneOf, seconds, section, text, word
} from './schema-words.ts'

/** Of plans, and of what stands before subjects. */
const shortName = '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$'

const algorithms = [
  'RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'ES512', 'EdDSA', 'HS256', 'HS384', 'HS512'
] as const

function claim (description: string) {
  return Type.Optional(text('.', 'the name or the path of a claim: sub, app_metadata.plan', description))
}

const claims = Type.Record(
  Type.String({ pattern: '.' }),
  Type.Array(Type.Union([Type.String(), Type.Boolean()], { title: 'a text, or true or false' }), {
    minItems: 1,
    title: 'a list of values',
    description: 'The values of which the claim has to have one.'
  }),
  {
    ...exact,
    title: 'claims, each with a list of values',
    description: 'Claims that its tokens must carry, each with one of its values.'
  }
)

/** Somebody else who issues sessions. */
const issuer = group({
  issuer: text('.', 'a text', 'The `iss` of its tokens, letter for letter.'),
  jwksUrl: Type.Optional(
    text(
      '.',
      'a URL',
      'Where its public keys are. https:, unless loopback. Without it they are found by OpenID Connect Discovery.'
    )
  ),
  secretFile: Type.Optional(
    text(
      '.',
      'the path of a file',
      'In place of public keys: a file with a secret of at least 32 bytes, shared with the issuer (HS256). It is read again ' +
        'when it changes. Several, a line each, let it rotate.'
    )
  ),
  audience: Type.Optional(
    text(
      '.',
      'a text',
      'The `aud` that its tokens must carry. Only with `claims` it may be left out, for issuers that set none.'
    )
  ),
  claims: Type.Optional(claims),
  algorithms: Type.Array(word(algorithms, 'A signature algorithm.'), {
    minItems: 1,
    title: 'a list of signature algorithms',
    description: 'The only algorithms accepted.',
    default: ['RS256']
  }),
  subjectClaim: claim(
    'The claim that names the subject; `sub` when absent. Never one that users can choose themselves.'
  ),
  subjectPrefix: Type.Optional(
    text(
      shortName,
      'letters, digits, ".", "_" and "-"',
      'Stands before its subjects in place of the issuer. The same one twice merges two issuers.'
    )
  ),
  plan: name('the name of a plan', 'default', 'The plan of its sessions.'),
  planClaim: claim('The claim that names another plan. Never one that users can choose themselves.'),
  modelsClaim: claim(
    'The claim that lists models; all that the plan has when this is not set. Tokens without it: none.'
  ),
  poolClaim: claim('The claim that names a pool; without it, that of the plan. Never one that users can choose themselves.'),
  scopesClaim: claim('The claim that lists scopes; all of them when this is not set. Tokens without it: none.')
})

const creditsIn = (window: string) => Type.Optional(amount(`Credits ${window}.`))
const timedCeilings = {
  hour: creditsIn('an hour'),
  day: creditsIn('a day'),
  week: creditsIn('a week, from Monday'),
  month: creditsIn('a calendar month')
}

/** When days begin, and what follows from it. */
const windows = {
  zone: name('a time zone of the IANA database: UTC, Europe/Berlin', 'UTC', 'Whose days the ceilings count.'),
  resetHour: Type.Integer({
    minimum: 0,
    maximum: 23,
    title: 'a whole number, 0 to 23',
    description: 'The hour, on the clocks of the zone, at which days begin.',
    default: 0
  })
}

/** Of all subjects of a plan. */
const planCeilings = section('Most credits of all its subjects together, at most 6 decimals, in each window.', timedCeilings)

const ceilings = section('Most credits of all its subjects together, at most 6 decimals, in each window.', {
  ...timedCeilings,
  none: creditsIn('in all, prepaid; what the operator grants it is added')
})

const concurrentTasks = Type.Optional(Type.Integer({
  title: 'a whole number, 1 or more',
  description: 'Unfinished tasks at a time, of all its subjects together; any number when absent.',
  minimum: 1,
  maximum: Number.MAX_SAFE_INTEGER
}))

const bounded = { ceilings, concurrentTasks, ...windows }

/** What a session may do. Keys that are missing take their defaults in any plan, not in `default` alone. */
const plan = group({
  models: Type.Array(Type.String(glob), {
    title: 'a list of globs',
    description: 'Models that may be used. Empty means none.',
    default: ['*']
  }),
  requestsPerMinute: count(60, 'Submits and LLM calls a minute, per subject.'),
  pollsPerMinute: count(600, 'Status calls a minute, per subject: they have their own budget.'),
  concurrentTasks: count(5, 'Unfinished tasks at a time, per subject.'),
  credits: Type.Union([amount('Credits.'), Type.Literal('unlimited')], {
    title: 'a number, 0 to 1000000000, or the word unlimited',
    description: 'Credits per period, per subject, at most 6 decimals. `unlimited` must be written out.',
    default: 100
  }),
  period: oneOf(['minute', 'hour', 'day', 'month'], 'day', 'How often the credits begin anew, by UTC.'),
  ceilings: planCeilings,
  ...windows,
  pool: Type.Optional(text(shortName, 'the name of a pool', 'The pool of its sessions that name none themselves.'))
})

const plainValue = Type.Union([Type.String(), Type.Number(), Type.Boolean()], {
  title: 'a text, a number, or true or false'
})

const inputField = 'a field of the input such as input.duration'

/** What multiplies a price, and what it takes for a body that does not say. */
const factors = {
  per: Type.Optional(Type.Union([
    Type.String({ pattern: fieldPath }),
    Type.Array(Type.String({ pattern: inputPath, title: inputField }), { minItems: 1 })
  ], {
    title: `${inputField}, or a list of such fields`,
    description: 'They multiply the credits; one below the min of its cap, or below 1, counts as that.'
  })),
  default: Type.Optional(Type.Union([
    Type.Number({ minimum: 0, maximum: 1e9 }),
    Type.Record(
      Type.String({ pattern: inputPath }),
      Type.Number({ exclusiveMinimum: 0, maximum: 1e6, title: 'a number above 0, at most 1000000' }),
      { ...exact, minProperties: 1, title: 'numbers, each under a field of `per`' }
    )
  ], {
    title: 'a number, 0 to 1000000000, or numbers, each under a field of `per`',
    description: 'The number that counts when a field of `per` is absent. It is never sent.'
  }))
}

const submitPrice = group({
  credits: amount('Credits per submit, or per unit of `per`.'),
  ...factors,
  min: Type.Optional(amount('The least credits of a submit.')),
  onFailed: Type.Optional(word(['refund', 'charge'], 'The credits of a failed task; refund when absent.'))
})

const when = Type.Record(
  Type.String({ pattern: conditionPath }),
  Type.Union([plainValue, Type.Array(plainValue, { minItems: 1, title: 'a list of at least one value' })], {
    title: 'a text, a number, true or false, or a list of them'
  }),
  {
    ...exact,
    minProperties: 1,
    title: 'values, each under provider or a field of the input such as input.mode',
    description: 'The fields of which each has to have its value, or one of its values, for the rule to count.'
  }
)

/** One of several. The last one has no `when`: `priceProblems` says so. */
const conditionalPrice = group({ when: Type.Optional(when), ...submitPrice.properties })

function tokens (description: string) {
  return Type.Integer({ title: 'a whole number, 1 to 100000000', description, minimum: 1, maximum: 1e8 })
}

const serverTool = (description: string) => Type.Optional(Type.Object({
  perCall: amount('Credits for each call.'),
  tokensPerCall: tokens('The most input tokens that what it finds in a call comes to.'),
  maxCalls: Type.Optional(tokens('The most calls that a request may ask for.'))
}, { ...exact, title: 'a mapping of known keys', description }))

const tokenPrice = group({
  inputPerMillion: amount('Credits per million input tokens.'),
  outputPerMillion: amount('Credits per million output tokens.'),
  cacheReadPerMillion: Type.Optional(amount('Of tokens that are read from a cache; as input when absent.')),
  cacheWritePerMillion: Type.Optional(amount('Of tokens that are written to a cache; as input when absent.')),
  cacheWriteHourPerMillion: Type.Optional(amount('Of those that are kept for an hour; as other writes when absent.')),
  imageInputPerMillion: Type.Optional(amount('Of pictures that are sent; as input when absent.')),
  audioInputPerMillion: Type.Optional(amount('Of audio that is sent; as input when absent.')),
  reasoningPerMillion: Type.Optional(amount('Of reasoning; as output when absent.')),
  imageOutputPerMillion: Type.Optional(amount('Of pictures in an answer; without it none may be asked for.')),
  audioOutputPerMillion: Type.Optional(amount('Of audio in an answer; without it none may be asked for.')),
  hidesReasoning: Type.Optional(Type.Boolean({
    title: 'true or false',
    description: 'Whether answers may hold reasoning that is not shown: one that breaks off then costs all that was ' +
      'set aside. true when absent.'
  })),
  tokensPerImage: Type.Optional(tokens('The most input tokens of a picture; by the name of the model when absent.')),
  tokensPerFile: Type.Optional(tokens('The most input tokens of a document or film; 1048576 when absent.')),
  contextTokens: Type.Optional(tokens('The most input tokens that the model takes; no more is set aside for them.')),
  serverTools: Type.Optional(Type.Object({
    web_search: serverTool('Searches of the web, at /v1/messages and /v1/responses.'),
    web_fetch: serverTool('Pages that are fetched, at /v1/messages.')
  }, {
    ...exact,
    title: 'a mapping of known keys',
    description: 'Tools that the upstream runs and callers may ask for; others are refused.'
  })),
  serviceTiers: Type.Optional(Type.Record(
    Type.String({ pattern: '^[a-z][a-z0-9_]{0,31}$' }),
    Type.Number({
      title: 'a number above 0, to 1000',
      description: 'What its tokens cost, as a multiple.',
      exclusiveMinimum: 0,
      maximum: 1000
    }),
    {
      ...exact,
      title: 'a mapping from tiers of service to multiples',
      description: 'Tiers of service that callers may ask for, and the multiple that their tokens cost; others are refused.'
    }
  ))
})

const price = Type.Union([
  amount('Credits per submit.'),
  submitPrice,
  Type.Array(conditionalPrice, { minItems: 1, title: 'a list of rules' }),
  tokenPrice
], {
  title: 'a number, or {credits, per, default, min, onFailed}, or a list of such rules with when, or ' +
    '{inputPerMillion, outputPerMillion}'
})

function regularExpression (description: string) {
  return Type.String({
    minLength: 1,
    maxLength: 1000,
    title: 'a regular expression in the syntax of RE2',
    description: `${description} A regular expression as RE2 knows it; texts of more than 20000 characters are refused.`
  })
}

/** Bounds of one field of a request. */
const cap = Type.Object({
  required: Type.Optional(Type.Boolean({ title: 'true or false', description: 'Whether the field has to be there.' })),
  default: Type.Optional(Type.Union([...plainValue.anyOf], {
    title: 'a text, a number, or true or false',
    description: 'What is written into a body that leaves the field out. Prices go by it, too.'
  })),
  min: Type.Optional(Type.Number({ title: 'a number', description: 'The least number allowed.' })),
  max: Type.Optional(Type.Number({ title: 'a number', description: 'The greatest number allowed.' })),
  oneOf: Type.Optional(Type.Array(plainValue, {
    minItems: 1,
    title: 'a list of at least one value',
    description: 'The only values allowed; texts in either case.'
  })),
  maxItems: Type.Optional(Type.Integer({
    minimum: 0,
    title: 'a whole number, 0 or more',
    description: 'How many items a list may have.'
  })),
  pattern: Type.Optional(regularExpression('What a text has to have in it.')),
  not: Type.Optional(regularExpression('What a text must not have in it.'))
}, {
  ...exact,
  minProperties: 1,
  title: 'a mapping with required, default, min, max, oneOf, maxItems, pattern or not'
})

const caps = Type.Record(Type.String({ pattern: fieldPath }), cap, {
  ...exact,
  title: 'caps, each under a field of the body such as input.duration'
})

const limits = section('Bounds that hold for everybody.', {
  addressRequestsPerMinute: count(6000, 'Requests a minute, per address. A fixed window: at most twice this in any.'),
  addressFailuresPerMinute: count(60, '401 and 404 a minute, per address; health routes and callbacks are exempt.'),
  bodyBytes: bytes(16777216, 'The longest body of a request.'),
  bodyBytesInFlight: bytes(67108864, 'All bodies at a time. Others wait, socket paused; full queue: 503.'),
  streamsPerSubject: count(20, 'Open event streams, per subject.'),
  socketsPerAddress: count(2000, 'Open connections, per address.'),
  refundsPerPeriod: countOrNone(50, 'Refunds per period, per subject; past it a failed task stays charged.'),
  onStoreError: oneOf(['refuse', 'allow'], 'refuse',
    'What becomes of the request rate while the store is down; never of credits or ownership.')
})

const sessions = section('Lifetimes of sessions.', {
  defaultTtlSeconds: seconds(3600, 'How long a session lasts when its minting names no time.'),
  maxTtlSeconds: seconds(7776000, 'How long a session may last at most.'),
  cookieMaxAgeSeconds: seconds(604800, 'How long a cookie lasts that nobody uses; never longer than its session.')
})

const upstream = section('Waits of the calls to APIXO.', {
  connectMs: milliseconds(5000, 'Until a connection stands.'),
  headersMs: milliseconds(60000, 'Until the headers of an answer are there.'),
  bodyIdleMs: milliseconds(60000, 'Between two pieces of an answer.'),
  keepAliveMs: milliseconds(4000, 'How long an idle connection is kept.'),
  drainMs: milliseconds(10000, 'How long running requests get when the gateway stops.')
})

const polling = section('Least time between two upstream status calls of one task.', {
  image: milliseconds(3000, 'For image models.'),
  video: milliseconds(15000, 'For video models.'),
  audio: milliseconds(10000, 'For audio models.'),
  '*': milliseconds(5000, 'For all others.')
})

const tasks = section('Lives of tasks.', {
  giveUpMs: milliseconds(86400000, 'After this a task that does not end counts as unknown: charged, its slot freed.'),
  retentionDays: days(30, 'How long a finished task is remembered.')
})

const submit = section('Bodies of submits.', {
  fields: Type.Array(text('^[A-Za-z][A-Za-z0-9_-]{0,63}$', 'the name of a field', 'A top-level field.'), {
    title: 'a list of field names',
    description: 'Further top-level fields of a submit that are passed on.',
    default: []
  })
})

const ledger = section('The store of tasks and credits.', {
  synchronous: oneOf(['normal', 'full'], 'normal',
    'SQLite: `normal` survives a killed process, `full` also a power cut.')
})

/** The config file, with every key, its default, its unit and its bounds. The single source of all of these. */
export const gatewayFile = group({
  plans: Type.Record(Type.String({ pattern: shortName }), plan, {
    ...exact,
    title: 'plans, each under a name of letters, digits, ".", "_" and "-"',
    description: 'What a session may do. A session that names no plan gets `default`, which must be there.',
    default: {}
  }),
  pools: Type.Record(Type.String({ pattern: shortName }), group(bounded), {
    ...exact,
    title: 'pools, each under a name of letters, digits, ".", "_" and "-"',
    description: 'Teams whose subjects share ceilings. A token, a session, a claim of an issuer or a plan names one.',
    default: {}
  }),
  gateway: section('Ceilings of all subjects together.', bounded),
  prices: modelMap('prices', price, 'Credits per submit, at most 6 decimals; the first glob that matches, and the first of its rules, else 1.'),
  caps: modelMap('caps', caps, 'Bounds of fields of a request, answered with 400 before anything is spent.'),
  limits,
  sessions,
  upstream,
  polling,
  tasks,
  results: resultSettings,
  submit,
  batches: batchSettings,
  llm: llmSettings,
  issuers: Type.Array(issuer, {
    title: 'a list of issuers',
    description: 'Sessions issued elsewhere: by any OIDC provider, or under a shared secret.',
    default: []
  }),
  guests: guestSettings,
  callbacks: callbackSettings,
  alarms: alarmSettings,
  ledger
})

type DeepReadonly<Value> = Value extends object ? { readonly [Key in keyof Value]: DeepReadonly<Value[Key]> } : Value

/** The config file with all defaults filled in. Deeply frozen; its mappings under free names have no prototype. */
export type GatewayFile = DeepReadonly<Static<typeof gatewayFile>>
export type IssuerSettings = GatewayFile['issuers'][number]
