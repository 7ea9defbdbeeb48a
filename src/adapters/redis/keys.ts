import type { AuditPart } from '../../domain/audit.ts'
import type { CeilingAccount, LedgerTerms } from '../../domain/ledger.ts'
import { erasedPrefix } from '../../domain/subject-data.ts'
import { dayMs, hourMs } from '../../domain/time.ts'

/**
 * Where things stand in Redis. What stands in braces decides the hash slot: keys with the same braces stand together.
 */
export interface KeyNames {
  /** The one that all other keys of a subject are derived from, in the scripts. */
  account (subject: string): string
  /** The one that all other keys of an account above the subjects are derived from, in the scripts. */
  holdsOf (account: CeilingAccount): string
  /** The names of those accounts. */
  readonly ceilings: string
  reservation (place: Place): string
  /** A pattern for `SCAN`: all that stands in the slot of a subject. */
  allOf (subject: string): string
  /** What a subject is called where something stays of it; there while it is being erased. */
  erasing (subject: string): string
  /** That the outcome of a call was told as unknown. */
  unknownCall (subject: string, fingerprint: string): string
  /** What the upstream keeps for a subject. */
  upstreamState (subject: string, id: string): string
  /** The reservation that a task id belongs to. */
  owner (taskId: string): string
  pollLease (taskId: string): string
  /** A part of the subjects that have something unfinished. */
  activeSubjects (shard: number): string
  revocation (sessionId: string): string
  /** When all sessions of a subject were revoked. */
  revocationOf (subject: string): string
  /** The reservation that the hash of a callback's secret belongs to. */
  callback (secretHash: string): string
  /** The subjects that may have deliveries. */
  readonly deliveries: string
  guestCount (name: string): string
  /** The name that replicas of earlier versions count under, whose limiter put a route where there is none. */
  rate (key: string): string
  spentProof (id: string): string
  /** All tokens stand in the slot of `tokens`, their list. */
  token (id: string): string
  readonly tokens: string
  /** What shows that a write is possible; several, so that they spread over the nodes of a cluster. */
  probe (index: number): string
  readonly leader: string
  /** That a replica is there, by the name that it drew at its start. */
  alive (start: string): string
  /** Says that a replica holds an upstream key. */
  heldKey (keyId: string): string
  /**
   * The id that the store was given when it was first used: one without it, or with another, has lost what it was told.
   */
  readonly mark: string
  /** Of the audit trail, what callers do; its other parts stand in the same slot. */
  readonly audit: string
  auditPart (part: AuditPart): string
  /** A part of it that is written anew; and there while somebody does that. */
  auditRewrite (word: 'to' | 'lock'): string
  /** What all replicas know of alarms. */
  readonly alarms: string
  /** A channel. Those of all databases are one server's: it has the database in its name. */
  events (database: number): string
  /** Patterns for `SCAN`. The usage of all subjects on the days that begin with this text: */
  usageOf (days: string): string
  /** A pattern for `SCAN`: the list of tasks that each subject has which ever had one. */
  readonly listsOfTasks: string
  readonly accounts: string
  /** What is used of each window of the accounts above. */
  readonly windows: string
  /** What shows that a subject is being erased; and of those that were, the usage. */
  readonly erasings: string
  readonly usageOfErased: string
  readonly owners: string
  readonly idempotency: string
}

