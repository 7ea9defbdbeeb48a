import { createConfig, lintFromString } from '@redocly/openapi-core'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import t, { type Test } from 'tap'
import type { Static } from 'typebox'
import type { ReferenceDocument } from '../bin/reference/document.ts'
import { referenceFiles } from '../bin/reference/files.ts'
import { operations } from '../bin/reference/operations.ts'
import type { schemas } from '../bin/reference/schemas.ts'
import type * as api from '../src/client/api.ts'
import { type ErrorCode, errorTable } from '../src/errors.ts'
import type { SessionRequestBody } from '../src/http/routes/sessions.ts'
import { batchStatus, items, submitBatch } from './helpers/batches.ts'
import { deliveringGateway } from './helpers/deliveries.ts'
import { adminToken, issuerToken, taskMs } from './helpers/gateway.ts'
import { guestsOf } from './helpers/guests.ts'
import type { CallOptions, Reply } from './helpers/http-caller.ts'
import { root } from './helpers/program.ts'
import { referenceCheck } from './helpers/reference.ts'
import { webhookReceiver } from './helpers/webhook-receiver.ts'

const folder = join(root, 'src/pages/reference')
const document: ReferenceDocument = JSON.parse(readFileSync(join(folder, 'openapi.json'), 'utf8'))

const config = `
plans:
  default: { requestsPerMinute: 100000, pollsPerMinute: 100000, concurrentTasks: 1000, credits: 1000 }
  poor: { credits: 1, concurrentTasks: 1, requestsPerMinute: 100 }
  guest: { models: ["*"], credits: 5 }
prices: { "gpt-*": &llm { inputPerMillion: 1, outputPerMillion: 1 }, "claude-*": *llm, "gemini-*": *llm, "*": 1 }
batches: { enabled: true }
callbacks: { inbound: true, allowedHosts: [app.test] }
guests: { enabled: true }
results: { hosts: [127.0.0.1] }
`

/** A gateway with all that it has; every answer that is seen of it is held to the document. */
async function scene (t: Test) {
  const receiver = await webhookReceiver(t)
  const gateway = await deliveringGateway(t, {
    receiver,
    config,
    models: [{ id: 'nano-banana', category: 'image' }, { id: 'gpt-5.2', category: 'text' }],
    env: { GATEWAY_ADMIN_TOKEN: adminToken, GATEWAY_PUBLIC_URL: 'https://gateway.example' }
  })
  const check = referenceCheck(document)
  const call = async (path: string, options: CallOptions = {}): Promise<Reply> => {
    const reply = await gateway.call(path, options)
    const method = options.method ?? (options.body === undefined ? 'GET' : 'POST')
    t.strictSame(check.faultsOf({ ...reply, method, path: path.split('?', 1)[0]! }), [], `${method} ${path}`)
    return reply
  }
  const made = (reply: Reply, status = 200): any => {
    if (reply.status !== status) throw new Error(`${reply.status} ${reply.text}`)
    return reply.json
  }
  const ask = async (path: string, options: CallOptions = {}, status = 200) => made(await call(path, options), status)
  const mint = async (subject: string, more: object = {}): Promise<string> =>
    (await ask('/gateway/sessions', { token: issuerToken, body: { subject, ...more } }, 201)).token
  const submit = (token: string, prompt: string, options: CallOptions = {}): Promise<Reply> =>
    call('/api/v1/generateTask/nano-banana', { token, body: { input: { mode: 'text-to-image', prompt } }, ...options })
  return { ...gateway, receiver, check, call, ask, made, mint, submit }
}

type Scene = Awaited<ReturnType<typeof scene>>

t.test('the reference is of the routes as they are: npm run reference writes it', async t => {
  for (const [name, text] of Object.entries(await referenceFiles())) {
    t.ok(readFileSync(join(folder, name), 'utf8') === text, `${name} is old, or was changed by hand: npm run reference`)
  }
})

t.test('it is OpenAPI without a fault', async t => {
  const rules = {
    'no-path-trailing-slash': 'off', // the playground's address has one
    'operation-4xx-response': 'off', // the probes have none
    'no-unused-components': 'off' // what events hold is not looked for in an extension
  } as const
  const problems = await lintFromString({
    source: JSON.stringify(document), absoluteRef: 'openapi.json', config: await createConfig({ extends: ['recommended'], rules })
  })
  t.strictSame(problems.map(({ ruleId, message, location: [at] }) => `${ruleId}: ${message} ${at?.pointer}`), [])
})

