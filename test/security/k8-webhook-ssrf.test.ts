import { createServer } from 'node:net'
import t from 'tap'
import type { Resolve } from '../../src/domain/egress.ts'
import { deliveringGateway } from '../helpers/deliveries.ts'
import { listen } from '../helpers/raw-server.ts'
import { status, webhookReceiver } from '../helpers/webhook-receiver.ts'

/** Leads to these, one list of addresses after another; the last one for ever. */
function leadingTo (...lists: readonly string[]): Resolve & { asked: number } {
  const resolve: Resolve = (_hostname, _options, done) => {
    const list = lists[Math.min(it.asked++, lists.length - 1)]!
    setImmediate(
      done,
      null,
      list.split(' ').map(address => ({ address, family: address.includes(':') ? 6 : 4 }))
    )
  }
  const it = Object.assign(resolve, { asked: 0 })
  return it
}

const inside = [
  '127.0.0.1',
  '127.8.8.8',
  '::1',
  '0.0.0.0',
  '::',
  '10.1.2.3',
  '172.16.0.1',
  '192.168.1.1',
  '169.254.169.254',
  'fe80::1',
  'fd00:ec2::254',
  '::ffff:127.0.0.1',
  '::ffff:169.254.169.254',
  '64:ff9b::7f00:1',
  '2002:7f00:1::',
  '100.64.0.1',
  '224.0.0.1',
  '255.255.255.255',
  '1.1.1.1 10.0.0.1'
]

t.test(
  "a host that leads into this machine, its network or the cloud's metadata is not called, and its owner sees why",
  { timeout: 60_000 },
  async t => {
    const server = await webhookReceiver(t)
    const connections: unknown[] = []
    const trap = createServer(socket => {
      connections.push(socket)
      socket.destroy()
    })
    const port = await listen(trap)
    t.teardown(() => trap.close())
    for (const addresses of inside) {
      const { isAllowed, ...webhooks } = server.webhooks
      const gateway = await deliveringGateway(t, {
        receiver: server,
        webhooks: { ...webhooks, resolve: leadingTo(addresses) }
      })
      const token = await gateway.mint('alice')
      const taskId = await gateway.submitTo(token, `https://app.test:${port}/`)
      await gateway.endOf(token, taskId)
      t.match(
        await gateway.deliver(token, taskId),
        { state: 'due', attempts: [{ status: null, error: 'address-refused' }] },
        addresses
      )
    }
    t.equal(connections.length, 0)
    t.equal(server.messages.length, 0)
  }
)

t.test('a name that led to a good address once is judged anew at each attempt', async t => {
  const server = await webhookReceiver(t)
  const resolve = leadingTo('127.0.0.1', '127.0.0.2')
  const webhooks = { ...server.webhooks, resolve, isAllowed: (address: string) => address === '127.0.0.1' }
  const { mint, submitTo, endOf, deliver, time } = await deliveringGateway(t, { receiver: server, webhooks })
  const token = await mint('alice')
  const taskId = await submitTo(token, `${server.origin}/`)
  await endOf(token, taskId)
  server.answers.push(status(503))
  t.match(await deliver(token, taskId), { attempts: [{ status: 503 }] })
  time.advance(30_000)
  t.match(await deliver(token, taskId), { attempts: [{ status: 503 }, { error: 'address-refused' }] })
  t.equal(server.messages.length, 1)
})

t.test('a redirect is not followed, wherever it leads, and is no success', async t => {
  const { server, mint, submitTo, endOf, deliver, time } = await deliveringGateway(t)
  const token = await mint('alice')
  const taskId = await submitTo(token, `${server.origin}/start`)
  await endOf(token, taskId)
  for (const code of [301, 302, 307, 308]) {
    server.answers.push(status(code, { location: `${server.origin}/elsewhere` }))
    const { attempts } = await deliver(token, taskId)
    t.equal(attempts.at(-1)!.status, code)
    time.advance(21_600_000 / 36)
  }
  t.same(new Set(server.messages.map(({ path }) => path)), new Set(['/start']))
})

t.test("no header of a caller's reaches the server, and nothing that it answers reaches a caller", async t => {
  const { server, call, mint, deliver, endOf } = await deliveringGateway(t)
  const token = await mint('alice')
  const body = { callback_url: `${server.origin}/`, input: { prompt: 'x' } }
  const headers = {
    'x-custom': 'mine',
    cookie: 'a=b',
    'webhook-id': 'forged',
    'webhook-signature': 'v1,forged',
    traceparent: 'forged'
  }
  const { taskId } = (await call('/api/v1/generateTask/nano-banana', { token, body, headers })).json.data
  await endOf(token, taskId)
  server.answers.push(status(200, { 'set-cookie': 'stolen=1', 'x-secret': 'stolen' }))
  const shown = await deliver(token, taskId)
  const [message] = server.messages
  t.notMatch(JSON.stringify(message!.headers), /mine|forged|a=b/)
  t.notMatch(JSON.stringify(message!.headers), token)
  t.notMatch(JSON.stringify(shown), /stolen|thank you/)
})

t.test('how a delivery went is for the owner of its task: to a stranger there is no such task', async t => {
  const { server, call, mint, submitTo, endOf, deliver, deliveryOf } = await deliveringGateway(t)
  const token = await mint('alice')
  const taskId = await submitTo(token, `${server.origin}/?secret=hook`)
  await endOf(token, taskId)
  await deliver(token, taskId)
  const path = `/gateway/tasks/${taskId}/deliveries`
  const stranger = await mint('mallory')
  const [foreign, unknown] = [
    await call(path, { token: stranger }),
    await call('/gateway/tasks/nobodys/deliveries', { token: stranger })
  ]
  t.match(foreign, { status: 404, error: 'GW_TASK_NOT_FOUND' })
  t.same({ ...foreign.json, error: '' }, { ...unknown.json, error: '' })
  t.equal((await call(path)).status, 401)
  t.equal((await call(path, { token: await mint('alice', { scopes: ['tasks:write'] }) })).error, 'GW_SCOPE_DENIED')
  t.equal((await call(path, { token: await mint('alice', { models: ['suno'] }) })).error, 'GW_MODEL_DENIED')
  t.equal((await call(`${path}?x=1`, { token })).error, 'GW_BAD_REQUEST')
  t.equal((await call(path, { method: 'POST', token, body: {} })).status, 405)
  t.notMatch(JSON.stringify(await deliveryOf(token, taskId)), 'secret=hook')
})

t.test('who did not ask has no deliveries', async t => {
  const { submit, mint, deliveryOf } = await deliveringGateway(t)
  const token = await mint('alice')
  const { taskId } = (await submit(token)).json.data
  t.same(await deliveryOf(token, taskId), { webhookId: null, state: 'none', attempts: [], nextAttemptAt: null })
})
