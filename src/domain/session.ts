import ipaddr from 'ipaddr.js'
import type { SessionBudget } from './ledger.ts'
import type { Microcredits } from './policy.ts'
import { type Awaitable, dayMs, endOfTime } from './time.ts'

export type Scope = 'tasks:write' | 'tasks:read' | 'llm'
export const scopes: readonly Scope[] = ['tasks:write', 'tasks:read', 'llm']

/** A model, or a glob of several, as a session lists them; as a pattern of schemas. */
export const modelGlob = '^[A-Za-z0-9._*-]{1,64}$'
const modelGlobPattern = new RegExp(modelGlob)
/** Most models of one session. */
export const maxModels = 100

export function isModelGlob (text: string): boolean {
  return modelGlobPattern.test(text)
}

/** What the subjects of sessions that the gateway itself gives begin with; no other issuer may have these names. */
export const ownPrefixes = { app: 'app:', guest: 'guest:', token: 'token:' } as const
type OwnIssuer = keyof typeof ownPrefixes

/** The `iss` of tokens that the gateway itself signs. */
export const ownIss = 'apixo-gateway'

export function hasOwnPrefix (name: string): boolean {
  return Object.values(ownPrefixes).some(prefix => name.startsWith(prefix))
}

/** Longest subject of a session that the gateway itself gives, without its prefix, characters. */
export const maxNameLength = 128

/** Who is calling, and what they may do: the verified content of a token. */
export interface Session {
  /** The token's id (`jti`): what is revoked, logged and stored. Never the token. */
  readonly id: string
  /** The issuer's name and its own, `app:alice`: subjects of two issuers can't collide. At most 160 characters. */
  readonly subject: string
  readonly plan: string
  readonly models: readonly string[]
  /** `models`, compiled once. */
  readonly permits: (model: string) => boolean
  readonly scopes: readonly Scope[]
  /** Unix ms. */
  readonly issuedAt: number
  /** Unix ms. */
  readonly expiresAt: number
  /** The web origins whose pages may use it; `null`: any holder may. */
  readonly origins: readonly string[] | null
  /** The network that it may be used from, in CIDR notation; `null`: from anywhere. */
  readonly addressRange: string | null
  /** Submits in its whole life; `null`: as many as the plan permits. */
  readonly uses: number | null
  /** Credits for its whole life, beside those of its subject; `null`: those of its subject alone. */
  readonly credits: Microcredits | null
  /** Its team, by the name of the settings; `null`: that of its plan. */
  readonly pool: string | null
  /** It is sent in a cookie and in nothing else; any other is sent in a header and in nothing else. */
  readonly isCookie: boolean
  /** Uses and credits count under this name: its own id, or that of the session which a cookie stands in for. */
  readonly rootId: string
  /** Unix ms. A cookie may be printed anew until then, and no later; of any other it is `expiresAt`. */
  readonly endsAt: number
}

type Scoping = 'origins' | 'addressRange' | 'uses' | 'credits' | 'pool' | 'isCookie' | 'rootId' | 'endsAt'

/** A session without limits of its own: it may be used from anywhere, as often as its plan permits. */
export function unscoped (session: Omit<Session, Scoping>): Session {
  const scoping = { origins: null, addressRange: null, uses: null, credits: null, pool: null, isCookie: false }
  return { ...session, ...scoping, rootId: session.id, endsAt: session.expiresAt }
}

/** What a submit takes from the session itself; `undefined`: nothing, only from its subject. */
export function budgetOf ({ uses, credits, rootId, endsAt }: Session): SessionBudget | undefined {
  return uses === null && credits === null ? undefined : { id: rootId, uses, creditLimit: credits, expiresAt: endsAt }
}

/** `'bad'`: mine, and bad; nobody else is asked. `null`: not mine, ask the next verifier. */
export type Verdict = Session | 'bad' | null

/**
 * Turns a credential into a session. What it knows, it says at once.
 *
 * What is bad is said and not thrown, for it comes as a flood: V8 never compiles a function that always ends with a
 * throw. Anything else a verifier does (no answer, a throw) leaves the caller without a session.
 */
export interface SessionVerifier {
  verify (credential: string): Awaitable<Verdict>
}

/** What the app's backend asks for when it mints a session. */
export interface SessionRequest {
  /** The issuer that `subject` is a name of: the stored subject begins with it. `app` when absent. */
  readonly issuer?: Exclude<OwnIssuer, 'token'> | undefined
  /** The issuer's own name for its user, without a prefix. */
  readonly subject: string
  readonly plan: string
  readonly models: readonly string[]
  readonly scopes: readonly Scope[]
  readonly ttlSeconds: number
  /** When it begins, Unix ms; now when absent. Its end is reckoned from now in any case. */
  readonly issuedAt?: number | undefined
  /** As in a session; absent is `null`. */
  readonly origins?: readonly string[] | undefined
  readonly addressRange?: string | undefined
  readonly uses?: number | undefined
  readonly credits?: Microcredits | undefined
  readonly pool?: string | undefined
}