t.test('it has each error of the gateway, and nothing of what is not there', async t => {
  const listed = Object.values(document.paths).flatMap(item => Object.values(item))
  const codes = new Set(listed.flatMap(operation => operation['x-gateway-errors']))
  // That one is of methods that no route has.
  t.strictSame(errorTable.map(({ code }) => code).filter(code => !codes.has(code)), ['GW_METHOD_NOT_ALLOWED'])
  const ids = new Set(listed.map(({ operationId }) => operationId.replace(/V1$/, '')))
  t.strictSame(Object.keys(operations).filter(name => !ids.has(name)), [])
})

/** `true` where two types are one, whatever in them is `readonly`. */
type Same<One, Other> =
  (<T>() => T extends Plain<One> ? 1 : 2) extends (<T>() => T extends Plain<Other> ? 1 : 2) ? true : false
type Plain<T> = T extends object ? { -readonly [Name in keyof T]: Plain<T[Name]> } : T
type Reference = { [Name in keyof typeof schemas]: Static<typeof schemas[Name]> }
type Without<T, Names extends string> = Pick<T, Exclude<keyof T, Names>>

t.test('the types of the client are those of the reference', async t => {
  // Each is a fault of types where it is not so.
  const same: Readonly<Record<string, true>> = {
    session: true satisfies Same<Without<Reference['SessionInfo'], 'scopes'>, Without<api.SessionInfo, 'scopes'>>,
    scopes: true satisfies Same<Exclude<Reference['Scope'], 'files'>, Exclude<api.Scope, 'files'>>,
    minted: true satisfies Same<Reference['MintedSession'], api.MintedSession>,
    request: true satisfies Same<Without<SessionRequestBody, 'scopes'>, Without<api.SessionRequest, 'scopes'>>,
    above: true satisfies Same<Reference['LeftAbove'], api.LeftAbove>,
    rule: true satisfies Same<Reference['PriceRule'], api.PriceRule>,
    price: true satisfies Same<Reference['TaskPrice'], api.TaskPrice>,
    quote: true satisfies Same<Reference['Quote'], api.Quote>,
    task: true satisfies Same<Reference['TaskInfo'], api.TaskInfo>,
    page: true satisfies Same<Reference['TaskPage'], api.TaskPage>,
    results: true satisfies Same<Reference['TaskResults'], api.TaskResults>,
    codes: true satisfies Same<Exclude<ErrorCode, FileCode>, Exclude<api.GatewayCode, FileCode>>
  }
  t.strictSame(new Set(Object.values(same)), new Set([true]))
})

/** Of files: told where they are on. */
type FileCode = `GW_FILE_${string}` | 'GW_NO_PUBLIC_URL'

t.test('every operation answers as the reference says', async t => {
  const all = await scene(t)
  const token = await all.mint('alice')
  const taskId = await tasksAndResults(all, token)
  await account(all, token)
  await others(all, taskId)
  await llm(all, token)
  await operatorsDay(all)
  await refusals(all, token)
  const open = ['', 'invitation', 'docs', 'openapi.json', 'llms.txt'].map(name => `/gateway/${name}`)
  for (const path of [...open, '/livez', '/readyz']) await all.call(path)
  const page = await all.call('/gateway/docs')
  t.ok(gzipSync(page.text).length < 60_000, 'a page that is soon there')
  t.notMatch(page.headers.get('content-security-policy'), /unsafe|https?:/)
  t.notMatch(page.text, /<link rel="stylesheet"|<script src|\son\w+=|\sstyle=/)
  const { headers } = await all.call('/gateway/openapi.json')
  const again = await all.call('/gateway/openapi.json', { headers: { 'if-none-match': `"x", W/${headers.get('etag')}` } })
  t.strictSame([again.status, again.text], [304, ''])
  t.strictSame(all.check.unseen(), [], 'called by nobody')
})

