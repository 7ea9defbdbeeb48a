import { Cluster, Redis, type RedisOptions, ReplyError } from 'ioredis'
import { randomUUID } from 'node:crypto'
import type { ConnectionOptions } from 'node:tls'
import { idempotencyMs, type LedgerTerms, maxRepeats, repeatMs } from '../../domain/ledger.ts'
import { endsKeptMs } from '../../domain/records.ts'
import type { Secret } from '../../domain/secret.ts'
import { forgetSlackMs } from '../../domain/session.ts'
import { gatewayError } from '../../errors.ts'
import { deadMs, keepMs, type KeyNames, slackMs } from './keys.ts'
import {
  type KeyRequests, type KeyScript, keyScripts, packed, preludeOf, type SubjectRequests, type SubjectScript,
  subjectScripts, type SubjectTerms
} from './scripts.ts'

/**
 * Answers that mean that the server can't serve, not that it was asked for nonsense: of a replica, a full or a loading
 * server, a cluster that is being repaired, a changed password, a full disk, … An older server wraps what happens
 * within a script: `ERR Error running script (call to f_…): @user_script:12: -OOM command not allowed …`
 */
const outage =
  /^(?:ERR Error running script.*?-)?(?:READONLY|OOM|LOADING|CLUSTERDOWN|MASTERDOWN|MOVED|ASK|TRYAGAIN|NOAUTH|WRONGPASS|NOPERM|MISCONF|NOREPLICAS|BUSY|NOSCRIPT|ERR max number of clients)\b/

/**
 * Makes errors of what the client threw. Only its sentence is kept: the client hangs commands on it, with all they say.
 */
interface Failures {
  /** What went wrong, for a log. */
  reason (error: unknown): Error
  /** What is thrown instead: `GW_STORE_DOWN`, or the reason itself when the server was asked for nonsense. */
  failure (error: unknown): Error
}

export function failures (password: string | undefined): Failures {
  const reason = (error: unknown): Error => {
    const { message, code } = error as Error & { readonly code?: unknown }
    // Of several addresses that were tried there is no message. A server that does not know a command repeats it whole.
    const text = withoutSecret(message || String(code), password)
    return Object.assign(new Error(text), code === undefined ? {} : { code })
  }
  return {
    reason,
    failure (error) {
      const cause = reason(error)
      if (error instanceof ReplyError && !outage.test(cause.message)) return cause
      return gatewayError('GW_STORE_DOWN', { retryAfterSeconds: 1, cause })
    }
  }
}

function withoutSecret (text: string, password: string | undefined): string {
  return password === undefined ? text : text.replaceAll(password, '[secret]')
}

export interface ConnectionSettings {
  /** `redis://` or `rediss://`, with user, password and database. */
  readonly url: Secret
  /** For `rediss:`, beside Node's own defaults: a private authority for one. */
  readonly tls?: ConnectionOptions
  /**
   * Told why a connection was lost or can not be made: at once, and again every minute while the reason stays the same.
   */
  readonly onLost: (reason: Error) => void
}

export interface Connection {
  readonly client: Redis | Cluster
  /** Its number; 0 in a cluster. */
  readonly database: number
  readonly failure: Failures['failure']
  /**
   * One for a single node, any one in a cluster, that is not connected yet. When it has lost its connection it has
   * ended.
   */
  another (): Redis
  /** Tells why a connection was lost, or is of no use. */
  reportLost (reason: Error): void
  /** What is thrown when the server turns out to be of no use at start. */
  unusable (error: unknown): Error
  close (): Promise<void>
}

/** A command that has no answer by then has failed, ms; it may still be carried out. */
const commandMs = 1000
/** A server that is silent for so long, while it owes answers, is gone, ms: a cut cable closes no connection. */
const silenceMs = 5000
const connectMs = 3000
const keepAliveMs = 10_000
/**
 * How often a cluster is asked which node serves what, ms; a wrong answer is found out sooner, by the first misdirected
 * command.
 */
const topologyMs = 5000
/** Longest pause between two tries to connect, ms. */
const maxBackoffMs = 1000
/**
 * After a failover an old name may lead to the new master, but not over the old connection. Not more often than this,
 * ms.
 */
