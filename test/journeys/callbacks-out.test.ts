import t, { type Test } from 'tap'
import { clock } from '../helpers/clock.ts'
import { deliveringGateway, isSigned } from '../helpers/deliveries.ts'
import { storeFile } from '../helpers/store-file.ts'
import { until } from '../helpers/until.ts'
import { status, webhookReceiver } from '../helpers/webhook-receiver.ts'

/** A task of a first gateway has ended, and its delivery is due. What is there stays there for a second one. */
async function beforeRestart (t: Test) {
  const [receiver, store, time] = [await webhookReceiver(t), storeFile(t), clock()]
  const first = await deliveringGateway(t, { receiver, store, time })
  const token = await first.mint('alice', { ttlSeconds: 86_400 })
  const taskId = await first.submitTo(token, `${receiver.origin}/`)
  return { receiver, store, time, first, token, taskId, envelope: await first.endOf(token, taskId) }
}

t.test(
  'the end of a task is told to the server that its caller has named: the envelope, byte for byte, and signed',
  async t => {
    const { server, mint, submitTo, endOf, deliver, deliveryOf, sandbox, time } = await deliveringGateway(t)
    const token = await mint('alice', { ttlSeconds: 86_400 })
    const taskId = await submitTo(token, `${server.origin}/hooks?for=alice`, 'sandbox:status-big-number')
    t.same(
      Object.keys(JSON.parse(sandbox.submits[0]!.body.toString())),
      ['request_type', 'input'],
      'the upstream never hears of it'
    )
    t.match(sandbox.submits[0]!.body.toString(), '"request_type":"async"')
    t.match(await deliveryOf(token, taskId), { state: 'waiting', attempts: [], nextAttemptAt: null })

    const envelope = await endOf(token, taskId)
    t.match(await deliveryOf(token, taskId), { state: 'due', attempts: [] })
    const delivered = await deliver(token, taskId)
    const [message] = server.messages
    t.equal(message!.body.toString(), envelope)
    t.match(envelope, '9223372036854775807')
    t.equal(message!.path, '/hooks?for=alice')
    t.match(message!.headers, {
      'content-type': 'application/json',
      'user-agent': /^apixo-gateway\//,
      'webhook-id': delivered.webhookId,
      'webhook-timestamp': String(Math.floor(time.now() / 1000))
    })
    t.same(
      Object.keys(message!.headers).filter(name => !/^(?:webhook-|content-|user-agent|host|connection)/.test(name)),
      []
    )
    t.ok(isSigned(message!, 'app.test'))
    t.notOk(isSigned(message!, 'b.app.test'), 'each host has a secret of its own')
    t.same(delivered, {
      webhookId: delivered.webhookId,
      state: 'delivered',
      attempts: [{ at: new Date(time.now()).toISOString(), status: 204, error: null }],
      nextAttemptAt: null
    })
  }
)

t.test(
  'a server that does not take it gets it again, five times in some hours, under the same id; then it is given up',
  async t => {
    const { server, mint, submitTo, endOf, deliver, gateway, time, log } = await deliveringGateway(t)
    const token = await mint('alice', { ttlSeconds: 86_400 })
    const taskId = await submitTo(token, `${server.origin}/`)
    await endOf(token, taskId)
    server.answers.push(
      status(500),
      status(404),
      status(429),
      request => {
        request.socket.destroy()
      },
      status(301, { location: '/elsewhere' }),
      status(503)
    )
    for (const [round, waitMs] of [30_000, 120_000, 600_000, 3_600_000, 21_600_000].entries()) {
      const { state, attempts, nextAttemptAt } = await deliver(token, taskId)
      t.equal(state, 'due')
      t.equal(attempts.length, round + 1)
      t.equal(nextAttemptAt, new Date(time.now() + waitMs).toISOString())
      time.advance(waitMs - 1)
      await gateway.tidy()
      t.equal(server.messages.length, round + 1, 'not before its time')
      time.advance(1)
    }
    const { state, attempts, nextAttemptAt } = await deliver(token, taskId)
    t.match({ state, nextAttemptAt }, { state: 'given-up', nextAttemptAt: null })
    t.same(
      attempts.map(({ status, error }) => status ?? error),
      [500, 404, 429, 'broken', 301, 503]
    )
    t.equal(new Set(server.messages.map(({ headers }) => headers['webhook-id'])).size, 1)
    t.equal(new Set(server.messages.map(({ headers }) => headers['webhook-timestamp'])).size, 6)
    t.ok(server.messages.every(message => isSigned(message, 'app.test')))
    t.match(
      log.filter(({ msg }) => /given up/.test(msg)),
      [{ taskId, status: 503 }]
    )
    time.advance(86_400_000)
    await gateway.tidy()
    t.equal(server.messages.length, 6)
  }
)

