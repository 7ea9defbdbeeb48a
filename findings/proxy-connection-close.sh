#!/usr/bin/env bash
# A client that says `connection: close` is answered by @fastify/http-proxy, and the connection stays open all the same.
#
# Seen with @fastify/http-proxy 11.6.3 (reply-from 12.6.5) on fastify 5.12.8, Node 24. A route of Fastify's own and a
# route that is proxied, each asked once with `connection: close`; `keepAliveTimeout` is 1500 ms here, 72 s by default.
# - own route: answered with `connection: close`, and closed in some milliseconds.
# - proxied: the upstream's `connection: keep-alive` and `keep-alive: timeout=…` are passed on, which are hop-by-hop
#   fields; Node's server then takes that header for its program's wish, and keeps the connection until it times out.
# So a client that reads until the end of the connection, as HTTP/1.0 tools and many load generators do, hears nothing
# of the end for more than a minute; and the upstream decides how long the proxy's sockets stay.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
npm init -y >/dev/null
npm install --no-audit --no-fund --silent fastify@5.12.8 @fastify/http-proxy@11.6.3 @fastify/reply-from@12.6.5
cat > see.mjs <<'JS'
import proxy from '@fastify/http-proxy'
import fastify from 'fastify'
import { once } from 'node:events'
import { createServer } from 'node:http'
import { connect } from 'node:net'

const upstream = createServer((incoming, response) => response.end('hello')).listen(0, '127.0.0.1')
await once(upstream, 'listening')
const app = fastify({ keepAliveTimeout: 1500 })
app.get('/own', async () => 'hello')
app.register(proxy, { upstream: `http://127.0.0.1:${upstream.address().port}`, prefix: '/proxied' })
await app.listen({ port: 0, host: '127.0.0.1' })

async function ask (path) {
  const socket = connect(app.server.address().port, '127.0.0.1')
  let answer = ''
  socket.on('data', data => { answer += data })
  socket.write(`GET ${path} HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n`)
  await once(socket, 'data')
  const answered = performance.now()
  await once(socket, 'close')
  const closed = performance.now() - answered < 1000 ? 'closed at once' : 'closed by the time-out'
  return `${answer.match(/^connection: (.*?)\r/im)[1]}, ${closed}`
}
const seen = { own: await ask('/own'), proxied: await ask('/proxied/x') }
console.log(seen)
await app.close()
upstream.closeAllConnections()
upstream.close()

const expected = { own: 'close, closed at once', proxied: 'keep-alive, closed by the time-out' }
const same = JSON.stringify(seen) === JSON.stringify(expected)
console.log(same ? 'as it was seen' : 'CHANGED')
process.exit(same ? 0 : 1)
JS
node see.mjs
