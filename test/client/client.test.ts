import t from 'tap'
import type { ErrorCode } from '../../src/errors.ts'
import { createClient, type GatewayCode } from '../../src/client/client.ts'
import { realTiming, transport, untilOnline } from '../../src/client/transport.ts'
import { clientSetup, isStream, isSubmit, seen, thrown } from '../helpers/client.ts'
import { until } from '../helpers/until.ts'

const input = { mode: 'text-to-image', prompt: 'a lighthouse at dusk' }
const models = [{ id: 'nano-banana', category: 'image' }] as const

/** Gives the platform something that Node does not have, for as long as the test lasts. */
function platform (t: { teardown: (undo: () => void) => void }, name: string, value: unknown): void {
  const before = Object.getOwnPropertyDescriptor(globalThis, name)
  Object.defineProperty(globalThis, name, { value, configurable: true, writable: true })
  t.teardown(() => {
    if (before === undefined) delete (globalThis as Record<string, unknown>)[name]
    else Object.defineProperty(globalThis, name, before)
  })
}

t.test('a client knows every code that the gateway has', async t => {
  const known = (code: ErrorCode): GatewayCode => code
  t.equal(known('GW_STORE_DOWN'), 'GW_STORE_DOWN', 'the compiler holds it to that')
})

t.test('what is asked about the session, its tasks, models and prices is what the gateway says', async t => {
  const { as, turning, call, mint, proxy } = await clientSetup(t, {
    models, env: { GATEWAY_PUBLIC_URL: 'https://gateway.example' }
  })
  const token = await mint('alice')
  const client = await as('alice')
  const of = async (path: string) => (await call(path, { token })).json
  const { taskId } = await turning(client.generate('nano-banana', input))
  t.match(await client.session(), { subject: 'app:alice', plan: 'default', tasks: { unfinished: 0 } })
  t.same(await client.models(), (await of('/gateway/models')).models)
  t.match(await client.quote('nano-banana', input), { model: 'nano-banana', credits: 1, left: null, enough: true })
  const { tasks, next } = await client.tasks({ state: 'success', limit: 5, cursor: undefined })
  t.match(tasks, [{ taskId, model: 'nano-banana', state: 'success' }])
  t.equal(next, null)
  t.ok(tasks[0]!.results[0]!.startsWith(`${proxy.origin}/gateway/results/`), 'where the page has found the gateway')
  t.same((await client.tasks()).tasks.length, 1)
  t.match(await thrown(client.tasks({ limit: 1000 })), {
    code: 'GW_BAD_REQUEST', status: 400, message: 'limit must be a whole number from 1 to 100.', requestId: /./
  })
})

t.test('where there are no streams the status is polled, when the gateway says', async t => {
  platform(t, 'navigator', { product: 'ReactNative' })
  const { as, proxy, pauses, sandbox } = await clientSetup(t)
  const client = await as('alice')
  const told: string[] = []
  const { results } = await client.generate('nano-banana', input, { onState: ({ state }) => told.push(state) })
  t.equal(results.length, 1)
  t.equal(told[0], 'submitting')
  t.equal(told.at(-1), 'success')
  t.equal(seen(proxy, isStream), 0)
  t.ok(pauses.length >= 1 && pauses.length <= 4, `paused ${pauses}`)
  t.equal(sandbox.submits.length, 1)
  const failure = await thrown(client.generate('nano-banana', { ...input, prompt: 'sandbox:failed' }))
  t.equal(failure.code, 'TASK_FAILED')
})

t.test('a status in any form that was seen is read', async t => {
  platform(t, 'navigator', { product: 'ReactNative' })
  const { as } = await clientSetup(t)
  const client = await as('alice')
  for (const name of ['no-envelope', 'top-level-task-id', 'result-object', 'unknown-state']) {
    t.equal((await client.generate('nano-banana', { ...input, prompt: `sandbox:${name}` })).results.length, 1, name)
  }
  t.match(await thrown(client.generate('nano-banana', { ...input, prompt: 'sandbox:status-code-404' })), {
    code: 'REFUSED', status: 404
  })
})

