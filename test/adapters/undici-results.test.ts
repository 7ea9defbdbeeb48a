import { createServer } from 'node:https'
import { getDefaultAutoSelectFamily, setDefaultAutoSelectFamily } from 'node:net'
import t, { type Test } from 'tap'
import { undiciResults, type UndiciResultsOptions } from '../../src/adapters/undici/results.ts'
import { isWithin, type Resolve } from '../../src/domain/egress.ts'
import type { ResultRef, ResultSource } from '../../src/domain/results.ts'
import { isGatewayError } from '../../src/errors.ts'
import { certificate } from '../helpers/certificate.ts'
import { fileServer, whole } from '../helpers/file-server.ts'
import { httpPort } from '../helpers/http-server.ts'

function source (t: Test, more: Partial<UndiciResultsOptions> = {}): ResultSource {
  const it = undiciResults({
    hosts: [],
    baseUrl: 'https://api.apixo.ai/prefix',
    maxBytes: 1000,
    connectMs: 2000,
    headersMs: 5000,
    bodyIdleMs: 5000,
    keepAliveMs: 1,
    userAgent: 'apixo-gateway/test',
    ...more
  })
  t.teardown(() => it.close())
  return it
}

/** The bytes, or the code of what came instead and the reason in the log. */
async function outcome (it: ResultSource, url: string): Promise<string> {
  try {
    const answer = await it.fetch({ url } as ResultRef, {}, new AbortController().signal)
    return answer === null ? 'null' : Buffer.concat(await answer.body!.toArray()).toString()
  } catch (error) {
    if (!isGatewayError(error)) throw error
    return `${error.code}: ${(error.cause as Error).message}`
  }
}

/** A resolver that gives these addresses, one after another; the last one for ever. */
function resolver (...addresses: readonly string[]): Resolve & { readonly asked: string[] } {
  const asked: string[] = []
  const resolve: Resolve = (hostname, _options, done) => {
    const list = addresses[Math.min(asked.length, addresses.length - 1)]!
    asked.push(hostname)
    setImmediate(
      done,
      null,
      list
        .split(' ')
        .filter(text => text !== '')
        .map(address => ({ address, family: address.includes(':') ? 6 : 4 }))
    )
  }
  return Object.assign(resolve, { asked })
}

t.test('a result comes over https, from a host that its certificate names', async t => {
  const { cert, key } = certificate(t, 'file.apixo.test')
  const port = await httpPort(t, createServer({ cert, key }, whole('bytes')))
  const more = { hosts: ['*.apixo.test'], resolve: resolver('127.0.0.1'), isAllowed: () => true }
  t.equal(await outcome(source(t, { ...more, ca: cert }), `https://file.apixo.test:${port}/a`), 'bytes')
  t.match(
    await outcome(source(t, { ...more, ca: cert }), `https://other.apixo.test:${port}/a`),
    /^GW_UPSTREAM_UNREACHABLE: .*altnames/
  )
  t.match(
    await outcome(source(t, more), `https://file.apixo.test:${port}/a`),
    /^GW_UPSTREAM_UNREACHABLE: .*self-signed/
  )
})

t.test('a name that leads into this machine or its network is not called, on any of its addresses', async t => {
  const files = await fileServer(t, whole('secret'))
  const { port } = new URL(files.origin)
  for (const addresses of [
    '127.0.0.1',
    '::1',
    '10.0.0.1',
    '169.254.169.254',
    '::ffff:127.0.0.1',
    '64:ff9b::7f00:1',
    '0.0.0.0',
    '1.1.1.1 127.0.0.1',
    ''
  ]) {
    const resolve = resolver(addresses)
    const reason = await outcome(source(t, { hosts: ['*.apixo.ai'], resolve }), `https://file.apixo.ai:${port}/a`)
    t.equal(reason, 'GW_UPSTREAM_UNREACHABLE: file.apixo.ai leads to an address that is not to be called', addresses)
    t.same(resolve.asked, ['file.apixo.ai'])
  }
  t.equal(files.sockets.size, 0)
  t.equal(files.requests.length, 0)
})

