import diagnostics from 'node:diagnostics_channel'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import type { FastifyInstance } from 'fastify'
import { Redis } from 'ioredis'
import type { Test } from 'tap'
import { batchStatus, items, submitBatch } from './batches.ts'
import { swap } from './cookies.ts'
import { deliveringGateway } from './deliveries.ts'
import { adminToken, issuerToken, type Reply, taskMs } from './gateway.ts'
import { guestsOf } from './guests.ts'
import { root } from './program.ts'
import { until } from './until.ts'
import { webhookReceiver } from './webhook-receiver.ts'

/** What is seen of a gateway from outside: each kind of name, sorted. */
export type OutsideNames = Readonly<Record<string, readonly string[]>>

const methods = new Set(['GET', 'POST', 'PUT', 'PATCH', 'DELETE'])

export interface StoreOfNames {
  readonly file?: string
  readonly url?: string
}

const config = `
plans:
  default: { requestsPerMinute: 100000, pollsPerMinute: 100000, concurrentTasks: 1000, credits: 5 }
  guest: { models: ["*"], credits: 5 }
batches: { enabled: true }
callbacks: { inbound: true, allowedHosts: [app.test] }
guests: { enabled: true }
results: { hosts: [127.0.0.1] }
`

/** A gateway with all that it has, a day in its life, and the names that were to be seen in it. */
export async function outsideNames (t: Test, store: StoreOfNames): Promise<OutsideNames> {
  const routes = new Set<string>()
  const onServer = (message: unknown): void => {
    (message as { readonly fastify: FastifyInstance }).fastify.addHook('onRoute', ({ method, url }) => {
      for (const name of [method].flat()) if (methods.has(name)) routes.add(`${name} ${url}`)
    })
  }
  diagnostics.subscribe('fastify.initialization', onServer)
  const receiver = await webhookReceiver(t)
  const gateway = await deliveringGateway(t, {
    receiver,
    config,
    models: [{ id: 'nano-banana', category: 'image' }],
    env: {
      GATEWAY_ADMIN_TOKEN: adminToken,
      GATEWAY_PUBLIC_URL: 'https://gateway.example',
      GATEWAY_STATIC_DIR: join(root, 'src/pages'),
      ...(store.url === undefined ? {} : { GATEWAY_STORE: store.url })
    },
    ...(store.file === undefined ? {} : { store: store.file })
  })
  diagnostics.unsubscribe('fastify.initialization', onServer)
  const { call, time, mint } = gateway

  const fields = new Set<string>()
  const note = (name: string, reply: Reply): Reply => {
    const made = [...paths(reply.json)]
    if (made.length === 0) throw new Error(`${name}: ${reply.status} ${reply.text}`)
    for (const path of made) fields.add(`${name}: ${path}`)
    return reply
  }
  const ask = async (name: string, path: string, options: Parameters<typeof call>[1] = {}): Promise<Reply> =>
    note(name, await call(path, options))
  const admin = (name: string, path: string, body?: object, method?: string): Promise<Reply> =>
    ask(`${method ?? (body ? 'POST' : 'GET')} ${name}`, `/gateway/admin${path}`, {
      token: adminToken, ...(body && { body }), ...(method && { method })
    })

  // The session of a caller, and what it makes.
  const minted = await ask('POST /gateway/sessions', '/gateway/sessions', {
    token: issuerToken,
    body: { subject: 'alice', uses: 1000, ttlSeconds: 3600, models: ['*'], scopes: ['tasks:write', 'tasks:read'] }
  })
  const { token } = minted.json
  await ask('GET /gateway/session', '/gateway/session', { token })
  await ask('GET /gateway/models', '/gateway/models', { token })
  const taskId = await gateway.submitTo(token, `${receiver.origin}/hook`)
  await gateway.endOf(token, taskId)
  await gateway.deliver(token, taskId)
  await ask('GET /gateway/tasks/{id}/deliveries', `/gateway/tasks/${taskId}/deliveries`, { token })
  await ask('GET /gateway/tasks', '/gateway/tasks', { token })
  const failing = await gateway.made(token, 'sandbox:failed')
  time.advance(taskMs)
  await gateway.status(token, failing)
  for (const model of ['nano-banana', 'sora-2']) await gateway.submit(token, 'sandbox:drop-after', model)
  await gateway.submit(token, 'sandbox:http-422')
  await gateway.submit(token, 'with a key', 'nano-banana', { headers: { 'idempotency-key': 'one' } })
  await call('/api/v1/generateTask/nano-banana', { token, body: { model: 'other' } })
  const open = await gateway.made(token)
  const events = await gateway.listenTo(open, { token })
  const all = await gateway.listen('/gateway/events', { token })
  await until('the first event', () => events.events.length > 0)
  await gateway.passUntil('the end of both streams', () =>
    [events, all].every(({ events }) => events.some(({ data }) => /success/.test(data))))
  for (const [name, { events: heard }] of [['task', events], ['subject', all]] as const) {
    for (const event of heard) {
      for (const path of paths(JSON.parse(event.data))) fields.add(`event of a ${name}: ${path}`)
    }
  }
  const rich = await mint('rich')
  const batch = await submitBatch(gateway, rich, items('a cube', 'sandbox:failed'))
  await batchStatus(gateway, rich, batch.json.data.batchId)
  for (let made = 0; made < 6; made++) await gateway.submit(rich)
  note('an error', await gateway.submit(rich))
  await call('/gateway/nothing-is-here', { token: rich })

  // Other ways in.
  await swap(gateway, rich)
  await ask('GET /gateway/session/challenge', '/gateway/session/challenge', { token: rich })
  const guests = guestsOf({ ...gateway, origin: 'https://gateway.example' })
  await ask('GET /gateway/sessions/guest/challenge', '/gateway/sessions/guest/challenge')
  const guest = note('POST /gateway/sessions/guest', await guests.enter(await guests.proofFor())).json.token
  await guests.make(guest, await guests.proofFor(guest))
  await call('/gateway/session', { token: guest, method: 'DELETE' })

  // What an operator asks and does.
  const tokens = '/gateway/admin/tokens'
  const personal = await admin(tokens, '/tokens', { subject: 'carol', plan: 'default' })
  await call('/gateway/session', { token: personal.json.token })
  await admin(tokens, '/tokens')
  const id = personal.json.id ?? personal.json.tokenId
  await admin(`${tokens}/{id}/rotate`, `/tokens/${id}/rotate`, {})
  const invited = await admin('/gateway/admin/invitations', '/invitations', { subject: 'dave', plan: 'default' })
  await ask('POST /gateway/invitations/accept', '/gateway/invitations/accept', {
    body: { invitation: invited.json.link.split('#')[1] }
  })
  await call(`/gateway/admin/tokens/${id}`, { token: adminToken, method: 'DELETE' })
  await admin('/gateway/admin/usage', '/usage?by=subject,model,day')
  await admin('/gateway/admin/credits', '/credits', { subject: 'app:alice', credits: 3 })
  await admin('/gateway/admin/keys', '/keys')
  const { json: { items: unknown } } = await admin('/gateway/admin/unknown', '/unknown')
  await call(`/gateway/admin/unknown/${encodeURIComponent(unknown[0].id)}/release`, { token: adminToken, method: 'POST' })
  await call('/gateway/admin/revocations', { token: adminToken, body: { subject: 'app:rich' } })
  await call('/gateway/session', { token: rich })
  await call('/gateway/session', { token: 'gws_no-such-token' })
  await gateway.gateway.tidy()
  const { json: { items: trail } } = await admin('/gateway/admin/audit', '/audit?limit=500')
  const audit = trail.flatMap((entry: any) => [
    `${entry.kind} by ${entry.actor}`, ...[...paths(entry.detail)].map(path => `${entry.kind}: ${path}`)
  ])
  const metrics = (await call('/metrics', { token: adminToken })).text.split('\n')
    .filter(line => line.startsWith('gateway_')).flatMap(line => series(line))
  return {
    routes: lasting(routes),
    fields: lasting(fields),
    log: lasting(gateway.log.flatMap(line =>
      Object.keys(line).map(key => line.msg === 'request' ? `request: ${key}` : key))),
    audit: lasting(audit),
    metrics: lasting(metrics)
  }
}

