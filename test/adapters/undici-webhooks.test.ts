import { createServer as createPlainServer } from 'node:http'
import t, { type Test } from 'tap'
import { undiciWebhooks, type UndiciWebhooksOptions } from '../../src/adapters/undici/webhooks.ts'
import type { Resolve } from '../../src/domain/egress.ts'
import { certificate } from '../helpers/certificate.ts'
import { httpPort } from '../helpers/http-server.ts'
import { closedPort } from '../helpers/raw-server.ts'
import { status, webhookReceiver } from '../helpers/webhook-receiver.ts'

const letter = {
  headers: { 'content-type': 'application/json', 'webhook-id': 'msg_1' },
  body: Buffer.from('{"code":200}')
}

function courier (t: Test, options: Partial<UndiciWebhooksOptions> = {}) {
  const it = undiciWebhooks({ userAgent: 'apixo-gateway/test', connectMs: 2000, ...options })
  t.teardown(() => it.close())
  return it
}

t.test('a message arrives with our headers and no others, and its status comes back', async t => {
  const { origin, webhooks, messages, answers } = await webhookReceiver(t)
  const it = courier(t, webhooks)
  for (const code of [200, 204, 400, 503]) {
    answers.push(status(code))
    t.same(await it.send({ ...letter, url: `${origin}/a/b?c=d` }), { status: code, error: null })
  }
  const [{ path, headers, body }] = messages as [typeof messages[number]]
  t.equal(path, '/a/b?c=d')
  t.equal(body.toString(), '{"code":200}')
  t.match(headers, { 'content-type': 'application/json', 'webhook-id': 'msg_1', 'user-agent': 'apixo-gateway/test' })
  t.same(Object.keys(headers).sort(), [
    'connection',
    'content-length',
    'content-type',
    'host',
    'user-agent',
    'webhook-id'
  ])
})

t.test('only a certificate that proves the host is good enough', async t => {
  const { origin, webhooks, messages, port } = await webhookReceiver(t)
  const stranger = certificate(t, 'app.test').cert
  t.same(await courier(t, { ...webhooks, ca: stranger }).send({ ...letter, url: origin }), {
    status: null,
    error: 'unreachable'
  })
  t.same(await courier(t, webhooks).send({ ...letter, url: `https://other.test:${port}/` }), {
    status: null,
    error: 'unreachable'
  })
  t.equal(messages.length, 0)
})

t.test('what is no https, nobody, or a broken answer each has its word', async t => {
  const { origin, webhooks, answers } = await webhookReceiver(t)
  const it = courier(t, { ...webhooks, timeoutMs: 300 })
  const port = await httpPort(t, createPlainServer(status(200)))
  t.match(await it.send({ ...letter, url: `https://app.test:${port}/` }), {
    status: null,
    error: /^(?:unreachable|broken)$/
  })
  t.same(await it.send({ ...letter, url: `https://app.test:${await closedPort()}/` }), {
    status: null,
    error: 'unreachable'
  })
  answers.push(request => {
    request.socket.destroy()
  })
  t.same(await it.send({ ...letter, url: origin }), { status: null, error: 'broken' })
  answers.push(request => { request.socket.end('no HTTP\r\n\r\n') })
  t.same(await it.send({ ...letter, url: origin }), { status: null, error: 'broken' })
  answers.push(() => {})
  t.same(await it.send({ ...letter, url: origin }), { status: null, error: 'timeout' })
  const nowhere: Resolve = (_hostname, _options, done) =>
    done(Object.assign(new Error('getaddrinfo ENOTFOUND'), { code: 'ENOTFOUND' }), [])
  t.same(await courier(t, { resolve: nowhere }).send({ ...letter, url: origin }), {
    status: null,
    error: 'unreachable'
  })
})

t.test('a connection that does not come to stand in time is a timeout', async t => {
  const alive = setInterval(() => {}, 1000) // a wait of undici keeps no process alive
  t.teardown(() => clearInterval(alive))
  const it = courier(t, { connectMs: 50, resolve: () => { /* it never answers */ } })
  t.same(await it.send({ ...letter, url: 'https://app.test/' }), { status: null, error: 'timeout' })
})

t.test('of an answer the status is enough: a body without an end is not read', async t => {
  const { origin, webhooks, answers } = await webhookReceiver(t)
  const it = courier(t, webhooks)
  let sent = 0
  answers.push((_request, response) => {
    response.writeHead(200)
    const more = (): void => {
      if (!response.destroyed) {
        sent++
        response.write(Buffer.alloc(65_536), error => {
          if (!error) setImmediate(more)
        })
      }
    }
    more()
  })
  t.same(await it.send({ ...letter, url: origin }), { status: 200, error: null })
  await new Promise(resolve => setTimeout(resolve, 100))
  t.ok(sent < 200, `${sent} pieces`)
  t.same(await it.send({ ...letter, url: origin }), { status: 204, error: null })
})

t.test('an end of the courier is an end of what is under way', async t => {
  const { origin, webhooks, answers, messages } = await webhookReceiver(t)
  const it = courier(t, webhooks)
  answers.push(() => {})
  const brought = it.send({ ...letter, url: origin })
  while (messages.length === 0) await new Promise(resolve => setImmediate(resolve))
  await it.close()
  t.match(await brought, { status: null, error: 'broken' })
})