t.test(
  'a name is judged at each connection: one that leads elsewhere the second time is not followed there',
  async t => {
    const files = await fileServer(t, whole('bytes'))
    const { port } = new URL(files.origin)
    const resolve = resolver('127.0.0.1', '127.0.0.2', '127.0.0.1')
    const it = source(t, {
      hosts: ['localhost'],
      resolve,
      isAllowed: (reach, address) => isWithin(reach, address) && address !== '127.0.0.2'
    })
    t.equal(await outcome(it, `http://localhost:${port}/a`), 'bytes')
    await new Promise(resolve => setTimeout(resolve, 50)) // until that connection is let go
    t.match(await outcome(it, `http://localhost:${port}/a`), /not to be called/)
    t.equal(await outcome(it, `http://localhost:${port}/a`), 'bytes')
    t.equal(resolve.asked.length, 3)
  }
)

t.test('a loopback host on the list leads to the loopback alone', async t => {
  const it = source(t, { hosts: ['localhost'], resolve: resolver('10.0.0.1') })
  t.match(await outcome(it, 'http://localhost:1/a'), /not to be called/)
})

t.test('the operator\'s own upstream may be anywhere', async t => {
  const files = await fileServer(t, whole('bytes'))
  t.equal(await outcome(source(t, { baseUrl: `${files.origin}/apixo` }), `${files.origin}/a`), 'bytes')
  const byName = files.origin.replace('127.0.0.1', 'sandbox')
  t.equal(await outcome(source(t, { baseUrl: byName, resolve: resolver('127.0.0.1') }), `${byName}/a`), 'bytes')
  t.match(
    await outcome(source(t, { baseUrl: byName, resolve: resolver('127.0.0.1') }), `${files.origin}/a`),
    /results\.hosts does not let .* "127\.0\.0\.1"/
  )
})

t.test('it makes no difference whether the system asks for one address of a name or for all', async t => {
  const files = await fileServer(t, whole('bytes'))
  const url = files.origin.replace('127.0.0.1', 'localhost')
  const before = getDefaultAutoSelectFamily()
  t.teardown(() => setDefaultAutoSelectFamily(before))
  for (const all of [true, false]) {
    setDefaultAutoSelectFamily(all)
    t.equal(await outcome(source(t, { hosts: ['localhost'], resolve: resolver('127.0.0.1') }), url), 'bytes')
    t.match(
      await outcome(source(t, { hosts: ['localhost'], resolve: resolver('127.0.0.1 10.0.0.1') }), url),
      /not to be called/
    )
  }
})

t.test('a name that does not resolve is a host that can not be reached', async t => {
  const resolve: Resolve = (_hostname, _options, done) =>
    done(Object.assign(new Error('getaddrinfo ENOTFOUND'), { code: 'ENOTFOUND' }), [])
  t.match(
    await outcome(source(t, { hosts: ['*.apixo.ai'], resolve }), 'https://file.apixo.ai/a'),
    'GW_UPSTREAM_UNREACHABLE: getaddrinfo ENOTFOUND'
  )
})

t.test('a connection that does not come to stand in time is a host that can not be reached', async t => {
  const alive = setInterval(() => {}, 1000) // a wait of undici keeps no process alive
  t.teardown(() => clearInterval(alive))
  const it = source(t, { hosts: ['*.apixo.test'], connectMs: 50, resolve: () => { /* it never answers */ } })
  t.match(await outcome(it, 'https://file.apixo.test/a.png'), /^GW_UPSTREAM_UNREACHABLE: Connect Timeout Error/)
})

t.test('what is refused says which host, and never the whole URL', async t => {
  const it = source(t)
  t.equal(
    await outcome(it, 'https://evil.test/a?signature=x'),
    'GW_UPSTREAM_INVALID: a result can not be passed on: results.hosts does not let a result be fetched from "evil.test"'
  )
  t.equal(
    await outcome(it, 'signature=x'),
    'GW_UPSTREAM_INVALID: a result can not be passed on: results.hosts does not let a result be fetched from "no URL"'
  )
})
