import { type AuditEntry, auditParts } from '../../domain/audit.ts'
import { creditsFrom } from '../../domain/ledger.ts'
import { type EraseRequest, hiddenName, type SubjectData, type SubjectPart } from '../../domain/subject-data.ts'
import { dayMs, instant } from '../../domain/time.ts'
import type { TokenStore } from '../../domain/tokens.ts'
import { gatewayError } from '../../errors.ts'
import { shardOf } from './active-subjects.ts'
import type { Commands } from './client.ts'
import { decoded, encoded, type KeyNames, reservationName } from './keys.ts'
import type { Tasks } from './ledger.ts'
import { namesLike } from './records.ts'

interface SubjectDataOptions {
  readonly commands: Commands
  readonly tasks: Tasks
  readonly tokens: Pick<TokenStore, 'list'>
  readonly keys: KeyNames
  readonly now: () => number
}

/** Tasks that one script takes away, and entries of the audit trail that are read in one go. */
const tasksAtOnce = 50
const entriesAtOnce = 500
const tokensAtOnce = 500

/**
 * What one subject has in Redis: nearly all of it in its slot, found by walking over all keys, which is slow and holds
 * nobody up. What stays is written under the pseudonym as a whole, and then taken away: done twice it is the same. So
 * the pseudonym is written down first, and taken away last.
 */
export function redisSubjects (options: SubjectDataOptions): SubjectData {
  const { commands: { ask, ofSubject }, keys } = options
  const unfinishedOf = async (subject: string): Promise<number> => {
    const [, , unfinished] = await ofSubject(subject, 'readBalance', { periodStart: 0 }) as readonly unknown[]
    const open = await ask(client => client.zcard(keys.account(subject).replace(/account$/, 'open')))
    return Math.max(open, Number(unfinished))
  }
  return {
    partsOf: subject => partsOf(options, subject),
    unfinishedOf,
    async erase (request) {
      const { subject } = request
      const erasing = keys.erasing(subject)
      await ask(client => client.set(erasing, request.pseudonym, 'NX'))
      const pseudonym = (await ask(client => client.get(erasing)))!
      const known = { ...request, pseudonym }
      const tasks = await eraseTasks(options, known)
      // What has come meanwhile has an owner, and credits: the rest is taken away the next time.
      if (await unfinishedOf(subject) > 0) return { tasks, tokens: 0, auditEntries: 0 }
      await keepBooks(options, known)
      const tokens = await eraseTokens(options, subject)
      const auditEntries = await redactAudit(options, known)
      await hideEnd(options, subject)
      if (await eraseRest(options, subject)) await ask(client => client.del(erasing))
      return { tasks, tokens, auditEntries }
    },
    // A snapshot has what is there. What a log has is the server's own to write anew: BGREWRITEAOF.
    rewrite: async () => {}
  }
}

async function eraseTasks (
  { commands: { ask, on, ofSubject }, tasks, keys }: SubjectDataOptions, { subject, beforeTask }: EraseRequest
): Promise<number> {
  const list = keys.account(subject).replace(/account$/, 'list')
  let running = 0
  for (let count = 0; ;) {
    const listed = await ask(client => client.zrange(list, String(running), String(running + tasksAtOnce - 1)))
    if (listed.length === 0) return count
    const rows = await Promise.all(listed.map(async number => ({ number, found: await tasks.at({ subject, number }) })))
    const ended = rows.filter(({ found }) => found === null || found.endedAt !== null)
    running += listed.length - ended.length
    await Promise.all(ended.map(async ({ number, found }) => {
      if (found?.callbackHash != null) await ask(client => client.del(keys.callback(found.callbackHash!)))
      if (found?.task == null) return
      const { taskId, finalAnswer } = found.task
      if (finalAnswer !== null) await beforeTask(found.task)
      await on(keys.owner(taskId), 'deleteValue', { value: reservationName({ subject, number }) })
      await ask(client => client.del(keys.pollLease(taskId)))
      tasks.forget(taskId)
    }))
    count += Number(await ofSubject(subject, 'eraseTasks', { numbers: ended.map(({ number }) => number) }))
  }
}