t.test('a stream that says nothing, that is none, or of which there are too many gives way to polling', async t => {
  const { as, proxy, silence, turning } = await clientSetup(t)
  const client = await as('alice')
  const make = (prompt: string) => turning(client.generate('nano-banana', { ...input, prompt }))
  const answer = (status: number, type: string, body = '') =>
    ({ kind: 'answer', status, headers: { 'content-type': type }, body }) as const

  for (const fault of [answer(429, 'text/html'), answer(200, 'text/html', '<h1>App</h1>')]) {
    proxy.fault = request => isStream(request) ? fault : { kind: 'none' }
    t.equal((await make(`instead of a stream: ${fault.status}`)).results.length, 1)
  }
  proxy.fault = request => isStream(request) ? { kind: 'held' } : { kind: 'none' }
  const held = make('held back')
  await until('it is held back', () => proxy.requests.at(-1)?.endsWith('/events'))
  silence.isOver = true
  t.equal((await held).results.length, 1)
})

t.test('a stream that falls silent after it has spoken is opened again', async t => {
  const { as, proxy, silence, turning, pass } = await clientSetup(t, { sandbox: { taskMs: 1_000_000 } })
  const client = await as('alice')
  const told: string[] = []
  const made = turning(client.generate('nano-banana', input, { onState: ({ state }) => told.push(state) }))
  await until('it has begun', () => told.includes('pending'))
  silence.isOver = true
  await until('it is open again', () => seen(proxy, isStream) > 1)
  pass(1_000_000)
  t.equal((await made).results.length, 1)
})

t.test('a task or a stream that is refused ends the wait', async t => {
  const { as } = await clientSetup(t)
  const client = await as('alice')
  t.match(await thrown(client.watch({ taskId: 'nobodys', model: 'nano-banana' })), { code: 'GW_TASK_NOT_FOUND' })
  const reader = await as('bob', {})
  t.match(await thrown(reader.watch({ taskId: 'nobodys', model: 'nano-banana' })), { code: 'GW_TASK_NOT_FOUND' })
})

t.test('an abort ends whatever is under way, and with its own reason', async t => {
  const { as, proxy, sandbox, turning, pass } = await clientSetup(t)
  const client = await as('alice')
  const reason = new Error('the page has gone')
  const press = (signal: AbortSignal) => client.generate('nano-banana', input, { signal })
  t.equal(await thrown(press(AbortSignal.abort(reason))), reason)
  t.equal(proxy.requests.length, 0)

  for (const kind of ['held', 'page'] as const) {
    const aborting = new AbortController()
    const before = proxy.requests.length
    proxy.fault = () => kind === 'page' ? { kind, status: 503 } : { kind }
    const sent = thrown(press(aborting.signal))
    await until('it is on its way', () => proxy.requests.length > before)
    aborting.abort(reason)
    t.equal(await sent, reason, kind)
  }
  for (const kind of ['held', 'none'] as const) {
    proxy.fault = request => ({ kind: isStream(request) ? kind : 'none' })
    const aborting = new AbortController()
    const before = seen(proxy, isStream)
    const waiting = thrown(press(aborting.signal))
    await until('it waits', () => {
      pass(20)
      return seen(proxy, isStream) > before
    })
    aborting.abort(reason)
    t.equal(await waiting, reason)
  }
  t.equal((await turning(client.generate('nano-banana', input))).results.length, 1, 'the next press finds the task')
  t.equal(sandbox.submits.length, 1)
})

t.test('without a network it waits until there is one again, and uses up no try', async t => {
  const events = new EventTarget()
  const navigator = { onLine: false }
  platform(t, 'navigator', navigator)
  platform(t, 'addEventListener', events.addEventListener.bind(events))
  platform(t, 'removeEventListener', events.removeEventListener.bind(events))
  const { as, proxy, turning, sandbox } = await clientSetup(t)
  const client = await as('alice')
  proxy.fault = () => navigator.onLine ? { kind: 'none' } : { kind: 'cut' }
  const made = turning(client.generate('nano-banana', input))
  await until('it has been tried more often than ever else', () => seen(proxy, isSubmit) > 10)
  navigator.onLine = true
  events.dispatchEvent(new Event('online'))
  t.equal((await made).results.length, 1)
  t.equal(sandbox.submits.length, 1)
})

t.test('a network that has come back opens the stream again', async t => {
  const events = new EventTarget()
  platform(t, 'addEventListener', events.addEventListener.bind(events))
  platform(t, 'removeEventListener', events.removeEventListener.bind(events))
  const { as, proxy, turning } = await clientSetup(t, { sandbox: { taskMs: 100_000 } })
  const client = await as('alice')
  const made = turning(client.generate('nano-banana', input))
  await until('it waits', () => seen(proxy, isStream) === 1)
  events.dispatchEvent(new Event('online'))
  await until('it waits again', () => seen(proxy, isStream) === 2)
  t.equal((await made).results.length, 1)
})