async function tasksAndResults ({ call, ask, made, submit, time, receiver, origin, check }: Scene, token: string) {
  const options = { headers: { 'idempotency-key': 'the-first' } }
  const { data: { taskId } } = made(await submit(token, 'a red cube', options))
  await submit(token, 'a red cube', options)
  await submit(token, 'a blue cube', options)
  const body = { request_type: 'callback', callback_url: `${receiver.origin}/hook`, input: { mode: 'text-to-image', prompt: 'x' } }
  const { data: { taskId: told } } = made(await submit(token, '', { body }))
  const status = (id: string) => call(`/api/v1/statusTask/nano-banana?taskId=${id}`, { token })
  await status(taskId)
  const { data: { taskId: open } } = made(await submit(token, 'another'))
  await ask(`/gateway/tasks/${open}`, { token, method: 'DELETE' })
  const caller = new AbortController()
  const events = await fetch(`${origin}/gateway/events`, {
    headers: { authorization: `Bearer ${token}` }, signal: caller.signal
  })
  t.strictSame(check.faultsOf({ method: 'GET', path: '/gateway/events', ...headOf(events) }), [])
  caller.abort()
  time.advance(taskMs)
  for (const id of [taskId, told, open]) await status(id)
  await ask(`/gateway/tasks/${open}`, { token, method: 'DELETE' })
  const { results: [link] } = await ask(`/gateway/tasks/${taskId}/results`, { token })
  await call(`/gateway/tasks/${taskId}/results/0`, { token })
  await call(`/gateway/tasks/${taskId}/results/0?download=1`, { token, headers: { range: 'bytes=0-3' } })
  await call(new URL(link).pathname)
  await call(`/gateway/tasks/${taskId}/events`, { token })
  await call(`/gateway/tasks/${taskId}/events`, { token, headers: { 'last-event-id': 'success' } })
  await ask(`/gateway/tasks/${told}/deliveries`, { token })
  await ask('/gateway/tasks?state=success&limit=1', { token })
  const batch = await submitBatch({ call }, token, items('a cube', 'a ball'))
  await batchStatus({ call }, token, made(batch).data.batchId)
  return taskId
}

/** Of a stream that does not end. */
function headOf ({ status, headers }: Response) {
  return { status, headers, text: 'event: state' }
}

async function account ({ ask, call }: Scene, token: string): Promise<void> {
  await ask('/api/v1/apikeys/current-balance', { token })
  await ask('/gateway/quote/nano-banana', { token, body: { input: { prompt: 'x' } } })
  await ask('/gateway/models', { token })
  await ask('/gateway/session', { token })
  await ask('/gateway/usage?by=day,model,state', { token })
  await call('/gateway/usage?format=csv', { token })
}

/** Guests, cookies, and those that come from elsewhere. */
async function others ({ call, ask, mint, submit, sandbox }: Scene, taskId: string): Promise<void> {
  const guests = guestsOf({ origin: 'https://gateway.example', call, submit: (token, _prompt, _model, options) => submit(token, 'x', options) })
  const guest = await guests.guest()
  await guests.make(guest, await guests.proofFor(guest))
  await guests.make(guest)
  await ask('/gateway/sessions/cookie', { method: 'POST', token: await mint('bob') }, 201)
  await call('/gateway/session?everywhere=true', { method: 'DELETE', token: guest })
  const { callback_url: address } = JSON.parse(sandbox.submits[0]!.body.toString())
  await call(new URL(address).pathname, { body: { taskId } })
  await call('/gateway/callbacks/made-up', { body: {} })
}

async function llm ({ ask, call }: Scene, token: string): Promise<void> {
  const [messages, contents] = [[{ role: 'user', content: 'hi' }], [{ role: 'user', parts: [{ text: 'hi' }] }]]
  await ask('/v1/chat/completions', { token, body: { model: 'gpt-5.2', messages } })
  await call('/v1/chat/completions', { token, body: { model: 'gpt-5.2', messages, stream: true } })
  await ask('/v1/responses', { token, body: { model: 'gpt-5.2', input: 'hi' } })
  await ask('/v1/messages', { token, body: { model: 'claude-opus-4-7', max_tokens: 9, messages } })
  for (const version of ['v1', 'v1beta']) {
    await ask(`/${version}/models`, { token })
    await call(`/${version}/models`)
    await ask(`/${version}/models/gemini-2.5-pro:generateContent`, { token, body: { contents } })
    await call(`/${version}/models/gemini-2.5-pro:streamGenerateContent?alt=sse`, { token, body: { contents } })
  }
  for (const path of ['chat/completions', 'responses', 'messages', 'models/nobody:generateContent']) {
    await call(`/v1/${path}`, { token, body: {} })
    await call(`/v1/${path}`, { body: {} })
  }
}