t.test('a restart in the middle loses nothing: what was not answered is sent again, and the pauses go on', async t => {
  const { receiver, store, time, first, token, taskId, envelope } = await beforeRestart(t)
  receiver.answers.push(status(503), () => {
    /* the connection ends without an answer, when the gateway does */
  })
  await first.deliver(token, taskId)
  time.advance(30_000)
  await first.gateway.tidy()
  await until('the second attempt', () => receiver.messages.length === 2)
  await first.gateway.close()

  const second = await deliveringGateway(t, { receiver, store, time, upstream: first.sandbox })
  t.match(await second.deliveryOf(token, taskId), { state: 'due', attempts: [{ status: 503 }] })
  t.match(await second.deliver(token, taskId), { state: 'delivered', attempts: [{ status: 503 }, { status: 204 }] })
  t.same(
    receiver.messages.map(({ body }) => body.toString()),
    [envelope, envelope, envelope]
  )
  t.equal(new Set(receiver.messages.map(({ headers }) => headers['webhook-id'])).size, 1)
})

t.test('many ends at once are delivered a bounded number at a time, and all of them', async t => {
  const { server, mint, submitTo, endOf, deliveryOf, gateway } = await deliveringGateway(t)
  const token = await mint('alice', { ttlSeconds: 86_400 })
  const ids: string[] = []
  for (let count = 0; count < 70; count++) ids.push(await submitTo(token, `${server.origin}/`))
  for (const taskId of ids) await endOf(token, taskId)
  let [open, most] = [0, 0]
  for (let count = 0; count < 70; count++) {
    server.answers.push((_request, response) => {
      most = Math.max(most, ++open)
      setTimeout(() => {
        open--
        response.writeHead(200).end()
      }, 5)
    })
  }
  await gateway.tidy()
  await until('all of them', () => server.messages.length === 70)
  t.ok(most <= 20, `${most} at a time`)
  for (const taskId of ids) {
    await until('it is noted', async () => (await deliveryOf(token, taskId)).state === 'delivered')
  }
  await gateway.tidy()
  t.equal(server.messages.length, 70, 'each once')
})

t.test('with several session secrets a message has a signature for each', async t => {
  const env = { GATEWAY_SESSION_SECRET: 'the-newest-session-secret-of-32-bytes,a-session-secret-of-32-bytes-and-more' }
  const { server, mint, submitTo, endOf, deliver } = await deliveringGateway(t, { env })
  const token = await mint('alice', { ttlSeconds: 86_400 })
  const taskId = await submitTo(token, `${server.origin}/`)
  await endOf(token, taskId)
  await deliver(token, taskId)
  const [message] = server.messages
  t.match(message!.headers['webhook-signature'], /^v1,[\w+/]{43}= v1,[\w+/]{43}=$/)
  t.ok(isSigned(message!, 'app.test', 'the-newest-session-secret-of-32-bytes'))
  t.ok(isSigned(message!, 'app.test', 'a-session-secret-of-32-bytes-and-more'))
})

t.test(
  'a host that the operator has taken off the list is not called any more, also with what waits for it',
  async t => {
    const { receiver, store, time, first, token, taskId } = await beforeRestart(t)
    await first.gateway.close()
    const config = 'plans: { default: {} }\ncallbacks: { allowedHosts: [other.test] }'
    const second = await deliveringGateway(t, { receiver, store, time, config, upstream: first.sandbox })
    t.match(await second.deliver(token, taskId), {
      state: 'given-up',
      attempts: [{ status: null, error: 'host-not-allowed' }]
    })
    t.equal(receiver.messages.length, 0)
  }
)

t.test('both at once: the upstream calls us, and we call the caller', async t => {
  const receiver = await webhookReceiver(t)
  const config = `plans: { default: {} }\ncallbacks: { inbound: true, allowedHosts: [${receiver.host}] }`
  const { sandbox, mint, submitTo, pass, gateway, deliveryOf } = await deliveringGateway(t, {
    receiver,
    config,
    env: { GATEWAY_PUBLIC_URL: 'https://gateway.example' }
  })
  const token = await mint('alice', { ttlSeconds: 86_400 })
  const taskId = await submitTo(token, `${receiver.origin}/hooks`)
  const sent = JSON.parse(sandbox.submits[0]!.body.toString())
  t.match(sent, { request_type: 'callback', callback_url: /^https:\/\/gateway\.example\/gateway\/callbacks\// })
  t.notMatch(sandbox.submits[0]!.body.toString(), 'app.test')
  pass(6000)
  await until('its end', async () => (await deliveryOf(token, taskId)).state === 'due')
  await gateway.tidy()
  await until('the message', () => receiver.messages.length === 1)
  t.match(JSON.parse(receiver.messages[0]!.body.toString()), { data: { taskId, state: 'success' } })
})
