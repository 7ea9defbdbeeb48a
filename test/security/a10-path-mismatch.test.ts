import t from 'tap'
import { startGateway } from '../helpers/gateway.ts'
import { rawHttp, rawRequest } from '../helpers/raw-http.ts'

const config = 'plans: { default: {} }\nlimits: { addressFailuresPerMinute: 10000 }'
const body = JSON.stringify({ input: { prompt: 'x' } })

/** Spellings that a router, a proxy and a check might each read in their own way. */
function spellings (path: string): string[] {
  const [, first = '', ...rest] = path.split('/')
  const tail = rest.join('/')
  return [
    path,
    `${path}/`,
    `${path}//`,
    `/${path}`,
    `//${first}//${tail}`,
    `/./${first}/${tail}`,
    `/x/../${first}/${tail}`,
    `/${first}/./${tail}`,
    `/${first}/%2e/${tail}`,
    `/${first.toUpperCase()}/${tail}`,
    path.toUpperCase(),
    path.replace(/[a-z]/, letter => `%${letter.charCodeAt(0).toString(16)}`),
    path.replace('/', '/%2f'),
    `/%2f${first}/${tail}`,
    `${path};a=b`,
    `/;${path}`,
    `${path}%20`,
    `${path}%00`,
    `${path}.json`,
    `${path}%3f`,
    `${path}#x`,
    `${path}?`,
    `${path}??x`,
    `\\${first}\\${tail}`,
    `http://gateway.test${path}`,
    `http://x@gateway.test${path}`,
    `${path}%2f`,
    `${path}/.`,
    `${path}/..`,
    `${path}%09`
  ]
}

t.test('no spelling of a guarded path is answered without a session', async t => {
  const { origin, sandbox } = await startGateway(t, { config })
  const lines = [
    ['POST', '/api/v1/generateTask/nano-banana'],
    ['GET', '/api/v1/statusTask/nano-banana'],
    ['GET', '/gateway/session'],
    ['DELETE', '/gateway/session'],
    ['POST', '/gateway/sessions']
  ] as const
  for (const [method, path] of lines) {
    for (const spelling of spellings(path)) {
      const { status } = await rawHttp(
        t,
        origin,
        rawRequest(`${method} ${spelling}`, [], method === 'POST' ? body : '')
      )
      t.ok(status === 400 || status === 401 || status === 404 || status === 405, `${method} ${spelling}: ${status}`)
    }
  }
  t.equal(sandbox.calls.length, 0)
})

t.test('with a session, a spelling is either that very route or none', async t => {
  const { origin, mint, sandbox } = await startGateway(t, { config })
  const headers = [`authorization: Bearer ${await mint('alice')}`]
  for (const spelling of spellings('/api/v1/generateTask/nano-banana')) {
    const { status } = await rawHttp(t, origin, rawRequest(`POST ${spelling}`, headers, body))
    t.ok([200, 400, 404, 405].includes(status!), `${spelling}: ${status}`)
  }
  // A dot belongs to a model's name: with `.json` at its end it is another model, unknown upstream.
  t.ok(sandbox.submits.every(({ url }) => /^\/api\/v1\/generateTask\/nano-banana(\.json)?$/.test(url)))
  t.equal(sandbox.submits.length, sandbox.calls.length)
})

t.test('a path that ends like an open one is not open', async t => {
  const { origin, sandbox } = await startGateway(t, { config })
  for (const path of [
    '/api/v1/statusTask/livez?taskId=x',
    '/api/v1/statusTask/nano-banana?x=/livez',
    '/gateway/session?/readyz',
    '/gateway/session#/livez',
    '/api/v1/statusTask/%2flivez',
    '/livez/../gateway/session',
    '/livez%2f..%2fgateway/session'
  ]) {
    const { status } = await rawHttp(t, origin, rawRequest(`GET ${path}`))
    t.ok(status === 400 || status === 401 || status === 404, `${path}: ${status}`)
  }
  t.equal(sandbox.calls.length, 0)
})
