#!/usr/bin/env bash
# One `fetch` of a POST can be two requests on the wire, without a lost connection and without a retry option: when the
# answer is 421 (Misdirected Request).
#
# Seen with undici 8.12.4 and the fetch of Node 24.21.0 (undici 7.29.1), over HTTP/1.1:
# - 421: GET and POST are sent again at once, body and all, also with `credentials: 'omit'`; the caller sees one 421. Only a
#   POST whose body is a stream is sent once. The Fetch standard allows it; few servers reckon with it.
# - 407: rejects as "fetch failed", whatever the body says: an API that answers 407 can not be read.
# - 400, 401, 403, 429, 503: one request. undici's EventSource, however, asks twice after a 401, and then ends.
# So a server that charges for a POST never answers it with 421 after it has acted.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
npm init -y >/dev/null
npm install --no-audit --no-fund --silent undici@8.12.4
cat > see.mjs <<'JS'
import { createServer } from 'node:http'
import { EventSource, fetch as undiciFetch } from 'undici'

process.removeAllListeners('warning')
let requests = 0
let answer = 0
const server = createServer((incoming, response) => {
  requests++
  incoming.resume().once('end', () => {
    const isFirstOfStream = incoming.headers.accept === 'text/event-stream' && requests === 1
    response.writeHead(isFirstOfStream ? 200 : answer, { 'content-type': isFirstOfStream ? 'text/event-stream' : 'text/plain' })
    response.end(isFirstOfStream ? 'retry: 50\ndata: one\n\n' : 'no')
  })
}).listen(0, '127.0.0.1')
await new Promise(resolve => server.once('listening', resolve))
const url = `http://127.0.0.1:${server.address().port}/`
const inits = {
  GET: () => ({}),
  'POST text': () => ({ method: 'POST', body: '{}' }),
  'POST text, no credentials': () => ({ method: 'POST', body: '{}', credentials: 'omit' }),
  'POST stream': () => ({ method: 'POST', duplex: 'half', body: new Blob(['{}']).stream() })
}
const counted = async (fetch, init) => {
  requests = 0
  const told = await fetch(url, init).then(async response => { await response.text(); return response.status }, error => error.message)
  return `${requests} sent, told ${told}`
}
const seen = {}
for (answer of [400, 401, 403, 407, 421, 429, 503]) {
  for (const [name, init] of Object.entries(inits)) {
    const both = [await counted(undiciFetch, init()), await counted(fetch, init())]
    seen[`${answer} ${name}`] = both[0] === both[1] ? both[0] : both
  }
}
answer = 401
requests = 0
const stream = new EventSource(url)
await new Promise(resolve => setTimeout(resolve, 1000))
seen['EventSource of undici, 401 on its return'] = `${requests - 1} sent, state ${stream.readyState}`
console.log(seen)

const expected = {}
for (const status of [400, 401, 403, 407, 421, 429, 503]) {
  for (const name of Object.keys(inits)) {
    const times = status === 421 && name !== 'POST stream' ? 2 : 1
    expected[`${status} ${name}`] = `${times} sent, told ${status === 407 ? 'fetch failed' : status}`
  }
}
expected['EventSource of undici, 401 on its return'] = '2 sent, state 2'
const same = JSON.stringify(seen) === JSON.stringify(expected)
console.log(same ? 'as it was seen' : 'CHANGED')
process.exit(same ? 0 : 1)
JS
node see.mjs
