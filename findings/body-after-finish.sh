#!/usr/bin/env bash
# Once its response has finished, Node lets go of a request's body: it is still read to its end, and nobody is shown it.
#
# Seen with Node 24.21.0, `node:http`. A POST is answered before its body has come; the body follows and is whole.
# - a `data` listener that is put on the request while the response finishes (in a listener prepended to `finish`), with
#   `resume()`, gets every byte.
# - the same one turn later (`setImmediate`) gets none, though the stream flows, is neither destroyed nor ended by then, and
#   its `end` comes as usual after the last byte, with `complete` true.
# So what is to count, bound or log such a rest has to listen before Node does: later it counts 0 and sees a clean end.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
npm init -y >/dev/null
npm install --no-audit --no-fund --silent node@24.21.0
cat > main.mjs <<'JS'
import { once } from 'node:events'
import { createServer } from 'node:http'
import { connect } from 'node:net'
const length = 100_000
const seenWhen = async listen => {
  const done = Promise.withResolvers()
  const server = createServer((request, response) => {
    const begin = () => {
      const before = `flowing ${request.readableFlowing}, destroyed ${request.destroyed}`
      let bytes = 0
      request.on('data', chunk => { bytes += chunk.length })
      request.on('end', () => done.resolve(`${bytes} bytes, end with complete ${request.complete} (${before})`))
      request.resume()
    }
    response.prependOnceListener('finish', () => listen(begin))
    response.end('early')
  }).listen(0)
  await once(server, 'listening')
  const socket = connect(server.address().port)
  socket.write(`POST / HTTP/1.1\r\nhost: a\r\ncontent-length: ${length}\r\n\r\n`)
  await once(socket, 'data')
  socket.write(Buffer.alloc(length))
  const seen = await done.promise
  socket.destroy()
  server.close()
  return seen
}
console.log(`while it finishes: ${await seenWhen(begin => begin())}`)
console.log(`a turn later: ${await seenWhen(begin => setImmediate(begin))}`)
JS
seen=$(node_modules/.bin/node main.mjs)
echo "$seen"
[ "$seen" = "while it finishes: 100000 bytes, end with complete true (flowing null, destroyed false)
a turn later: 0 bytes, end with complete true (flowing true, destroyed false)" ] || { echo CHANGED; exit 1; }
echo 'as it was seen'
