import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { PassThrough } from 'node:stream'
import t from 'tap'
import { createGateway } from '../../src/gateway.ts'
import { clientSetup, isStream, isSubmit, seen, thrown } from '../helpers/client.ts'
import { until } from '../helpers/until.ts'

const input = { mode: 'text-to-image', prompt: 'a lighthouse at dusk' }

t.test('a call becomes a picture at the gateway, and each state is told once', async t => {
  const { as, turning, proxy, sandbox } = await clientSetup(t, { sandbox: { taskMs: 60_000 } })
  const client = await as('alice')
  const told: string[] = []
  const done = await turning(client.generate('nano-banana', input, { onState: ({ state }) => told.push(state) }))
  t.same(told, ['submitting', 'pending', 'processing', 'success'])
  t.equal(done.results.length, 1)
  t.ok(done.results[0]!.startsWith(`${proxy.origin}/gateway/results/`))
  t.equal((await fetch(done.results[0]!)).headers.get('content-type'), 'image/png')
  t.equal(done.data.state, 'success')
  t.equal(sandbox.submits.length, 1)
  t.equal(seen(proxy, isStream), 1)
})

t.test('a session that ends in a wait is renewed, once for all that wait, and the wait goes on', async t => {
  const { client, mint, turning, proxy } = await clientSetup(t, { sandbox: { taskMs: 40_000 } })
  let asked = 0
  const getToken = () => {
    asked++
    return mint('alice', { ttlSeconds: 15 })
  }
  const mine = client({ getToken })
  const prompts = ['one', 'two', 'three']
  const all = await turning(Promise.all(prompts.map(prompt => mine.generate('nano-banana', { ...input, prompt }))))
  t.equal(all.length, 3)
  t.ok(asked >= 2 && asked <= 5, `${asked} sessions`)
  t.ok(seen(proxy, isStream) > 3, 'streams were opened again')
})

t.test('parallel calls ask for a token once, and once more when it is refused', async t => {
  const { client, mint, call } = await clientSetup(t)
  const [tokens, used]: [string[], string[]] = [[], []]
  const getToken = async () => {
    tokens.push(await mint('alice'))
    return tokens.at(-1)!
  }
  const mine = client({
    getToken,
    fetch: (url, init) => {
      used.push(new Headers(init?.headers).get('authorization')!)
      return fetch(url, init)
    }
  })
  await Promise.all([mine.session(), mine.tasks(), mine.models()])
  t.equal(tokens.length, 1)
  await call('/gateway/session', { token: tokens[0]!, method: 'DELETE' })
  await Promise.all([mine.session(), mine.tasks(), mine.models()])
  t.equal(tokens.length, 2)
  t.equal(used.filter(line => line.endsWith(tokens[0]!)).length, 6)
})

t.test('a token that nobody can renew is an error, and a fresh one that is refused as well', async t => {
  const { client, mint, call } = await clientSetup(t)
  const token = await mint('alice')
  await call('/gateway/session', { token, method: 'DELETE' })
  t.match(await thrown(client({ token }).session()), { code: 'GW_BAD_SESSION', status: 401 })
  t.match(await thrown(client({ getToken: () => token }).session()), { code: 'GW_BAD_SESSION', status: 401 })
  t.match(await thrown(client().session()), { code: 'GW_NO_SESSION', status: 401 })
  t.match(await thrown(client({ getToken: () => Promise.reject(new Error('no backend')) }).session()), { message: 'no backend' })
})

t.test('a token that can not be had for the moment is asked for again', async t => {
  const { client, mint } = await clientSetup(t)
  let asked = 0
  const mine = client({ getToken: () => ++asked === 1 ? Promise.reject(new TypeError('fetch failed')) : mint('alice') })
  t.match(await mine.session(), { subject: 'app:alice' })
})

t.test('a rate that is used up is waited for as long as the gateway says', async t => {
  const { as, turning, pauses, sandbox } = await clientSetup(t, {
    config: 'plans: { default: { requestsPerMinute: 1 } }\nprices: { "*": 1 }'
  })
  const client = await as('alice')
  await turning(client.generate('nano-banana', input))
  await turning(client.generate('nano-banana', { ...input, prompt: 'another' }))
  t.ok(pauses.some(ms => ms >= 10_000), `waited ${pauses}`)
  t.equal(sandbox.submits.length, 2)
})

