import t from 'tap'
import { resultTickets } from '../../src/features/results/routes.ts'
import { fileServer, taskWith, whole } from '../helpers/file-server.ts'
import { startGateway } from '../helpers/gateway.ts'

t.test(
  'no cache stores a result, by session or by ticket, in whole or in part, good or bad, whatever its host allows',
  async t => {
    const gateway = await startGateway(t, {
      config: 'plans: { default: { credits: unlimited } }\nresults: { hosts: ["127.0.0.1"] }',
      env: { GATEWAY_ALLOWED_ORIGINS: 'https://app.example' }
    })
    const { call, mint, settings, time } = gateway
    const files = await fileServer(t, ({ url, headers: { range, 'if-none-match': tag } }, response) => {
      const cacheable = {
        'cache-control': 'public, max-age=31536000, immutable',
        expires: 'Thu, 15 Jan 2037 12:00:00 GMT',
        age: '7',
        'surrogate-control': 'max-age=9',
        'cdn-cache-control': 'max-age=9',
        vary: '*'
      }
      if (url === '/gone') response.writeHead(404, cacheable).end()
      else if (tag !== undefined) response.writeHead(304, { ...cacheable, etag: '"one"' }).end()
      else if (range === undefined) whole('bytes', 'image/png', cacheable)({} as never, response)
      else {
        response
          .writeHead(range === 'bytes=0-0' ? 206 : 416, {
            ...cacheable,
            'content-range': range === 'bytes=0-0' ? 'bytes 0-0/5' : 'bytes */5'
          })
          .end('b')
      }
    })
    const token = await mint('alice')
    const taskId = await taskWith(gateway, token, { resultUrls: [`${files.origin}/a`, `${files.origin}/gone`] })
    const { ticketFor } = resultTickets({
      ...settings.file.results,
      secrets: { current: settings.sessionSecrets },
      now: time.now,
      taskOf: async () => null
    })
    const ticket = `/gateway/results/${ticketFor({ taskId, subject: 'app:alice' }, 0)}`
    const session = `/gateway/tasks/${taskId}/results/0`

    for (const [path, status, headers] of [
      [session, 200, {}],
      [ticket, 200, {}],
      [`${ticket}?download=1`, 200, {}],
      [ticket, 206, { range: 'bytes=0-0' }],
      [ticket, 416, { range: 'bytes=9-' }],
      [session, 304, { 'if-none-match': '"one"' }],
      [`/gateway/tasks/${taskId}/results/1`, 502, {}],
      [`/gateway/tasks/${taskId}/results/2`, 404, {}],
      [`${ticket}x`, 404, {}]
    ] as const) {
      for (const origin of ['https://app.example', 'https://evil.test']) {
        const reply = await call(path, { token, headers: { ...headers, origin } })
        t.equal(reply.status, status, `${path} ${JSON.stringify(headers)}`)
        t.equal(reply.headers.get('cache-control'), 'no-store')
        t.match(reply.headers.get('vary'), /^origin$/i)
        for (const name of ['expires', 'age', 'surrogate-control', 'cdn-cache-control']) {
          t.equal(reply.headers.get(name), null, name)
        }
      }
    }
  }
)

t.test("a name that looks like a file's is no other way to a result", async t => {
  const gateway = await startGateway(t, {
    config: 'plans: { default: { credits: unlimited } }\nresults: { hosts: ["127.0.0.1"] }'
  })
  const token = await gateway.mint('alice')
  const files = await fileServer(t, whole('bytes'))
  const taskId = await taskWith(gateway, token, { resultUrls: [files.origin] })
  for (const path of ['0.png', '0/x.css', '0%2f', '0;x', '0%3b.png']) {
    t.equal((await gateway.call(`/gateway/tasks/${taskId}/results/${path}`, { token })).status, 404, path)
  }
  t.equal(files.requests.length, 0)
})