/** A session and its printed form. */
export interface PrintedSession {
  readonly token: string
  readonly session: Session
}

export interface SessionIssuer {
  mint (request: SessionRequest): Promise<PrintedSession>
  /**
   * Prints a session for a cookie, to last until `expiresAt` (Unix ms), but never beyond the session's own `endsAt`: no
   * cookie can do more than what it stands in for, or for longer. Of a session in a header that is a new one with an id
   * of its own; of one that is in a cookie already it is the same one, so that requests with the older print, which are
   * under way, are no strangers.
   */
  printCookie (session: Session, expiresAt: number): Promise<PrintedSession>
}

/** What is asked of revocations. */
export type RevocableSession = Pick<Session, 'id' | 'subject' | 'issuedAt'> & Partial<Pick<Session, 'rootId'>>

/**
 * The id that revokes the cookie made from a session; exchanging the session for a cookie revokes only the session id.
 * No session has such an id: ids are printable.
 */
export function cookieRevocationId (sessionId: string): string {
  return `${sessionId}\n`
}

/**
 * That a subject has ended all its sessions is remembered for at least so long, ms: `sessions.maxTtlSeconds` may have
 * been longer when they were minted.
 */
export const endedEverywhereMs = 400 * dayMs

/**
 * What must not come back is kept for so much longer than it holds, ms: the clock by which it is forgotten may be put
 * back later. A session that was revoked must not be good again, what a session has taken must not be had again, nor
 * may an idempotency key's submit be charged twice. It bears a step of a day, and a session of an hour.
 */
export const forgetSlackMs = 2 * dayMs

/**
 * Remembers which sessions have ended before their time. What one process has written holds for all that share the
 * store, within a second: they ask, and no message has to arrive. All throw `GW_STORE_DOWN`.
 */
export interface Revocations {
  /**
   * Resolves when the revocation is on disk. Revoking twice is once: of several calls, even at the same time, one is
   * told `true`. `expiresAt` (Unix ms): it may be forgotten `forgetSlackMs` later.
   */
  revoke (sessionId: string, expiresAt: number): Promise<boolean>
  /**
   * Ends all sessions of the subject that were issued at `before` (Unix ms) or earlier; a later `before` takes the
   * place of an earlier one, and never the other way round. On disk when it resolves. `expiresAt`: as above.
   */
  revokeSubject (subject: string, before: number, expiresAt: number): Promise<void>
  /** The latest `before` of the subject, Unix ms; `-Infinity`: its sessions were never ended, or that is forgotten. */
  endedBefore (subject: string): Promise<number>
  /** By its id, or with all of its subject's. It is said, or thrown, at once where it is known. */
  isRevoked (session: RevocableSession): Awaitable<boolean>
}

/**
 * Whether a text is one exact web origin, as browsers write it (RFC 6454 section 6.2), that nobody on the way can
 * pretend to be: https, or http on this machine.
 */
export function isWebOrigin (text: string): boolean {
  const url = text.includes('*') ? null : URL.parse(text)
  return url !== null && url.origin === text && isTrustworthy(url)
}

/**
 * Pages inside of an app, and of a browser's extension, have origins too, which no page of the web can have: an app's
 * scheme and host, or the id of the extension. What `Origin` says is the text itself.
 */
