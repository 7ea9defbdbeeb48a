#!/usr/bin/env bash
# One encoded answer, read by two doors of one package: undici's `decompress` interceptor and its `fetch` do not agree.
#
# Seen with undici 8.12.4 (the interceptor is marked experimental) on Node 24, a server that gzips what it says:
# - 200: both give the text. The interceptor takes `content-encoding` and `content-length` away, fetch leaves them.
# - 404 and 500: the interceptor leaves the body as gzip bytes, its headers in place: whoever parses the error as JSON
#   fails; fetch decodes it. `skipErrorResponses: false` is what makes them alike.
# - 200 with an empty body and `content-encoding: gzip`: the interceptor rejects with Z_BUF_ERROR, fetch gives ''.
# An error text or an id inside an encoded error answer is lost just where it is needed.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
npm init -y >/dev/null
npm install --no-audit --no-fund --silent undici@8.12.4
cat > see.mjs <<'JS'
import { createServer } from 'node:http'
import { gzipSync } from 'node:zlib'
import { Agent, fetch, interceptors, request } from 'undici'

process.removeAllListeners('warning')
const server = createServer((incoming, response) => {
  const [, status, text] = incoming.url.split('/')
  response.writeHead(Number(status), { 'content-encoding': 'gzip', 'content-type': 'application/json' })
  response.end(text === 'empty' ? '' : gzipSync('{"id":1}'))
}).listen(0, '127.0.0.1')
await new Promise(resolve => server.once('listening', resolve))
const origin = `http://127.0.0.1:${server.address().port}`
const shown = text => text.startsWith('\u001f') ? 'gzip bytes' : text
const bySkipping = options => async path => {
  const { headers, body } = await request(origin + path, { dispatcher: new Agent().compose(interceptors.decompress(options)) })
  return `${shown(await body.text())} (content-encoding: ${headers['content-encoding'] ?? 'none'})`
}
const byFetch = async path => {
  const response = await fetch(origin + path)
  return `${shown(await response.text())} (content-encoding: ${response.headers.get('content-encoding') ?? 'none'})`
}
const seen = {}
for (const path of ['/200/json', '/404/json', '/500/json', '/200/empty']) {
  const doors = { interceptor: bySkipping(), 'with skipErrorResponses: false': bySkipping({ skipErrorResponses: false }), fetch: byFetch }
  for (const [door, read] of Object.entries(doors)) seen[`${path} ${door}`] = await read(path).catch(error => error.code)
}
console.log(seen)

const decoded = '{"id":1} (content-encoding: none)'
const raw = 'gzip bytes (content-encoding: gzip)'
const fetched = '{"id":1} (content-encoding: gzip)'
const row = (path, ...values) => ['interceptor', 'with skipErrorResponses: false', 'fetch'].map((door, index) => [`${path} ${door}`, values[index]])
const expected = Object.fromEntries([
  ...row('/200/json', decoded, decoded, fetched),
  ...row('/404/json', raw, decoded, fetched),
  ...row('/500/json', raw, decoded, fetched),
  ...row('/200/empty', 'Z_BUF_ERROR', 'Z_BUF_ERROR', ' (content-encoding: gzip)')
])
const same = JSON.stringify(seen) === JSON.stringify(expected)
console.log(same ? 'as it was seen' : 'CHANGED')
process.exit(same ? 0 : 1)
JS
node see.mjs