t.test('the page of a proxy in place of a stream, or of anything else, is waited out', async t => {
  const { as, turning, proxy, sandbox } = await clientSetup(t)
  const client = await as('alice')
  proxy.fault = (_request, count) => count <= 2 ? { kind: 'page', status: 502 } : { kind: 'none' }
  const { results } = await turning(client.generate('nano-banana', input))
  t.equal(results.length, 1)
  t.equal(sandbox.submits.length, 1)
  t.equal(seen(proxy, isStream), 3)
})

t.test('a stream that is cut is read on from where it was', async t => {
  const { as, turning, proxy } = await clientSetup(t, { sandbox: { taskMs: 60_000 } })
  const client = await as('alice')
  const ids: Array<string | undefined> = []
  proxy.fault = request => {
    if (!isStream(request)) return { kind: 'none' }
    ids.push(request.headers['last-event-id'] as string | undefined)
    return ids.length < 3 ? { kind: 'cut-stream', events: 1 } : { kind: 'none' }
  }
  const told: string[] = []
  const { results } = await turning(client.generate('nano-banana', input, { onState: ({ state }) => told.push(state) }))
  t.equal(results.length, 1)
  t.same(told, ['submitting', 'pending', 'processing', 'success'])
  t.equal(ids[0], undefined)
  t.equal(ids[1], 'pending')
})

t.test('a stream that ends before the results have come asks for them', async t => {
  const { as, turning, proxy } = await clientSetup(t)
  const client = await as('alice')
  const { results: [link], ...task } = await turning(client.generate('nano-banana', input))
  const body = `event: state\ndata: ${JSON.stringify({ code: 200, data: task.data })}\nid: success\n\n`
  const headers = { 'content-type': 'text/event-stream' }
  proxy.fault = request => isStream(request) ? { kind: 'answer', status: 200, headers, body } : { kind: 'none' }
  const { results } = await client.watch(task)
  t.equal(results.length, 1)
  t.equal(results[0]!.split('.').slice(0, 5).join(), link!.split('.').slice(0, 5).join())
})

t.test('a gateway that is started again in the middle of a task is found again', async t => {
  const store = join(mkdtempSync(join(tmpdir(), 'client-')), 'gateway.db')
  t.teardown(() => rmSync(dirname(store), { recursive: true }))
  const setup = await clientSetup(t, { store })
  const { as, turning, proxy, sandbox, time: { now, elapsed }, timers } = setup
  const client = await as('alice')
  const states: string[] = []
  const work = turning(client.generate('nano-banana', input, { onState: ({ state }) => states.push(state) }))
  await until('it is known to run', () => states.includes('pending'))
  await setup.gateway.close()
  const again = await createGateway(setup.settings, { now, elapsed, timers, logTo: new PassThrough() })
  t.teardown(() => again.close())
  proxy.to = await again.listen()
  t.equal((await work).results.length, 1)
  t.equal(sandbox.submits.length, 1)
})

t.test('an answer that is lost is asked for again, and is one task', async t => {
  const { as, turning, proxy, sandbox } = await clientSetup(t)
  const client = await as('alice')
  proxy.fault = (request, count) => isSubmit(request) && count < 3 ? { kind: 'lost' } : { kind: 'none' }
  const { taskId } = await turning(client.generate('nano-banana', input))
  t.equal(seen(proxy, isSubmit), 3)
  t.equal(sandbox.submits.length, 1)
  t.match((await client.tasks()).tasks, [{ taskId }])
})

t.test('a second press of the button is the same task, and another key makes another', async t => {
  const { as, turning, sandbox } = await clientSetup(t)
  const client = await as('alice')
  const press = (idempotencyKey?: string) => client.generate('nano-banana', input, { idempotencyKey })
  const [one, two, three] = await turning(Promise.all([press(), press(), press('another')]))
  t.equal(one!.taskId, two!.taskId)
  t.not(one!.taskId, three!.taskId)
  t.equal(sandbox.submits.length, 2)
  const again = await turning(press())
  t.not(again.taskId, one!.taskId, 'what has ended is over')
})