t.test('nobody waits for longer than a minute, and the header says more than the status', async t => {
  const { as, proxy, pauses } = await clientSetup(t)
  const client = await as('alice')
  const answer = (status: number, headers: Record<string, string>, body = '') => {
    proxy.fault = () => ({ kind: 'answer', status, headers, body })
    return thrown(client.session())
  }
  t.match(await answer(429, { 'retry-after': '90' }), { code: 'REFUSED', retryAfter: 90, isPassing: true })
  t.same(pauses, [])
  t.match(await answer(503, { 'x-should-retry': 'false' }), { isPassing: false })
  t.match(await answer(429, { 'x-gateway-error': 'GW_RATE_LIMITED', 'x-should-retry': 'false' },
    JSON.stringify({ message: 'Wait.', error: { code: 'GW_RATE_LIMITED', requestId: 'r1', retryAfterSeconds: 900 } })), {
    code: 'GW_RATE_LIMITED', message: 'Wait.', requestId: 'r1', retryAfter: 900, isPassing: false
  })
  t.match(await answer(502, { 'x-should-retry': 'true' }, JSON.stringify({ error: { code: 'GW_OUTCOME_UNKNOWN' } })), {
    code: 'GW_OUTCOME_UNKNOWN', isPassing: true
  })
  t.match(await answer(502, {}, JSON.stringify({ error: { code: 'GW_OUTCOME_UNKNOWN' } })), {
    code: 'GW_OUTCOME_UNKNOWN', isPassing: false
  })
  t.match(await answer(400, {}, JSON.stringify({ error: { message: 'too dark' } })), { message: 'too dark' })
  t.match(await answer(200, { 'content-type': 'text/html' }, '<h1>App</h1>'), { code: 'REFUSED', message: /baseUrl/ })
  t.match(await answer(200, { 'content-type': 'application/json' }, '{"subj'), { code: 'UNREACHABLE' })
})

t.test('files are uploaded first, and the input names them', async t => {
  const { as, proxy, sandbox, turning } = await clientSetup(t)
  const client = await as('alice')
  let count = 0
  const stored = () => JSON.stringify({ fileId: `f${++count}`, url: 'https://x/y', expiresAt: '2026-01-01T00:00:00Z' })
  const types: Array<string | undefined> = []
  proxy.fault = request => {
    if (request.url !== '/gateway/files') return { kind: 'none' }
    types.push(request.headers['content-type'])
    return { kind: 'answer', status: 201, headers: { 'content-type': 'application/json' }, body: stored() }
  }
  const told: string[] = []
  const file = new Blob(['x'], { type: 'image/png' })
  const { reference } = await client.upload(new Blob(['y']))
  t.equal(reference, 'gateway:file:f1')
  const files = { image: file, more: [file, { reference }] }
  await turning(client.generate('nano-banana', input, { files, onState: ({ state }) => told.push(state) }))
  t.same(types, ['application/octet-stream', 'image/png'], 'each once')
  t.same(JSON.parse(String(sandbox.submits[0]!.body)).input, {
    ...input, image: 'gateway:file:f2', more: ['gateway:file:f2', 'gateway:file:f1']
  })
  t.equal(told[0], 'uploading')
})

t.test('a second press with the same file is the same task, also after one that was cancelled or failed', async t => {
  const { as, proxy, sandbox, turning } = await clientSetup(t)
  const client = await as('alice')
  const [file, other] = [new Blob(['x'], { type: 'image/png' }), new Blob(['x'], { type: 'image/png' })]
  let count = 0
  let isDown = false
  proxy.fault = request => {
    if (request.url !== '/gateway/files') return { kind: 'none' }
    const body = JSON.stringify({ fileId: `f${++count}`, url: 'https://x/y', expiresAt: '2026-01-01T00:00:00Z' })
    return { kind: 'answer', status: isDown ? 400 : 201, headers: { 'content-type': 'application/json' }, body }
  }
  const press = (image: Blob, signal?: AbortSignal) => client.generate('nano-banana', input, { files: { image }, signal })
  const [first, second] = await turning(Promise.all([press(file), press(file, new AbortController().signal)]))
  t.equal(second.taskId, first.taskId)
  t.match([sandbox.submits.length, count], [1, 1])

  const gone = new AbortController()
  const [left, stays] = [thrown(press(file, gone.signal)), press(file)]
  gone.abort()
  t.match(await left, { name: 'AbortError' })
  const { taskId } = await turning(stays)
  t.match([sandbox.submits.length, taskId !== first.taskId], [2, true], 'a press after the end is another task')

  isDown = true
  const before = count
  const failures = await Promise.all([thrown(press(file)), thrown(press(file)), thrown(press(file))])
  t.match(failures.map(({ status }) => status), [400, 400, 400])
  t.equal(count - before, 3)
  isDown = false
  await turning(Promise.all([press(file), press(other)]))
  t.equal(sandbox.submits.length, 4, 'another file is another task, whatever is in it')
})