/** `a.b[].c`: the places of all values in it. */
function * paths (value: unknown, place = ''): Generator<string> {
  if (Array.isArray(value)) for (const item of value) yield * paths(item, `${place}[]`)
  else if (typeof value === 'object' && value !== null) {
    for (const [key, item] of Object.entries(value)) yield * paths(item, place === '' ? key : `${place}.${key}`)
  } else if (place !== '') yield place
}

/** The metric, and each value of its labels. Of a histogram, only how many there were. */
function series (line: string): string[] {
  const [, name, labels = ''] = /^(\w+)(?:\{(.*)\})? /.exec(line)!
  if (/_(?:bucket|sum)$/.test(name!)) return []
  return [name!, ...Array.from(labels.matchAll(/(\w+)="([^"]*)"/g), ([, label, value]) => `${name}{${label}=${value}}`)]
}

/** `a.b`: the keys that a JSON schema knows. */
export function * keysOf ({ properties = {} }: any, place = ''): Generator<string> {
  for (const [key, schema] of Object.entries(properties)) {
    yield place + key
    yield * keysOf(schema, `${place}${key}.`)
  }
}

/** What is typed: `token create` and `token create --subject` of the text that explains it. */
export function cliWords (usage: string): string[] {
  const [synopsis, ...explained] = usage.split('\n\n')
  const commands = Array.from(
    synopsis!.matchAll(/^(?: +apixo-gateway )?([a-z][a-z-]*(?: [a-z]+)?)/gm), ([, words]) => words!
  )
  const name = commands[0]!.split(' ')[0]!
  return [...commands, ...(explained.join().match(/--\w+/g) ?? []).map(option => `${name} ${option}`)]
}

/** `table.column` of everything in a SQLite file. */
export function sqliteNames (path: string): readonly string[] {
  const db = new DatabaseSync(path, { readOnly: true })
  const columns = db.prepare(`SELECT t.name || '.' || c.name AS name FROM sqlite_master t, pragma_table_info(t.name) c
    WHERE t.type = 'table' ORDER BY 1`).all() as Array<{ readonly name: string }>
  db.close()
  return columns.map(({ name }) => name)
}

/** The keys of a Redis, and the fields of its hashes. */
export async function redisNames (url: string): Promise<readonly string[]> {
  const client = new Redis(url)
  const names: string[] = []
  for (const key of await client.keys('*')) {
    names.push(key)
    if (await client.type(key) === 'hash') for (const field of await client.hkeys(key)) names.push(`${key} ${field}`)
  }
  client.disconnect()
  return lasting(names)
}

/** Sorted, each once, with `…` for what differs from run to run or from subject to subject. */
function lasting (names: Iterable<string>): readonly string[] {
  const patterns: ReadonlyArray<readonly [RegExp, string]> = [
    [/[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/g, '…'],
    [/\b[0-9a-f]{32,}\b/g, '…'],
    [/\d{4}-\d\d-\d\d/g, '…'],
    [/^(gw:callback:).+/, '$1…'],
    [/^(gw:(?:rate|guests|revoked-all|alive|held-key):(?:[^:]*-\w+:)?).+/, '$1…'],
    [/^(gw:task:).+/, '$1…'],
    [/^(gw:\{\/).+?(\}:(?:session:)?)/, '$1…$2'],
    [/^(gw:\{tokens\}:t:)[^ ]+/, '$1…'],
    [/^(gw:\{busy-)\d+/, '$1…'],
    [/(:(?:r|probe|period|usage|session|idem|turn):)[^ :]+/, '$1…']
  ]
  const made = Array.from(names, name => patterns.reduce((text, [from, to]) => text.replace(from, to), name))
  return [...new Set(made)].sort()
}
