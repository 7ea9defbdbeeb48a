#!/usr/bin/env bash
# A pair of streams that stands in for a connection is answered over, until somebody asks for a time-out.
#
# Seen with Node 24.21.0, `node:http` and `node:stream`. `server.emit('connection', stream)` takes any Duplex, says the
# documentation of HTTP servers, and an end of `stream.duplexPair()` is one.
# - a request over such a pair is answered as over a socket.
# - `response.setTimeout(ms)`, and `request.setTimeout(ms)`, throw a TypeError there: both ask the connection's own
#   `setTimeout`, which sockets have and streams do not.
# - a server that was given `setTimeout(ms)` answers over it all the same: it does not ask what has none.
# So what stands in for a socket needs a `setTimeout` of its own.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
npm init -y >/dev/null
npm install --no-audit --no-fund --silent node@24.21.0
cat > main.mjs <<'JS'
import { createServer } from 'node:http'
import { duplexPair } from 'node:stream'
const answered = (act, serverMs) => new Promise(resolve => {
  const server = createServer((request, response) => {
    const say = () => {
      try { return String(act(request, response)) } catch (error) { return `${error.name}: ${error.message}` }
    }
    response.end(say())
  })
  if (serverMs !== undefined) server.setTimeout(serverMs)
  const [near, far] = duplexPair()
  server.emit('connection', far)
  let text = ''
  near.setEncoding('latin1').on('data', piece => { text += piece }).on('end', () => resolve(text.split('\r\n\r\n')[1]))
  near.write('GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n')
})
console.log(await answered(() => 'answered'))
console.log(await answered((_, response) => response.setTimeout(1000) === response))
console.log(await answered(request => request.setTimeout(1000) === request))
console.log(await answered(() => 'answered with a time-out of the server', 1000))
JS
seen=$(node_modules/.bin/node main.mjs)
echo "$seen"
[ "$seen" = "answered
TypeError: this[kSocket].setTimeout is not a function
TypeError: this.socket.setTimeout is not a function
answered with a time-out of the server" ] || { echo CHANGED; exit 1; }
echo 'as it was seen'