t.test('any other route is asked with the session, and what may do more the second time is asked once', async t => {
  const { as, proxy } = await clientSetup(t)
  const client = await as('alice')
  t.match(await (await client.request('/gateway/usage')).json(), { total: { tasks: 0 } })
  proxy.fault = () => ({ kind: 'page', status: 503 })
  const tries = async (work: Promise<unknown>): Promise<number> => {
    const before = proxy.requests.length
    await thrown(work)
    return proxy.requests.length - before
  }
  t.equal(await tries(client.request('/gateway/usage')), 6)
  t.equal(await tries(client.request('/v1/messages', { method: 'POST', body: '{}' })), 1)
  const headers = { 'Idempotency-Key': 'a-key-of-my-own-0001' }
  t.equal(await tries(client.request('/v1/messages', { method: 'POST', body: '{}', headers })), 6)
})

t.test('the token goes to the gateway alone, whatever path is asked for', async t => {
  const asked: unknown[] = []
  const fetch = async (url: unknown): Promise<Response> => {
    asked.push(url)
    return Response.json({})
  }
  for (const baseUrl of ['https://gateway.example', '']) {
    const { request } = createClient({ baseUrl, token: 'secret', fetch })
    for (const path of ['@evil.example/', '.evil.example/', ':1@evil.example/', '//evil.example/', '/\\evil.example/',
      'https://evil.example/', '']) {
      await t.rejects(request(path), { name: 'TypeError', message: /begins with one slash/ }, path)
    }
    await request('/gateway/usage?a=//b')
  }
  t.same(asked, ['https://gateway.example/gateway/usage?a=//b', '/gateway/usage?a=//b'])
})

t.test("a guest's proof goes along with each try", async t => {
  const { as, proxy, turning } = await clientSetup(t)
  const proofs: unknown[] = []
  let count = 0
  const client = await as('alice', { getProof: () => `proof-${++count}` })
  proxy.fault = (request, count) => {
    if (!isSubmit(request)) return { kind: 'none' }
    proofs.push(request.headers['x-apixo-proof'])
    return count === 1 ? { kind: 'cut' } : { kind: 'none' }
  }
  await turning(client.generate('nano-banana', input))
  t.same(proofs, ['proof-1', 'proof-2'])
})

t.test('a page needs no address: its own origin is the gateway', async t => {
  const { mint, origin } = await clientSetup(t)
  platform(t, 'location', { origin })
  t.match(await createClient({ token: await mint('alice') }).session(), { subject: 'app:alice' })
})

t.test('where there is no page, the address is what its fetch makes of a path', async t => {
  const { mint, origin } = await clientSetup(t)
  const client = createClient({ token: await mint('alice'), fetch: (path, init) => fetch(`${origin}${path}`, init) })
  t.match(await client.session(), { subject: 'app:alice' })
})

t.test('a pause ends in time, or when nobody waits for it any more', async t => {
  const aborting = new AbortController()
  await realTiming.pause(1, aborting.signal)
  const long = realTiming.pause(1_000_000, aborting.signal)
  aborting.abort()
  await long
  await realTiming.pause(1_000_000, aborting.signal)
  t.ok(realTiming.now() > 0)
})

t.test('a wait that nobody wants any more is over before it begins', async t => {
  t.equal(await untilOnline(AbortSignal.abort(), async over => over.aborted), true)
  const { rest } = transport({}, realTiming)
  await t.rejects(rest(1_000_000, AbortSignal.abort()), { name: 'AbortError' })
  await rest(1, new AbortController().signal)
  await rest(1, undefined)
})