const freshConnectionMs = 5000
const tellAgainMs = 60_000

/**
 * Connects, and finds out whether the server is a node of a cluster: then it is the seed of a client that knows all of
 * them. Throws, in a sentence without the password, when the server can not be reached or could forget what it was
 * told. A connection that is lost later is made again for ever.
 *
 * Nothing waits for a connection (a command fails at once instead), and nothing is sent twice by the client: what it
 * does not know the fate of is for the callers to repeat.
 */
export async function connection ({ url, tls, onLost }: ConnectionSettings): Promise<Connection> {
  const target = targetOf(url.reveal(), tls)
  const { reason, failure } = failures(target.password)
  const trial = { isOver: false, problem: undefined as Error | undefined }
  const tell = seldom(onLost)
  const reportLost = (error: Error): void => {
    if (trial.isOver) tell(reason(error))
    else trial.problem = reason(error)
  }
  const unusable = (cause: Error): Error =>
    new Error(`the store ${shown(target)} can not be used: ${cause.message}`, { cause })
  const again = (times: number): number | null => (trial.isOver ? backoffMs(times) : null)
  const single = new Redis({ ...steady(target), enableOfflineQueue: false, retryStrategy: again })
  let client: Redis | Cluster = single.on('error', reportLost)

  try {
    await client.connect()
    let reports = [await client.info()]
    if (valueOf(reports[0]!, 'cluster_enabled') === '1') {
      client.disconnect()
      client = clusterFrom(target, again).on('error', reportLost).on('node error', reportLost)
      await client.connect()
      // Each node's connection is made by its first command, and those that come beside that one would be refused.
      reports = await Promise.all(client.nodes('master').map(node => node.info()))
    }
    for (const report of reports) checkMemory(report)
  } catch (error) {
    client.disconnect()
    // A failed connection throws no more than that it is closed.
    throw unusable(error instanceof Refusal ? error : trial.problem ?? reason(error))
  }
  trial.isOver = true
  return {
    client,
    database: target.db,
    failure,
    another: () =>
      new Redis({ ...steady(target), ...placeIn(client), enableOfflineQueue: false, retryStrategy: () => null }).on(
        'error',
        reportLost
      ),
    reportLost,
    unusable: error => unusable(reason((error as Error).cause ?? error)),
    close: () => end(client)
  }
}

/** Where some node of a cluster is. It may be dead: a second try gets another. */
function placeIn (client: Redis | Cluster): Pick<RedisOptions, 'host' | 'port'> {
  const places =
    client instanceof Cluster ? client.nodes().map(({ options: { host, port } }) => ({ host: host!, port: port! })) : []
  return places[Math.floor(Math.random() * places.length)] ?? {}
}

/** Each try to connect fails for the same reason, and there are many of them. */
function seldom (tell: (reason: Error) => void): typeof tell {
  let last = { message: '', at: -Infinity }
  return (reason) => {
    const at = performance.now()
    if (reason.message === last.message && at - last.at < tellAgainMs) return
    last = { message: reason.message, at }
    tell(reason)
  }
}

async function end (client: Redis | Cluster): Promise<void> {
  await client.quit().catch(() => {}) // waits for the answers that are still to come
  client.disconnect()
}

type Target = Pick<RedisOptions, 'username' | 'password' | 'tls'> & {
  readonly host: string
  readonly port: number
  readonly db: number
}

function targetOf (text: string, tls: ConnectionOptions = {}): Target {
  const { protocol, hostname, port, username, password, pathname } = new URL(text)
  return {
    host: hostname.replace(/^\[|\]$/g, ''),
    port: Number(port || 6379),
    db: Number(pathname.slice(1)),
    ...(username === '' ? {} : { username: decodeURIComponent(username) }),
    ...(password === '' ? {} : { password: decodeURIComponent(password) }),
    ...(protocol === 'rediss:' ? { tls } : {})
  }
}

function shown ({ host, port, tls }: Target): string {
  return `${tls === undefined ? 'redis' : 'rediss'}://${host}:${port}`
}

