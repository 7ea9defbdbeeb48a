import { issueTimes } from '../domain/session.ts'
import { systemClock } from '../domain/time.ts'
import { isTokenId } from '../domain/tokens.ts'
import { checkSessionId, checkSubject, isKnownSession, isKnownSubject } from '../features/admin/admin.ts'
import {
  type PersonalTokens, personalTokens, type PrintedToken, type ShownToken, type TokenRequest
} from '../features/tokens/token-admin.ts'
import {
  choiceOf, type Column, type Command, type Given, secondsOf, shortInstant, table, UsageError
} from './command.ts'
import { first, printList, withOperator, withStore } from './operator.ts'

export const token: Command = {
  usage: `token create --subject NAME [--plan PLAN] [--pool POOL] [--ttl TIME]
                                  [--models LIST] [--scopes LIST]
       apixo-gateway token invite --subject NAME [the same] [--valid TIME]
       apixo-gateway token list [--limit N] [--format FORMAT]
       apixo-gateway token rotate ID [--grace TIME]
       apixo-gateway token revoke ID

  Tokens for people who share the upstream key. What is changed here counts in a
  server that is running, within a second. A token is shown once, on standard
  output, alone; an invitation is a link that shows its token once.

  --subject  whose it is: alice is charged as token:alice
  --plan     a plan of the config file; default when absent
  --pool     a pool of the config file; that of the plan when absent
  --ttl      such as 90d; 12h and 30m are times as well; the longest that
             sessions.maxTtlSeconds permits when absent. Of an invitation: from
             when it is accepted
  --models   names or globs, with commas between; all of the plan when absent
  --scopes   tasks:write, tasks:read, llm, with commas between; all when absent
  --valid    how long the link can be used; 7d when absent
  --grace    how long the secret before a rotation stays good; 24h when absent,
             0 when it has leaked
  --limit    how many, the newest first; 100 when absent
  --format   table (for people) or json; table when absent
`,
  options: {
    subject: { type: 'string' },
    plan: { type: 'string' },
    pool: { type: 'string' },
    ttl: { type: 'string' },
    models: { type: 'string' },
    scopes: { type: 'string' },
    valid: { type: 'string' },
    grace: { type: 'string' },
    limit: { type: 'string' },
    format: { type: 'string' }
  },
  operands: [1, 2],
  async run (given) {
    const [verb, id] = given.operands
    const action = actions[choiceOf('The word after token', verb!, verbs)]
    if (action.takesId && id === undefined) throw new UsageError(`${verb} needs the ID of a token.`)
    if (!action.takesId && id !== undefined) throw new UsageError(`${verb} takes no ID.`)
    const odd = Object.keys(given.options).find(name => !action.options.includes(name))
    if (odd !== undefined) throw new UsageError(`${verb} has no option --${odd}.`)
    await action.run(given)
    return 0
  }
}

type Options = Given['options']
interface Action {
  readonly takesId: boolean
  readonly options: readonly string[]
  run (given: Given): Promise<void>
}

const verbs = ['create', 'invite', 'list', 'rotate', 'revoke'] as const
const requestOptions = ['subject', 'plan', 'pool', 'ttl', 'models', 'scopes']
const actions: Readonly<Record<typeof verbs[number], Action>> = {
  create: { takesId: false, options: requestOptions, run: create },
  invite: { takesId: false, options: [...requestOptions, 'valid'], run: invite },
  list: { takesId: false, options: ['limit', 'format'], run: list },
  rotate: { takesId: true, options: ['grace'], run: rotate },
  revoke: { takesId: true, options: [], run: revoke }
}

const { now } = systemClock

function withTokens<Result> (work: (tokens: PersonalTokens) => Promise<Result>): Promise<Result> {
  return withStore(({ publicUrl, file: { plans, pools, sessions: { maxTtlSeconds } } }, store) => {
    const { tokens, records, revocations, audit: trail } = store
    const times = issueTimes({ revocations, now })
    return work(personalTokens({
      tokens,
      records,
      revocations,
      times,
      trail,
      actor: 'cli',
      plans,
      pools: Object.keys(pools),
      maxTtlSeconds,
      publicUrl,
      now
    }))
  })
}

function requestFrom ({ subject, plan, pool, ttl, models, scopes }: Options): TokenRequest {
  if (subject === undefined) throw new UsageError('Say whose it is to be: --subject NAME.')
  const ttlSeconds = ttl === undefined ? undefined : secondsOf('--ttl', ttl)
  return { subject, plan, pool, ttlSeconds, models: models?.split(','), scopes: scopes?.split(',') }
}

async function create ({ options }: Given): Promise<void> {
  const request = requestFrom(options)
  printOnce(await withTokens(tokens => tokens.create(request)))
}

/** What is secret goes alone to standard output, for a variable or a password manager; words for people do not. */
function printOnce ({ id, token, subject, plan, expiresAt, previousUntil }: PrintedToken): void {
  process.stdout.write(`${token}\n`)
  const grace =
    previousUntil === undefined ? '' : `\nThe secret before is good until ${shortInstant(previousUntil)} UTC.`
  const facts = `Token ${id} of ${subject}, plan ${plan}, until ${shortInstant(expiresAt)} UTC.`
  process.stderr.write(`${facts} It is not shown again.${grace}\n`)
}

