#!/usr/bin/env bash
# Two EventSource clients that servers and pages use beside the browser's own lose a mark that has no data, and differ
# on which answers end a stream.
#
# Seen with eventsource 5.1.5, undici 8.12.4, eventsource-client 1.2.0, launchdarkly-eventsource 2.2.0, extended-eventsource
# 2.1.0 on Node 24, each with its defaults:
# - a block of `id: 7` alone, then a cut: eventsource, undici and extended-eventsource come back with `last-event-id: 7`;
#   eventsource-client and launchdarkly-eventsource with none: whoever uses such blocks as a resume mark replays all.
# - `id: 7` with data, then 429: all end but eventsource-client, which takes every answer but 204, 401 and 429 too,
#   for a cut and asks again at its usual pace, without end. On 500 and 503 launchdarkly-eventsource joins it.
# - a block cut in the middle (`id: 8`, data, no empty line): extended-eventsource alone asks on from 8, and so misses it.
# A mark belongs on a block that has data, as its last line; a stream that is over says so with 204, and nothing else does.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
npm init -y >/dev/null
npm install --no-audit --no-fund --silent eventsource@5.1.5 undici@8.12.4 eventsource-client@1.2.0 \
  launchdarkly-eventsource@2.2.0 extended-eventsource@2.1.0
cat > see.mjs <<'JS'
import { createServer } from 'node:http'
import { createEventSource } from 'eventsource-client'
import { EventSource as Plain } from 'eventsource'
import { EventSource as Extended } from 'extended-eventsource'
import { EventSource as LaunchDarkly } from 'launchdarkly-eventsource'
import { EventSource as Undici } from 'undici'

process.removeAllListeners('warning')
console.error = console.warn = () => {}
const wait = ms => new Promise(resolve => setTimeout(resolve, ms))
const quiet = source => { source.onerror = () => {}; return source }
const readers = {
  eventsource: url => quiet(new Plain(url)),
  undici: url => quiet(new Undici(url)),
  'eventsource-client': url => createEventSource(url),
  'launchdarkly-eventsource': url => quiet(new LaunchDarkly(url, { initialRetryDelayMillis: 50 })),
  'extended-eventsource': url => quiet(new Extended(url))
}
/** What each reader sent as its mark when it came back, and whether it came back for ever. */
async function returns (first, then) {
  const row = {}
  for (const [name, open] of Object.entries(readers)) {
    const marks = []
    const server = createServer((incoming, response) => {
      marks.push(incoming.headers['last-event-id'] ?? 'none')
      const isFirst = marks.length === 1
      response.writeHead(isFirst ? 200 : then, { 'content-type': 'text/event-stream' })
      if (isFirst) response.end(`retry: 50\n\n${first}`)
      else if (then === 200) response.write(':\n\n') // held open
      else response.end()
    }).listen(0, '127.0.0.1')
    await new Promise(resolve => server.once('listening', resolve))
    const source = open(`http://127.0.0.1:${server.address().port}/`)
    await wait(1500)
    source.close()
    server.closeAllConnections()
    server.close()
    row[name] = marks.length > 3 ? 'without end' : marks.slice(1).join(', ')
  }
  return row
}
const event = 'id: 7\ndata: a\n\n'
const seen = {
  'id alone': await returns('id: 7\n\n', 200),
  'half a block': await returns(`${event}id: 8\ndata: b\n`, 200),
  204: await returns(event, 204),
  401: await returns(event, 401),
  429: await returns(event, 429),
  503: await returns(event, 503)
}
console.log(seen)

const row = (eventsource, undici, client, launchDarkly, extended) => ({
  eventsource, undici, 'eventsource-client': client, 'launchdarkly-eventsource': launchDarkly, 'extended-eventsource': extended
})
const expected = {
  204: row('7', '7', '7', '7', '7'),
  401: row('7', '7, 7', 'without end', '7', '7'),
  429: row('7', '7', 'without end', '7', '7'),
  503: row('7', '7', 'without end', 'without end', '7'),
  'id alone': row('7', '7', 'none', 'none', '7'),
  'half a block': row('7', '7', '7', '7', '8')
}
const same = JSON.stringify(seen) === JSON.stringify(expected)
console.log(same ? 'as it was seen' : 'CHANGED')
process.exit(same ? 0 : 1)
JS
node see.mjs