/** What holds for a server by itself, and for each node of a cluster. */
function steady (target: Target) {
  let freshAt = -Infinity
  return {
    ...target,
    lazyConnect: true,
    autoResendUnfulfilledCommands: false,
    maxRetriesPerRequest: 0,
    commandTimeout: commandMs,
    socketTimeout: silenceMs,
    connectTimeout: connectMs,
    keepAlive: keepAliveMs,
    disableClientInfo: true,
    reconnectOnError ({ message }) {
      if (!message.startsWith('READONLY') || performance.now() - freshAt < freshConnectionMs) return false
      freshAt = performance.now()
      return true
    }
  } satisfies RedisOptions
}

function clusterFrom (target: Target, clusterRetryStrategy: (times: number) => number | null): Cluster {
  const { host, port, db, ...redisOptions } = steady(target)
  if (db !== 0) throw new Refusal(`it is a cluster, which has no database ${db}: leave the number out`)
  // Each node leads back into the cluster: the one in the settings may be gone by then.
  const seeds = [{ host, port }]
  const cluster = new Cluster(seeds, {
    lazyConnect: true,
    enableOfflineQueue: false,
    redisOptions,
    clusterRetryStrategy,
    // It would ask any node, a dead one as well, whether the cluster is whole, and wait for long if it is not.
    enableReadyCheck: false,
    slotsRefreshInterval: topologyMs,
    slotsRefreshTimeout: commandMs,
    // These would repeat a command that may have been carried out, or that nobody waits for any more.
    retryDelayOnFailover: 0,
    retryDelayOnClusterDown: 0,
    // A certificate is for a name, so names stay names.
    dnsLookup: (name, done) => done(null, name)
  })
  cluster.on('refresh', () => {
    seeds.splice(1, Infinity, ...cluster.nodes().map(({ options: { host, port } }) => ({ host: host!, port: port! })))
  })
  return cluster
}

/** How long to wait before so many a try to connect, ms. */
export function backoffMs (times: number): number {
  return Math.min(50 * 2 ** Math.min(times - 1, 10), maxBackoffMs) * (0.5 + Math.random() / 2)
}

/** The server is in order, but must not be used like this. */
class Refusal extends Error {}

/** A server that makes room by forgetting keys forgets charges and owners. */
function checkMemory (report: string): void {
  const policy = valueOf(report, 'maxmemory_policy')
  if (policy === 'noeviction') return
  throw new Refusal(`when its memory is full it may forget keys: set maxmemory-policy to noeviction, it is ${policy}`)
}

function valueOf (report: string, name: string): string | undefined {
  return new RegExp(`^${name}:(.*?)\\r?$`, 'm').exec(report)?.[1]
}

/** An answer of a script. Lua's `false` is `null`; it has no `true`. */
export type Reply = Buffer | number | null | readonly Reply[]

/** Asks Redis. All throw `GW_STORE_DOWN` when it can not serve. */
export interface Commands {
  /** Runs a script in the slot of a subject. `body`: of the answer that the request has, or is. */
  ofSubject<Script extends SubjectScript> (
    subject: string, script: Script, request: SubjectRequests[Script], body?: Buffer
  ): Promise<Reply>
  /** Runs a script in the slot of a key. `body`: as above. */
  on<Script extends KeyScript> (
    key: string, script: Script, request: KeyRequests[Script], body?: Buffer
  ): Promise<Reply>
  /** Gives a plain command. */
  ask<T> (give: (client: Redis | Cluster) => Promise<T>): Promise<T>
}

interface CommandsOptions {
  readonly connection: Connection
  readonly mark: MemoryMark
  readonly keys: KeyNames
  readonly terms: LedgerTerms
  readonly now: () => number
}

/** How long the sums of a day are kept, ms. */
const usageMs = 400 * 86_400_000

function subjectTerms (terms: LedgerTerms): SubjectTerms {
  const { giveUpMs, sentMs, reservedMs, retentionMs, refundsPerPeriod } = terms
  return {
    keepMs: keepMs(terms),
    retentionMs,
    supersededMs: giveUpMs + sentMs + reservedMs + slackMs,
    usageMs,
    endsKeptMs,
    idempotencyMs: idempotencyMs + forgetSlackMs + slackMs,
    repeatMs,
    deadMs,
    slackMs,
    maxRepeats,
    refundsPerPeriod
  }
}