async function invite ({ options: { valid, ...options } }: Given): Promise<void> {
  const request = requestFrom(options)
  const validSeconds = valid === undefined ? undefined : secondsOf('--valid', valid)
  const { id, link, subject, expiresAt } = await withTokens(tokens => tokens.invite(request, validSeconds))
  process.stdout.write(`${link}\n`)
  const until = `Until ${shortInstant(expiresAt)} UTC.`
  process.stderr.write(`Invitation ${id} of ${subject}: whoever opens it first gets the token. ${until}\n`)
}

const columns: ReadonlyArray<Column<ShownToken>> = [
  { title: 'id', of: ({ id }) => id },
  { title: 'subject', of: ({ subject }) => subject, shrinks: true },
  { title: 'state', of: ({ state }) => state },
  { title: 'plan', of: ({ plan }) => plan, shrinks: true },
  { title: 'until (UTC)', of: ({ expiresAt }) => shortInstant(expiresAt) },
  { title: 'last used', of: ({ usedAt }) => usedAt === null ? '-' : shortInstant(usedAt) },
  { title: 'spent', of: ({ spent }) => spent }
]

async function list ({ options: { limit = '100', format } }: Given): Promise<void> {
  await printList({ limit, format }, most => withTokens(tokens => first(most, tokens.list)), items =>
    items.length === 0
      ? 'There are no tokens.\n'
      : `${table(columns, items)}\nSpent: credits of the subject, this month.\n`)
}

async function rotate ({ operands: [, id], options: { grace } }: Given): Promise<void> {
  const graceSeconds = grace === undefined ? undefined : secondsOf('--grace', grace)
  const rotated = await withTokens(tokens => tokens.rotate(id!, graceSeconds))
  if (rotated === null) throw new Error(`${id} is no token, or has ended.`)
  printOnce(rotated)
}

async function revoke ({ operands: [, id] }: Given): Promise<void> {
  if (!await withTokens(tokens => tokens.revoke(id!))) throw new Error(`${id} is no token.`)
  process.stdout.write('Revoked: it is of no use within a second.\n')
}

export const session: Command = {
  usage: `session end --subject SUBJECT
       apixo-gateway session end ID

  Ends sessions for good: all of a subject that were issued until now, or one.
  Cookies and tokens are sessions as well, and so are those of other issuers.
  It counts in a server that is running, on every replica, within a second;
  streams that are open close within six.

  --subject  in its stored form, issuer and name: app:alice
  ID         as the audit trail has it, or of a token. Nobody has a list of
             sessions: an id that is none is ended like any other
`,
  options: { subject: { type: 'string' } },
  operands: [1, 2],
  async run ({ operands: [verb, id], options: { subject } }) {
    if (verb !== 'end') throw new UsageError('What can be done with sessions is: end.')
    if (id === undefined && subject !== undefined) await endAll(subject)
    else if (id !== undefined && subject === undefined) await endOne(id)
    else throw new UsageError('Say which: --subject SUBJECT for all of one, or the ID of a session.')
    return 0
  }
}

/** A subject that can't be one is refused before settings are read and the store is opened. */
async function endAll (subject: string): Promise<void> {
  checkSubject(subject)
  const [before, isKnown] = await withOperator(
    async (operator, store) => [await operator.endSessions(subject), await isKnownSubject(store, subject)] as const
  )
  process.stdout.write(
    `Ended: all sessions of ${subject} until ${shortInstant(before)} UTC are of no use within a second.\n`
  )
  if (!isKnown) {
    process.stderr.write(`But nothing is known of ${subject}, no session, task or credits: is it misspelt?\n`)
  }
}

async function endOne (id: string): Promise<void> {
  checkSessionId(id)
  const isKnown = await withOperator(async (operator, store) => {
    await operator.endSession(id)
    return isTokenId(id) ? await store.tokens.find(id) !== null : await isKnownSession(store, id)
  })
  process.stdout.write(`Ended: session ${id} is of no use within a second.\n`)
  if (!isKnown) {
    process.stderr.write(`But the audit trail has no session ${id}: if no other issuer gave it, is it misspelt?\n`)
  }
}

export const webhookSecret: Command = {
  usage: `webhook-secret HOST

  The secret with which a server checks the messages that the gateway sends
  it: one that stands in callbacks.allowedHosts, such as app.example. Its
  messages are signed by the rules of https://www.standardwebhooks.com.

  It is made from the newest session secret. While there are several of those,
  each message has a signature for each.
`,
  operands: [1],
  async run ({ operands }) {
    const host = operands[0]!
    if (host.includes('*') || URL.parse(`https://${host}`)?.hostname !== host) {
      throw new UsageError('HOST is one host in lower case, without scheme, port or path.')
    }
    const [{ processSettings }, { webhookSecret }] = await Promise.all([
      import('../settings.ts'), import('../features/callbacks/outbound.ts')
    ])
    process.stdout.write(`${webhookSecret(processSettings().sessionSecrets[0]!, host).reveal()}\n`)
    return 0
  }
}