export function keyNames (prefix: string): KeyNames {
  return {
    reservation: ({ subject, number }) => `${prefix}:{/${encoded(subject)}}:r:${number}`,
    account: subject => `${prefix}:{/${encoded(subject)}}:account`,
    allOf: subject => `${prefix}:{/${encoded(subject)}}:*`,
    erasing: subject => `${prefix}:{/${encoded(subject)}}:erasing`,
    unknownCall: (subject, fingerprint) => `${prefix}:{/${encoded(subject)}}:unknown:${encoded(fingerprint)}`,
    upstreamState: (subject, id) => `${prefix}:{/${encoded(subject)}}:state:${encoded(id)}`,
    holdsOf: account => `${prefix}:{^${encoded(account)}}:open`,
    ceilings: `${prefix}:ceilings`,
    owner: taskId => `${prefix}:task:${encoded(taskId)}`,
    pollLease: taskId => `${prefix}:turn:${encoded(taskId)}`,
    activeSubjects: shard => `${prefix}:{busy-${shard}}:names`,
    revocation: sessionId => `${prefix}:revoked:${encoded(sessionId)}`,
    revocationOf: subject => `${prefix}:revoked-all:${encoded(subject)}`,
    deliveries: `${prefix}:deliveries`,
    callback: secretHash => `${prefix}:callback:${encoded(secretHash)}`,
    guestCount: name => `${prefix}:guests:${encoded(name)}`,
    rate: key => `${prefix}:rate:undefinedundefined-${key}`,
    spentProof: id => `${prefix}:spent:${encoded(id)}`,
    token: id => `${prefix}:{tokens}:t:${encoded(id)}`,
    tokens: `${prefix}:{tokens}:list`,
    probe: index => `${prefix}:probe:${index}`,
    leader: `${prefix}:leader`,
    alive: start => `${prefix}:alive:${start}`,
    heldKey: keyId => `${prefix}:held-key:${encoded(keyId)}`,
    mark: `${prefix}:store`,
    audit: `${prefix}:audit`,
    auditPart: part => part === 'sessions' ? `${prefix}:audit` : `${prefix}:{${prefix}:audit}:${part}`,
    auditRewrite: word => `${prefix}:{${prefix}:audit}:rewrite-${word}`,
    alarms: `${prefix}:alarms`,
    events: database => `${prefix}:events:${database}`,
    usageOf: days => `${prefix}:{/*}:usage:${days}*`,
    listsOfTasks: `${prefix}:{/*}:list`,
    accounts: `${prefix}:{/*}:account`,
    windows: `${prefix}:{^*}:used:*`,
    erasings: `${prefix}:{/*}:erasing`,
    usageOfErased: `${prefix}:{/${erasedPrefix}*}:usage:*`,
    owners: `${prefix}:task:*`,
    idempotency: `${prefix}:{/*}:idem:*`
  }
}

/** The subject of a key that `listsOfTasks` has found. */
export function subjectOfList (key: string): string {
  return decoded(/\{\/(.*)\}:list$/.exec(key)![1]!)
}

/** The subject in whose slot a key stands, and what comes behind that in its name. */
export function subjectKey (key: string): { readonly subject: string, readonly rest: string } {
  const [, subject, rest] = /\{\/(.*?)\}:(.*)$/.exec(key)!
  return { subject: decoded(subject!), rest: rest! }
}

/** The subject and the day of a key that `usageOf` has found. */
export function usageKey (key: string): { readonly subject: string, readonly day: string } {
  const [, subject, day] = /\{\/(.*)\}:usage:(.*)$/.exec(key)!
  return { subject: decoded(subject!), day: day! }
}

/** The account of a key that `windows` has found, and the window as it stands there. */
export function windowKey (key: string): { readonly account: string, readonly window: string } {
  const [, account, window] = /\{\^(.*?)\}:used:(.*)$/.exec(key)!
  return { account: decoded(account!), window: window! }
}

/**
 * Any text as part of a key: without braces, which would move it to another slot, without what separates, and so that
 * no two texts become one, not even those that are no proper Unicode.
 */
export function encoded (text: string): string {
  return text.replace(/[^A-Za-z0-9:._@-]/g, unit => `~${unit.charCodeAt(0).toString(16).padStart(4, '0')}`)
}

export function decoded (text: string): string {
  return text.replace(/~([0-9a-f]{4})/g, (_, unit: string) => String.fromCharCode(parseInt(unit, 16)))
}

/** A reservation: the subject, whose slot it stands in, and its number there. */
export interface Place { readonly subject: string, readonly number: string }

export function reservationName ({ subject, number }: Place): string {
  return `${encoded(subject)}#${number}`
}

/** `null`: it is no name of ours. */
export function placeOf (name: string): Place | null {
  const parts = /^([A-Za-z0-9:._@~-]*)#([1-9]\d{0,15})$/.exec(name)
  return parts && { subject: decoded(parts[1]!), number: parts[2]! }
}

/** Longer than the longest period, a month, ms. */
const periodMs = 40 * dayMs

/**
 * Keys outlive what stands in them by this, ms, as the clocks of servers differ: what counts are the instants in them.
 */
export const slackMs = hourMs

/** A replica that has said nothing for so long is dead, ms. */
export const deadMs = 3000

/** How long a key is kept whose content lasts so long, ms. */
export function keptFor (lastsMs: number): number {
  return Math.max(0, lastsMs) + slackMs
}

/**
 * For how long what is only looked up by its name is kept at the most, ms: an unknown task may still end while it is
 * remembered.
 */
export function keepMs ({ retentionMs, giveUpMs }: LedgerTerms): number {
  return 2 * retentionMs + giveUpMs + periodMs
}