/** Sums of days, grants, and what is left of them. */
async function keepBooks (
  { commands: { ask }, keys }: SubjectDataOptions, { subject, pseudonym }: EraseRequest
): Promise<void> {
  const place = (name: string): string => name.replace(`{/${encoded(subject)}}`, `{/${encoded(pseudonym)}}`)
  const account = keys.account(subject)
  const [usage, grants, extras] = ['usage:*', 'grants', 'extras'].map(word => account.replace(/account$/, word))
  for (const name of await ask(client => namesLike(client, usage!))) {
    const [sums, lastsMs] = await ask(client => Promise.all([client.hgetall(name), client.pttl(name)]))
    await ask(client => Promise.all([client.hset(place(name), sums), client.pexpire(place(name), lastsMs)]))
  }
  const lines = await ask(client => client.lrange(grants!, 0, -1))
  if (lines.length > 0) {
    await ask(client => client.multi().del(place(grants!)).rpush(place(grants!), ...lines).exec())
  }
  const granted = await ask(client => client.hget(account, 'granted'))
  if (granted !== null) await ask(client => client.hset(place(account), 'granted', granted))
  const given = await ask(client => client.zrange(extras!, '0', '-1', 'WITHSCORES'))
  for (let index = 0; index < given.length; index += 2) {
    await ask(client => client.zadd(place(extras!), given[index + 1]!, given[index]!))
  }
}

async function eraseTokens ({ commands: { on }, tokens, keys }: SubjectDataOptions, subject: string): Promise<number> {
  const found: string[] = []
  let cursor: string | null = null
  do {
    const { items, next }: Awaited<ReturnType<TokenStore['list']>> = await tokens.list({ cursor, limit: tokensAtOnce })
    found.push(...items.filter(token => token.subject === subject).map(({ id }) => id))
    cursor = next
  } while (cursor !== null)
  for (const id of found) await on(keys.tokens, 'deleteToken', { id: encoded(id) })
  return found.length
}

/** How long nobody else may write a part of the audit trail anew, ms. */
const rewriteMs = 60_000

async function redactAudit (options: SubjectDataOptions, request: EraseRequest): Promise<number> {
  const { commands: { ask, on }, keys } = options
  let count = 0
  for (const part of auditParts) {
    const stream = keys.auditPart(part)
    let named = 0
    for await (const entries of entriesOf(options, stream, request)) {
      named += entries.filter(({ isNamed }) => isNamed).length
    }
    if (named === 0) continue
    const [to, lock] = [keys.auditRewrite('to'), keys.auditRewrite('lock')]
    if (await ask(client => client.set(lock, 1, 'PX', rewriteMs, 'NX')) === null) {
      throw gatewayError('GW_OVERLOADED', { retryAfterSeconds: 1 })
    }
    await ask(client => client.del(to))
    let last = '0'
    for (let isDone = false; !isDone;) {
      for await (const entries of entriesOf(options, stream, request, `(${last}`)) {
        await on(stream, 'rewriteAudit', { to, entries: entries.map(({ id, entry }) => ({ id, entry })) })
        await ask(client => client.pexpire(lock, rewriteMs))
        last = entries.at(-1)!.id
      }
      isDone = await on(stream, 'rewriteAudit', { to, entries: [], last }) === 1
    }
    await ask(client => client.del(lock))
    count += named
  }
  return count
}

interface NewEntry { readonly id: string, readonly entry: string, readonly isNamed: boolean }

