import { Type, type Static } from 'typebox'
import { issuer } from './issuer-schema.ts'
import { caps, plan, price } from './plan-schema.ts'
import {
  bytes, count, countOrNone, days, exact, flag, group, hosts, milliseconds, modelMap, name, oneOf, seconds, section, text
} from './vocabulary.ts'

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

const results = section('Files that tasks have made.', {
  hosts: hosts(['*.apixo.ai'], 'Hosts that results are fetched from.'),
  maxBytes: bytes(536870912, 'The longest result.'),
  keep: oneOf(['none', 'directory'], 'none', 'Where the gateway keeps results itself, beyond their day at APIXO.'),
  ticketSeconds: seconds(900, 'How long a ticket opens a result.')
})

const submit = section('Bodies of submits.', {
  fields: Type.Array(text('^[A-Za-z][A-Za-z0-9_-]{0,63}$', 'the name of a field', 'A top-level field.'), {
    title: 'a list of field names',
    description: 'Further top-level fields of a submit that are passed on.',
    default: []
  })
})

const guests = section('Sessions for anybody.', {
  enabled: flag(false, 'Opens sessions for guests.'),
  plan: name('the name of a plan', 'guest', 'The plan of guests. Its credits can not be unlimited.'),
  sessionsPerAddressPerDay: count(5, 'Guest sessions a day, per address.'),
  proof: oneOf(['work', 'turnstile', 'none'], 'work', 'What a guest has to show first.'),
  turnstileSecretFile: Type.Optional(text('.', 'the path of a file',
    'A file with the secret key of Turnstile, for `proof: turnstile`. It is read again when it changes.'))
})

const callbacks = section('Callbacks.', {
  inbound: flag(false, 'Lets APIXO announce the end of a task. Needs GATEWAY_PUBLIC_URL, https: and not private.'),
  allowedHosts: hosts([], 'Hosts that callers may name for callbacks of their own.')
})

/** The config file, with every key, its default, its unit and its bounds. The single source of all of these. */
export const gatewayFile = group({
  plans: Type.Record(Type.String({ pattern: '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$' }), plan, {
    ...exact,
    title: 'plans, each under a name of letters, digits, ".", "_" and "-"',
    description: 'What a session may do. A session that names no plan gets `default`, which must be there.',
    default: {}
  }),
  prices: modelMap('prices', price, 'Credits per submit, at most 6 decimals; the first glob that matches, else 1.'),
  caps: modelMap('caps', caps, 'Bounds of fields of a request, answered with 400 before anything is spent.'),
  limits,
  sessions,
  upstream,
  polling,
  tasks,
  results,
  submit,
  batches: section('Batches of tasks.', { enabled: flag(false, 'Opens the batch routes.') }),
  llm: section('LLM calls.', {
    defaultMaxOutputTokens: count(4096, 'Output tokens that credits are set aside for when a request names no limit.')
  }),
  issuers: Type.Array(issuer, {
    title: 'a list of issuers',
    description: 'Sessions issued elsewhere: by any OIDC provider, or under a shared secret.',
    default: []
  }),
  guests,
  callbacks,
  ledger: section('The store of tasks and credits.', {
    synchronous: oneOf(['normal', 'full'], 'normal',
      'SQLite: `normal` survives a killed process, `full` also a power cut.')
  })
})

type DeepReadonly<Value> = Value extends object ? { readonly [Key in keyof Value]: DeepReadonly<Value[Key]> } : Value

/** The config file with all defaults filled in. Deeply frozen; its mappings under free names have no prototype. */
export type GatewayFile = DeepReadonly<Static<typeof gatewayFile>>
export type PlanSettings = GatewayFile['plans'][string]
export type PriceSettings = GatewayFile['prices'][string]
export type CapSettings = GatewayFile['caps'][string][string]
export type IssuerSettings = GatewayFile['issuers'][number]
