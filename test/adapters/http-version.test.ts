import { createSecureServer } from 'node:http2'
import t, { type Test } from 'tap'
import { undiciResults } from '../../src/adapters/undici/results.ts'
import { undiciUpstream } from '../../src/adapters/undici/upstream.ts'
import { undiciWebhooks } from '../../src/adapters/undici/webhooks.ts'
import type { Resolve } from '../../src/domain/egress.ts'
import type { ResultRef } from '../../src/domain/results.ts'
import { Secret } from '../../src/domain/secret.ts'
import { certificate } from '../helpers/certificate.ts'
import { listen } from '../helpers/raw-server.ts'

/** Calls at a time. */
const parallel = 10
const waits = { connectMs: 5000, headersMs: 5000, bodyIdleMs: 5000, keepAliveMs: 4000, userAgent: 'apixo-gateway/test' }
const resolve: Resolve = (_hostname, _options, done) => setImmediate(done, null, [{ address: '127.0.0.1', family: 4 }])

/** A server that offers HTTP/2 first, and answers when all the calls of a round are there. */
async function modernServer (t: Test) {
  const { cert, key } = certificate(t, 'localhost', 'app.test', 'file.apixo.test')
  const versions: string[] = []
  const waiting: Array<() => void> = []
  let sockets = 0
  const server = createSecureServer({ cert, key, allowHTTP1: true }, (request, response) => {
    versions.push(request.httpVersion)
    waiting.push(() => { response.writeHead(200, { 'content-type': 'image/png' }).end('{}') })
    if (waiting.length === parallel) for (const answer of waiting.splice(0)) answer()
  })
  server.on('secureConnection', () => { sockets++ })
  const port = await listen(server)
  t.teardown(() => { server.close() })
  return { ca: cert, port, versions, sockets: () => sockets }
}

type Modern = Awaited<ReturnType<typeof modernServer>>

/** Whoever speaks to a server elsewhere, and one call of it. */
const clients: Readonly<Record<string, (t: Test, server: Modern) => () => Promise<unknown>>> = {
  upstream (t, { ca, port }) {
    const it = undiciUpstream({ ...waits, baseUrl: `https://localhost:${port}`, ca })
    t.teardown(() => it.close())
    const key = { id: 'key-1', secret: new Secret('apixo-key-of-the-operator-0001') }
    return () => it.send({ method: 'POST', path: '/api/v1/generateTask/suno', body: Buffer.from('{}'), key }).answer
  },
  results (t, { ca, port }) {
    const it = undiciResults({
      ...waits,
      hosts: ['*.apixo.test'],
      baseUrl: 'https://api.apixo.ai',
      maxBytes: 1000,
      ca,
      resolve,
      isAllowed: () => true
    })
    t.teardown(() => it.close())
    return async () => {
      const answer = await it.fetch(
        { url: `https://file.apixo.test:${port}/a.png` } as ResultRef,
        {},
        new AbortController().signal
      )
      await answer!.body!.toArray()
    }
  },
  webhooks (t, { ca, port }) {
    const it = undiciWebhooks({ ...waits, ca, resolve, isAllowed: () => true })
    t.teardown(() => it.close())
    return () => it.send({ url: `https://app.test:${port}/`, headers: {}, body: Buffer.from('{}') })
  }
}

for (const [name, open] of Object.entries(clients)) {
  t.test(
    `a server that offers HTTP/2 is spoken to in HTTP/1.1, with a connection for each call at a time: ${name}`,
    async t => {
      const server = await modernServer(t)
      const call = open(t, server)
      await Promise.all(Array.from({ length: parallel }, call))
      t.same(
        server.versions,
        Array.from({ length: parallel }, () => '1.1')
      )
      t.equal(server.sockets(), parallel, 'the loss of one is not the loss of all')
    }
  )
}