const appOrigins = [
  /^(?:capacitor|ionic|tauri):\/\/[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?$/,
  /^chrome-extension:\/\/[a-p]{32}$/,
  /^(?:moz|safari-web)-extension:\/\/[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$/
]

/** Whether a text is the one exact origin of an app or an extension. */
export function isAppOrigin (text: string): boolean {
  return appOrigins.some(form => form.test(text))
}

/**
 * As browsers judge it before they take a `Secure` cookie:
 * https://w3c.github.io/webappsec-secure-contexts/#is-origin-trustworthy
 */
export function isTrustworthy ({ protocol, hostname }: Pick<URL, 'protocol' | 'hostname'>): boolean {
  return protocol === 'https:' || (protocol === 'http:' && isThisMachine(hostname))
}

function isThisMachine (hostname: string): boolean {
  const host = hostname.replace(/^\[|\]$/g, '')
  if (ipaddr.isValid(host)) return ipaddr.process(host).range() === 'loopback'
  return host === 'localhost' || host.endsWith('.localhost')
}

/**
 * A network in CIDR notation (RFC 4632, RFC 4291), in the one way that we write it: `203.0.113.7/24` is
 * `203.0.113.0/24`, and an IPv4 network inside IPv6 is an IPv4 network, for so are its callers' addresses. `null`: it
 * is none.
 */
export function readAddressRange (text: string): string | null {
  // The library would take octal and three-part addresses too, which others read in other ways.
  const [address = '', length = ''] = text.split('/', 2)
  const isPlain = /^[0-9]{1,3}$/.test(length) && `${address}/${length}` === text && !address.includes('%')
  if (!isPlain || !(ipaddr.IPv4.isValidFourPartDecimal(address) || ipaddr.IPv6.isValid(address))) return null
  const parsed = ipaddr.parse(address)
  const isMapped = 'isIPv4MappedAddress' in parsed && parsed.isIPv4MappedAddress()
  const bits = Number(length) - (isMapped ? 96 : 0)
  const plain = ipaddr.process(address)
  if (bits < 0 || bits > plain.toByteArray().length * 8) return null
  const range = `${plain.toString()}/${bits}`
  const network =
    plain.kind() === 'ipv4' ? ipaddr.IPv4.networkAddressFromCIDR(range) : ipaddr.IPv6.networkAddressFromCIDR(range)
  return `${network.toString()}/${bits}`
}

/** An address as a proxy may name it: some write the port beside it, `203.0.113.7:4711` or `[2001:db8::1]:4711`. */
export function withoutPort (address: string): string {
  return /^\[(.+)\](?::\d+)?$/.exec(address)?.[1] ?? /^([\d.]+):\d+$/.exec(address)?.[1] ?? address
}

/** Whether an address lies in a network that `readAddressRange` has read. What is no address lies in none. */
export function isInRange (address: string, range: string): boolean {
  if (!ipaddr.isValid(address)) return false
  const caller = ipaddr.process(address)
  const [network, bits] = ipaddr.parseCIDR(range)
  return caller.kind() === network.kind() && caller.match(network, bits)
}

/**
 * When sessions begin, and up to when they are ended, though somebody sets the wall clock. All sessions of a subject
 * are ended by when they were issued, so a clock that was put back would miss those from before, and end those to come.
 */
export interface IssueTimes {
  /**
   * When a new session of the subject begins, Unix ms: now, or right after the instant up to which all its sessions
   * were ended, if the clock is behind that. Throws `GW_STORE_DOWN`.
   */
  next (subject: string): Promise<number>
  /**
   * Up to when sessions are ended that are to end now, Unix ms: now, or the latest instant that any clock of this
   * gateway has shown, if ours is more than a minute behind it. Throws `GW_STORE_DOWN`.
   */
  end (): Promise<number>
  /** Writes down how far the clock has come, about once a minute. Throws `GW_STORE_DOWN`. */
  note (): Promise<void>
}

/** A session that is minted after all of its subject's were ended is not one of those, whatever the clock says. */
export function mintedInTime<Sessions extends SessionIssuer> (
  sessions: Sessions,
  { next }: Pick<IssueTimes, 'next'>
): Sessions {
  return {
    ...sessions,
    async mint (request: SessionRequest) {
      const { issuer = 'app', subject } = request
      return await sessions.mint({ ...request, issuedAt: await next(ownPrefixes[issuer] + subject) })
    }
  }
}

interface IssueTimesOptions {
  readonly revocations: Pick<Revocations, 'revokeSubject' | 'endedBefore'>
  readonly now: () => number
}

/** How far the clock has come is kept as the end of a subject that nobody can be: names of subjects are printable. */
const mark = '\nlatest'
/** The mark is set so far ahead, ms: it is written once in that time, and no session begins after it. */
const aheadMs = 60_000
/** So far may the clocks of two replicas differ, ms; a greater difference is a clock that was put back. */
const skewMs = 60_000

export function issueTimes ({ revocations, now }: IssueTimesOptions): IssueTimes {
  let latest = -Infinity
  let marked = -Infinity

  const reach = (at: number): number => {
    latest = Math.max(latest, at)
    return at
  }
  const note = async (): Promise<void> => {
    if (latest <= marked) return
    const until = latest + aheadMs
    await revocations.revokeSubject(mark, until, endOfTime)
    marked = until
  }

  return {
    async next (subject) {
      const at = reach(Math.max(now(), await revocations.endedBefore(subject) + 1))
      await note()
      return at
    },
    async end () {
      const at = reach(now())
      const until = await revocations.endedBefore(mark)
      return at + aheadMs + skewMs < until ? Math.max(latest, until) : latest
    },
    async note () {
      reach(now())
      await note()
    }
  }
}

export function isGuest (subject: string): boolean {
  return subject.startsWith(ownPrefixes.guest)
}