async function operatorsDay ({ ask, call, submit, mint }: Scene): Promise<void> {
  const admin = (path: string, body?: object, status = body === undefined ? 200 : 201, method?: string) =>
    ask(`/gateway/admin${path}`, { token: adminToken, ...body && { body }, ...method && { method } }, status)
  await submit(await mint('lost'), 'sandbox:drop-after')
  await admin('/usage?by=subject,model,day')
  await call('/gateway/admin/usage?format=csv', { token: adminToken })
  const { items: [task] } = await admin('/tasks?limit=1')
  await admin(`/tasks/${encodeURIComponent(task.id)}`)
  await admin('/credits', { subject: 'app:alice', credits: 3 })
  await admin('/extras', { subject: 'app:alice', credits: 3, until: '2099-01-01' })
  const { items: [unknown] } = await admin('/unknown')
  await admin(`/unknown/${encodeURIComponent(unknown.id)}/release`, undefined, 204, 'POST')
  await admin(`/unknown/${encodeURIComponent(unknown.id)}/release`, undefined, 404, 'POST')
  await admin('/keys?balance=true')
  const { id } = await admin('/tokens', { subject: 'carol' })
  await admin('/tokens')
  await admin(`/tokens/${id}/rotate`, { graceSeconds: 60 }, 200)
  const { link } = await admin('/invitations', { subject: 'dave' })
  await ask('/gateway/invitations/accept', { body: { invitation: link.split('#')[1] } }, 201)
  await admin(`/tokens/${id}`, undefined, 204, 'DELETE')
  await admin(`/tokens/${id}x`, undefined, 404, 'DELETE')
  await admin('/revocations', { subject: 'app:nobody' })
  await call('/gateway/admin/exports', { token: adminToken, body: { subject: 'app:alice' } })
  await admin('/erasures', { subject: 'app:lost' })
  await admin('/audit?limit=500')
  await call('/metrics', { token: adminToken })
  for (const path of ['/metrics', '/gateway/admin/keys']) for (const token of [undefined, 'wrong']) await call(path, { ...token && { token } })
}

/** Each kind of refusal once, where it comes first. */
async function refusals ({ call, ask, mint, submit }: Scene, token: string): Promise<void> {
  await call('/gateway/session')
  await call('/gateway/session', { token: 'gws_made-up' })
  await call('/gateway/session', { token, headers: { 'x-api-key': 'another' } })
  await call('/gateway/sessions', { token: issuerToken, body: { subject: '' } })
  await call('/gateway/sessions', { token, body: { subject: 'x' } })
  await call('/gateway/sessions', { token: issuerToken, body: { subject: 'x' }, headers: { origin: 'https://page.example' } })
  await call('/gateway/tasks?limit=x', { token })
  await call('/gateway/tasks/task_nobodys/results', { token })
  await call('/gateway/tasks/task_nobodys/events', { token })
  await call('/gateway/results/made-up')
  await submit(await mint('reader', { scopes: ['tasks:read'] }), 'x')
  await submit(await mint('narrow', { models: ['sora-2'] }), 'x')
  const once = await mint('once', { uses: 1 })
  for (let tries = 0; tries < 2; tries++) await submit(once, `x ${tries}`)
  const poor = await mint('poor', { plan: 'poor' })
  for (let tries = 0; tries < 2; tries++) await submit(poor, `x ${tries}`)
  await submit(token, 'x', { body: { input: {}, webhook_url: 'https://a.example' } })
  await submit(token, 'x', { body: 'no json' })
  await submit(token, 'x', { body: {}, headers: { 'content-type': 'text/plain' } })
  await submit(token, 'sandbox:http-422')
  await ask('/gateway/session', { token })
}
