import { connect } from 'node:net'
import { once } from 'node:events'
import t, { type Test } from 'tap'
import { type Sandbox, startSandbox } from '../../src/sandbox/sandbox.ts'
import { apiKey } from '../helpers/gateway.ts'
import { type Caller, callerOf } from '../helpers/http-caller.ts'
import { hosts, page, settingsOver } from '../helpers/hosts.ts'
import { rawHttp, rawRequest } from '../helpers/raw-http.ts'
import { until } from '../helpers/until.ts'

interface Guest extends Caller { readonly origin: string, readonly sandbox: Sandbox }

for (const [where, host] of Object.entries(hosts)) {
  t.test(`a gateway ${where}`, async t => {
    const sandbox = await startSandbox({ keys: [apiKey], taskMs: 1 })
    t.teardown(() => sandbox.close())
    const origin = await host(t, settingsOver(sandbox))
    const guest: Guest = { origin, sandbox, ...callerOf(origin) }
    await t.test('makes a picture of a page\'s submit', t => makesAPicture(t, guest))
    await t.test('refuses in its own words', t => refuses(t, guest))
    await t.test('answers pages of listed origins and no others', t => answersPages(t, guest))
    await t.test('ends a submit whose caller has gone', t => endsTheSubmit(t, guest))
    await t.test('tells events as they come, until their reader has gone', t => tellsEvents(t, guest))
    if (where !== 'by itself') await t.test('leaves the rest to its host', t => leavesTheRest(t, guest))
  })
}

async function makesAPicture (t: Test, { call, mint, submit, status }: Guest): Promise<void> {
  const token = await mint('alice')
  const submitted = await submit(token)
  t.match(submitted, { status: 200, headers: { get: Function } })
  t.match(submitted.headers.get('x-request-id'), /^[\w-]{8}-/)
  const { taskId } = submitted.json.data
  await until('the task has ended', async () => (await status(token, taskId)).json.data.state === 'success')
  t.match(await call('/gateway/tasks', { token }), { status: 200, json: { tasks: [{ taskId }] } })
  t.match(await call(`/gateway/tasks/${taskId}/results/0`, { token }), { status: 200 })
  const head = await call(`/gateway/tasks/${taskId}/results/0`, { token, method: 'HEAD' })
  t.match([head.status, head.text], [200, ''])
  t.match(await status(await mint('bob'), taskId), { status: 404, error: 'GW_TASK_NOT_FOUND' })
  t.match(await call('/gateway/session', { token, method: 'DELETE' }), { status: 204, text: '' })
  t.match(await call('/gateway/session', { token }), { status: 401 })
}

async function refuses (t: Test, { call, mint, submit, origin, sandbox }: Guest): Promise<void> {
  const token = await mint('carol')
  const before = sandbox.calls.length
  t.match(await submit('no-token'), { status: 401, error: 'GW_BAD_SESSION' })
  t.match(await call('/gateway/nowhere', { token }), { status: 404, error: 'GW_NOT_FOUND' })
  t.match(await call('/gateway/session', { token, method: 'PATCH' }), { status: 405, error: 'GW_METHOD_NOT_ALLOWED' })
  t.match(await call('/gateway/%zz', { token }), { status: 400 }) // a Fastify that is the host says it in its words
  t.match(await submit(token, 'x'.repeat(3000)), { status: 413, error: 'GW_TOO_LARGE', json: { message: /2000/ } })
  const bad = { token, body: '{"input":{},"input":{}}' }
  t.match(await call('/api/v1/generateTask/nano-banana', bad), { status: 400, error: 'GW_BAD_REQUEST' })
  for (const type of ['text/plain', 'no type at all']) {
    const headers = { 'content-type': type }
    t.match(await call('/api/v1/generateTask/nano-banana', { token, body: {}, headers }), { status: 415 }, type)
  }
  const twice = [`authorization: Bearer ${token}`, 'authorization: Bearer another', 'connection: close']
  const { status, text } = await rawHttp(t, origin, rawRequest('GET /gateway/session', twice))
  t.match([status, text], [400, /GW_BAD_REQUEST/])
  t.equal(sandbox.calls.length, before)
}

async function answersPages (t: Test, { call }: Guest): Promise<void> {
  const ask = (origin: string) => call('/gateway/session', {
    method: 'OPTIONS', headers: { origin, 'access-control-request-method': 'GET' }
  })
  const preflight = await ask(page)
  t.match([preflight.status, preflight.headers.get('access-control-allow-origin')], [204, page])
  t.match(await ask('https://other.example'), { status: 403, error: 'GW_ORIGIN_DENIED' })
}

async function endsTheSubmit (_t: Test, { call, mint, origin, sandbox }: Guest): Promise<void> {
  const token = await mint('dave')
  const body = JSON.stringify({ request_type: 'async', input: { prompt: 'a red cube' } })
  const before = sandbox.calls.length
  const socket = connect(Number(new URL(origin).port), '127.0.0.1')
  await once(socket, 'connect')
  socket.write('POST /api/v1/generateTask/nano-banana HTTP/1.1\r\nhost: localhost\r\n' +
    `authorization: Bearer ${token}\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`)
  await until('the upstream has it', () => sandbox.calls.length > before)
  socket.destroy()
  await until('the task is known', async () =>
    (await call('/gateway/tasks', { token })).json.tasks.length === 1)
}

async function tellsEvents (t: Test, { call, mint, submit, origin }: Guest): Promise<void> {
  const token = await mint('erin')
  const reader = new AbortController()
  const events = await fetch(`${origin}/gateway/events`, {
    headers: { authorization: `Bearer ${token}` }, signal: reader.signal
  })
  t.match([events.status, events.headers.get('content-type')], [200, /^text\/event-stream/])
  const { taskId } = (await submit(token)).json.data
  let heard = ''
  for await (const chunk of events.body!) {
    heard += Buffer.from(chunk).toString()
    if (heard.includes(taskId)) break
  }
  reader.abort()
  t.match(await call('/gateway/session', { token }), { status: 200 })
}

async function leavesTheRest (t: Test, { call }: Guest): Promise<void> {
  const { status, json, headers } = await call('/hello')
  t.match({ status, json }, { status: 200, json: { hello: 'host' } })
  t.equal(headers.get('x-request-id'), null)
  t.equal(headers.get('content-security-policy'), null)
}