/** The entries of a part, so many at a time, as they are without the name. */
async function * entriesOf (
  { commands: { ask } }: SubjectDataOptions, stream: string, { subject, pseudonym }: EraseRequest, first = '-'
): AsyncGenerator<readonly NewEntry[]> {
  const other = (text: string): string => text === subject ? pseudonym : text
  for (let start = first; ;) {
    const found = await ask(client => client.xrange(stream, start, '+', 'COUNT', entriesAtOnce))
    if (found.length === 0) return
    yield found.map(([id, [, text]]) => {
      const entry = JSON.parse(text!) as AuditEntry
      if (entry.subject !== subject && entry.actor !== subject) return { id, entry: text!, isNamed: false }
      const without = { ...entry, actor: other(entry.actor), subject: entry.subject && other(entry.subject) }
      const redacted = JSON.stringify(without).replaceAll(JSON.stringify(subject), JSON.stringify(pseudonym))
      return { id, entry: redacted, isNamed: true }
    })
    start = `(${found.at(-1)![0]}`
  }
}

async function hideEnd ({ commands: { ask, on }, keys }: SubjectDataOptions, subject: string): Promise<void> {
  const name = keys.revocationOf(subject)
  const [before, lastsMs] = await ask(client => Promise.all([client.get(name), client.pttl(name)]))
  if (before === null) return
  await on(keys.revocationOf(hiddenName(subject)), 'raiseNumber', { number: Number(before), keptMs: lastsMs })
  await ask(client => client.del(name))
}

/** `false`: something has begun to run, and all stays. */
async function eraseRest (
  { commands: { ask, on, ofSubject }, keys, now }: SubjectDataOptions, subject: string
): Promise<boolean> {
  const name = encoded(subject)
  const found = await ask(client => namesLike(client, keys.allOf(subject)))
  const names = found.filter(key => key !== keys.erasing(subject))
  /* c8 ignore next: it has begun since it was looked for a moment ago, which no test can time */
  if (await ofSubject(subject, 'eraseAll', { names }) === 0) return false
  // Counts of requests end by themselves within a minute, but bear the name until then.
  for (const key of await ask(client => namesLike(client, keys.rate('*')))) {
    if (key.endsWith(subject)) await ask(client => client.unlink(key))
  }
  await ask(client => client.zrem(keys.deliveries, name))
  await on(keys.activeSubjects(shardOf(subject)), 'forgetSubject', { name, usedBy: now() + dayMs })
  return true
}

async function * partsOf (
  { commands: { ask }, keys }: SubjectDataOptions, subject: string
): AsyncGenerator<SubjectPart> {
  const account = keys.account(subject)
  const place = (word: string): string => account.replace(/account$/, word)
  /* c8 ignore next: a key may go between its name and its reading */
  const credits = (text: string | undefined): number => creditsFrom(Number(text ?? 0))
  const granted = await ask(client => client.hget(account, 'granted'))
  if (granted !== null) yield { kind: 'granted', left: credits(granted) }
  for (const line of await ask(client => client.lrange(place('grants'), 0, -1))) {
    const [at, microcredits] = line.split(' ')
    yield { kind: 'grant', credits: credits(microcredits), at: instant(Number(at)) }
  }
  const extras = await ask(client => client.zrange(place('extras'), '0', '-1', 'WITHSCORES'))
  for (let index = 0; index < extras.length; index += 2) {
    yield { kind: 'extra', credits: credits(/\d+$/.exec(extras[index]!)![0]), until: instant(Number(extras[index + 1])) }
  }
  for (const key of (await ask(client => namesLike(client, keys.allOf(subject)))).sort()) {
    const [, word, name] = /\}:(period|session|idem|state):(.*)$/s.exec(key) ?? []
    if (word === undefined) continue
    if (word === 'state') {
      yield { kind: 'kept at the upstream', id: decoded(name!) }
      continue
    }
    const row = await ask(client => client.hgetall(key))
    if (word === 'period') {
      yield { kind: 'period', start: instant(Number(name)), used: credits(row['used']), refunds: Number(row['refunds'] ?? 0) }
    } else if (word === 'session') {
      yield { kind: 'session', session: decoded(name!), uses: Number(row['uses']), credits: credits(row['credits']) }
    } else {
      yield {
        kind: 'idempotency key',
        key: decoded(name!),
        at: instant(Number(row['createdAt'])),
        status: row['status'] === undefined ? null : Number(row['status']),
        answer: row['body'] ?? null
      }
    }
  }
}