t.test('a press after an answer that was lost for good is the same task, for as long as the gateway remembers', async t => {
  const { as, turning, proxy, sandbox, time } = await clientSetup(t)
  const client = await as('alice')
  proxy.fault = request => isSubmit(request) ? { kind: 'lost' } : { kind: 'none' }
  t.match(await thrown(client.generate('nano-banana', input)), { code: 'UNREACHABLE', status: 0, isPassing: true })
  proxy.fault = () => ({ kind: 'none' })
  await turning(client.generate('nano-banana', input))
  t.equal(sandbox.submits.length, 1)
  proxy.fault = request => isSubmit(request) ? { kind: 'cut' } : { kind: 'none' }
  t.match(await thrown(client.generate('nano-banana', input)), { code: 'UNREACHABLE' })
  proxy.fault = () => ({ kind: 'none' })
  time.advance(120_001)
  await turning(client.generate('nano-banana', input))
  t.equal(sandbox.submits.length, 2)
})

t.test("a task that fails says why, in the upstream's own words", async t => {
  const { as, turning } = await clientSetup(t)
  const client = await as('alice')
  const error = await thrown(turning(client.generate('nano-banana', { ...input, prompt: 'sandbox:failed' })))
  t.equal(error.code, 'TASK_FAILED')
  t.type(error.reason, 'string')
  t.type(error.reasonCode, 'string')
  t.ok(error.message.includes(error.reason!))
  t.match(error.taskId, /^\w+$/)
  t.equal(error.isPassing, false)
})

t.test('a reason stands in one place or another, or is not given at all', async t => {
  const { as, proxy } = await clientSetup(t)
  const client = await as('alice')
  const headers = { 'content-type': 'text/event-stream' }
  for (const [said, reason] of [
    [{ error: 'too dark' }, 'too dark'], [{ error: { message: 'too light' } }, 'too light'], [{}, null]
  ] as const) {
    const data = JSON.stringify({ code: 200, data: { taskId: 'x', state: 'failed', ...said } })
    proxy.fault = () => ({ kind: 'answer', status: 200, headers, body: `event: state\ndata: ${data}\n\n` })
    t.match(await thrown(client.watch({ taskId: 'x', model: 'nano-banana' })), { code: 'TASK_FAILED', reason, taskId: 'x' })
  }
})

t.test('a refusal of the upstream keeps its reason, with HTTP 200 as well', async t => {
  const { as, sandbox } = await clientSetup(t)
  const client = await as('alice')
  for (const name of ['http-400', 'code-400']) {
    const error = await thrown(client.generate('nano-banana', { ...input, prompt: `sandbox:${name}` }))
    t.match(error, { code: 'REFUSED', status: 400, isPassing: false }, name)
    t.type(error.reason, 'string')
  }
  const limited = await thrown(client.generate('nano-banana', { ...input, prompt: 'sandbox:code-429' }))
  t.match(limited, { code: 'REFUSED', status: 429, isPassing: true })
  t.equal(sandbox.submits.length, 2 + 6, 'what may pass was tried six times')
})

t.test('an unknown outcome is told, and never sent again', async t => {
  const { as, sandbox, proxy, turning } = await clientSetup(t)
  const client = await as('alice')
  const press = () => client.generate('nano-banana', { ...input, prompt: 'sandbox:drop-after' })
  t.match(await thrown(press()), { code: 'GW_OUTCOME_UNKNOWN', status: 502, isPassing: false, requestId: /./ })
  t.equal(seen(proxy, isSubmit), 1)
  t.match(await thrown(press()), { code: 'GW_OUTCOME_UNKNOWN' }, 'and a second press is told the same')
  t.equal(sandbox.submits.length, 1)
  await turning(client.generate('nano-banana', input))
})

t.test('results past their expiry are an error with a code, and a watch gives new links', async t => {
  const { as, turning, time, proxy } = await clientSetup(t)
  const client = await as('alice')
  const task = await turning(client.generate('nano-banana', input))
  const pathOf = (url: string) => url.slice(proxy.origin.length)
  time.advance(16 * 60_000)
  t.match(await thrown(client.request(pathOf(task.results[0]!))), { code: 'GW_RESULT_EXPIRED', status: 410 })
  const { results } = await client.watch(task)
  t.equal((await client.request(pathOf(results[0]!))).status, 200)
})
