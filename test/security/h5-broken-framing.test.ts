import t from 'tap'
import { startGateway } from '../helpers/gateway.ts'
import { rawHttp } from '../helpers/raw-http.ts'

const config = 'plans: { default: { credits: unlimited, concurrentTasks: 1000, requestsPerMinute: 10000 } }'
const body = '{"input":{"prompt":"x"}}'
const chunked = `${body.length.toString(16)}\r\n${body}\r\n0\r\n\r\n`
const smuggled = 'GET /livez HTTP/1.1\r\nhost: smuggled\r\n\r\n'

t.test('a request whose length can be read in two ways is a 400, and the connection ends', async t => {
  const { origin, mint, sandbox } = await startGateway(t, { config })
  const head = `POST /api/v1/generateTask/nano-banana HTTP/1.1\r\nhost: gateway.test\r\nauthorization: Bearer ${await mint('alice')}\r\ncontent-type: application/json\r\n`
  const length = `content-length: ${body.length}\r\n`
  const broken: Readonly<Record<string, string>> = {
    'length and chunks': `${head}${length}transfer-encoding: chunked\r\n\r\n${chunked}`,
    'chunks and length': `${head}transfer-encoding: chunked\r\n${length}\r\n${chunked}`,
    'two lengths': `${head}${length}content-length: ${body.length + 5}\r\n\r\n${body}`,
    'two equal lengths': `${head}${length}${length}\r\n${body}`,
    'a list of lengths': `${head}content-length: ${body.length}, ${body.length}\r\n\r\n${body}`,
    'a negative length': `${head}content-length: -1\r\n\r\n${body}`,
    'a signed length': `${head}content-length: +${body.length}\r\n\r\n${body}`,
    'a hexadecimal length': `${head}content-length: 0x18\r\n\r\n${body}`,
    'an exponent': `${head}content-length: 1e3\r\n\r\n${body}`,
    'a length beyond all numbers': `${head}content-length: 99999999999999999999999\r\n\r\n${body}`,
    'a length with a space in it': `${head}content-length: 2 4\r\n\r\n${body}`,
    'an empty length': `${head}content-length: \r\n\r\n${body}`,
    'two transfer encodings': `${head}transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n${chunked}`,
    'chunked, then another': `${head}transfer-encoding: chunked, gzip\r\n\r\n${chunked}`,
    'chunked with a vertical tab': `${head}transfer-encoding: \x0bchunked\r\n\r\n${chunked}`,
    'a space before the colon': `${head}content-length : ${body.length}\r\n\r\n${body}`,
    'a bare LF between headers': `${head}x-a: 1\ncontent-length: ${body.length}\r\n\r\n${body}`,
    'a bare LF as the end': `${head}content-length: ${body.length}\n\n${body}`,
    'a bare CR': `${head}x-a: 1\rx-b: 2\r\n${length}\r\n${body}`,
    'an obsolete fold': `${head}x-a: 1\r\n content-length: 1\r\n${length}\r\n${body}`,
    'a folded transfer encoding': `${head}transfer-encoding:\r\n chunked\r\n${length}\r\n${chunked}`,
    'a NUL in a header': `${head}x-a: 1\0\r\n${length}\r\n${body}`,
    'a chunk size that is none': `${head}transfer-encoding: chunked\r\n\r\nxyz\r\n${body}\r\n0\r\n\r\n`,
    'a negative chunk': `${head}transfer-encoding: chunked\r\n\r\n-1\r\n${body}\r\n0\r\n\r\n`,
    'a chunk beyond all numbers': `${head}transfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n${body}\r\n0\r\n\r\n`,
    'a chunk longer than its size': `${head}transfer-encoding: chunked\r\n\r\n2\r\n${body}\r\n0\r\n\r\n`,
    'chunk lines that end in LF': `${head}transfer-encoding: chunked\r\n\r\n${body.length.toString(16)}\n${body}\n0\n\n`,
    'a space in the name': head.replace('host:', 'ho st:') + `${length}\r\n${body}`,
    'another version': head.replace('HTTP/1.1', 'HTTP/3.7') + `${length}\r\n${body}`,
    'another protocol': head.replace('HTTP/1.1', 'SMTP/1.1') + `${length}\r\n${body}`,
    'a request line of three words': head.replace(' HTTP', ' x HTTP') + `${length}\r\n${body}`
  }
  for (const [what, bytes] of Object.entries(broken)) {
    const { status, count, text } = await rawHttp(t, origin, bytes + smuggled)
    t.equal(status, 400, what)
    t.equal(count, 1, `${what}: what follows is not answered`)
    t.match(text, /connection: close/i)
  }
  t.equal(sandbox.calls.length, 0)
})

t.test('headers without end are a 431, and nothing is sent', async t => {
  const { origin, sandbox } = await startGateway(t, { config })
  const line = 'POST /api/v1/generateTask/nano-banana HTTP/1.1\r\nhost: gateway.test\r\n'
  t.equal((await rawHttp(t, origin, `${line}x-a: ${'a'.repeat(100_000)}\r\n\r\n`)).status, 431)
  t.equal((await rawHttp(t, origin, `${line}${'a: b\r\n'.repeat(20_000)}\r\n`)).status, 431)
  t.equal((await rawHttp(t, origin, `GET /${'a'.repeat(100_000)} HTTP/1.1\r\nhost: x\r\n\r\n`)).status, 431)
  t.equal(sandbox.calls.length, 0)
})

t.test('what is refused before its body is read does not leave the body to be read as a request', async t => {
  const { origin, sandbox } = await startGateway(t, { config })
  const inner = `POST /api/v1/generateTask/nano-banana HTTP/1.1\r\nhost: inner\r\nconnection: close\r\ncontent-length: ${body.length}\r\n\r\n${body}`
  const outer = `POST /api/v1/generateTask/nano-banana HTTP/1.1\r\nhost: outer\r\ncontent-type: application/json\r\ncontent-length: ${inner.length}\r\n\r\n${inner}`
  const { text } = await rawHttp(t, origin, outer + 'GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n')
  t.match(text, /^HTTP\/1\.1 401 /)
  t.equal(text.match(/HTTP\/1\.1 401/g)?.length, 1, 'the body was not taken for a second submit')
  t.equal(sandbox.calls.length, 0)
})

t.test('a request without a Host, or with two, is a 400', async t => {
  const { origin, sandbox } = await startGateway(t, { config })
  t.equal((await rawHttp(t, origin, 'GET /gateway/session HTTP/1.1\r\nconnection: close\r\n\r\n')).status, 400)
  const { status } = await rawHttp(
    t,
    origin,
    'GET /gateway/session HTTP/1.1\r\nhost: a\r\nhost: b\r\nconnection: close\r\n\r\n'
  )
  t.ok(status === 400 || status === 401, 'the gateway decides nothing by its Host')
  t.equal(sandbox.calls.length, 0)
})