type Script = (key: string, argument: string, ...body: readonly Buffer[]) => Promise<Reply>

/** Makes a command of each script. Its answer is bytes: some have the body of another answer in them. */
function defineScripts (
  client: Redis | Cluster, scripts: ReadonlyMap<string, string>, prelude = ''
): ReadonlyMap<string, Script> {
  return new Map(Array.from(scripts, ([name, text]) => {
    client.defineCommand(name, { numberOfKeys: 1, lua: prelude + text })
    const script: Script = Reflect.get(client, `${name}Buffer`)
    return [name, script.bind(client)]
  }))
}

export function commands ({ connection: { client, failure }, mark, keys, terms, now }: CommandsOptions): Commands {
  const ofSubjects = defineScripts(client, subjectScripts, preludeOf(subjectTerms(terms)))
  const ofKeys = defineScripts(client, keyScripts)

  const run = async (script: Script, key: string, argument: string, body: Buffer | undefined): Promise<Reply> => {
    mark.assertSame()
    try {
      return await (body === undefined ? script(key, argument) : script(key, argument, body))
    } catch (error) {
      throw failure(error)
    }
  }
  return {
    ofSubject: (subject, script, request, body) =>
      run(ofSubjects.get(script)!, keys.account(subject), packed({ now: now(), request }), body),
    on: (key, script, request, body) => run(ofKeys.get(script)!, key, packed(request), body),
    async ask (give) {
      mark.assertSame()
      try {
        return await give(client)
      } catch (error) {
        throw failure(error)
      }
    }
  }
}

interface MemoryMarkOptions extends Pick<Connection, 'client' | 'failure'> {
  readonly keys: Pick<KeyNames, 'mark'>
  /** Told once each time that the server is found without what it was told. */
  readonly onGone: (problem: string) => void
}

/** Knows a Redis that has come back empty, or is another one. */
export interface MemoryMark {
  /**
   * Throws `GW_STORE_DOWN` while the server is not known to be the one it was. Sees to it that it is asked each second.
   */
  assertSame (): void
  /** Asks the server, once however many ask at a time. Throws `GW_STORE_DOWN`, also when it can not say. */
  check (): Promise<void>
}

const checkEveryMs = 1000
const problems = {
  unknown: 'it has not been asked yet whether it is the one it was',
  gone: 'Redis has lost what it was told: it came back empty, or is another one. ' +
    'Bring its data back, or restart every gateway to begin anew'
}

/**
 * A Redis without its memory knows no owner, no charge and no revocation: a session that was revoked would be good
 * again, and whatever was spent could be spent once more. So nothing is served from it, until the data are back or an
 * operator has restarted the gateway, and an alarm says which.
 *
 * Nothing is sent between a new connection and the answer of the server that it leads to.
 */
export async function memoryMark ({ client, failure, keys, onGone }: MemoryMarkOptions): Promise<MemoryMark> {
  let id: string | null = null
  let state: 'same' | keyof typeof problems = 'same'
  let checkedAt = performance.now()
  let running: Promise<void> | null = null

  const look = async (): Promise<void> => {
    if (id === null) await client.set(keys.mark, randomUUID(), 'NX')
    const found = await client.get(keys.mark)
    id ??= found
    const wasGone = state === 'gone'
    state = found === id ? 'same' : 'gone'
    if (state === 'gone' && !wasGone) onGone(problems.gone)
  }
  const ask = (): Promise<void> => {
    checkedAt = performance.now()
    running ??= look().finally(() => { running = null })
    return running
  }
  const askBehind = (): void => { ask().catch(() => { /* the sender of the next command is told, and asks again */ }) }
  const assertSame = (): void => {
    if (state !== 'same' || performance.now() - checkedAt >= checkEveryMs) askBehind()
    if (state !== 'same') throw failure(new Error(problems[state]))
  }

  // A server that can not be written to now, such as a replica before it takes over, is marked when it can.
  await ask().catch(() => {})
  client.on('ready', () => {
    if (state === 'same' && id !== null) state = 'unknown'
    askBehind()
  })
  return {
    assertSame,
    async check () {
      await ask().catch(error => { throw failure(error) })
      assertSame()
    }
  }
}
