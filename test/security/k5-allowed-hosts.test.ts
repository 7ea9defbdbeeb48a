import t from 'tap'
import { startGateway } from '../helpers/gateway.ts'

const path = '/api/v1/generateTask/nano-banana'
const config =
  'plans: { default: { concurrentTasks: 100 } }\ncallbacks: { allowedHosts: [app.example, "*.hooks.example", "127.0.0.1", "[::1]", localhost, "93.184.215.14"] }'
const input = '"input":{"prompt":"x"}'
const bodyTo = (url: unknown) => `{"request_type":"callback","callback_url":${JSON.stringify(url)},${input}}`

const denied = [
  'https://evil.test/',
  'https://app.example.evil.test/',
  'https://evil-app.example/',
  'https://hooks.example/',
  'https://app.example./',
  'https://127.0.0.1/',
  'https://[::1]/',
  'https://0x7f.1/',
  'https://2130706433/',
  'https://[::ffff:127.0.0.1]/',
  'https://169.254.169.254/latest/meta-data',
  'https://xn--pp-8ia.example/'
]
const malformed = [
  'http://app.example/',
  'ftp://app.example/',
  'https:app.example',
  'https:///app.example/',
  '//app.example/',
  'app.example',
  '',
  ' https://app.example/',
  'https://app.example/\n',
  'https://user@app.example/',
  'https://:secret@app.example/',
  'https://app.example/#part',
  'https://app.example\\@evil.test/',
  'https://äpp.example/',
  `https://app.example/${'a'.repeat(2048)}`,
  'javascript:alert(1)',
  'https://',
  null,
  1,
  ['https://app.example/'],
  { url: 'https://app.example/' }
]

t.test(
  'a callback to a host that is not on the list is a 403 that names the host, and what is no https: URL a 400',
  async t => {
    const { call, mint, sandbox } = await startGateway(t, { config })
    const token = await mint('alice')
    for (const url of denied) {
      const reply = await call(path, { token, body: bodyTo(url) })
      t.match(reply, { status: 403, error: 'GW_CALLBACK_DENIED' }, url)
      t.match(reply.json.message, /callback_url with the host "/)
    }
    for (const url of malformed) {
      t.match(
        await call(path, { token, body: bodyTo(url) }),
        { status: 400, error: 'GW_BAD_REQUEST' },
        JSON.stringify(url).slice(0, 60)
      )
    }
    t.equal(sandbox.calls.length, 0)
  }
)

t.test('a list of hosts opens callback_url and no other way to be called back', async t => {
  const { call, mint, sandbox } = await startGateway(t, { config })
  const token = await mint('alice')
  const url = '"https://app.example/"'
  for (const name of ['webhook_url', 'webhook']) {
    t.equal((await call(path, { token, body: `{"${name}":${url},${input}}` })).error, 'GW_CALLBACK_DENIED', name)
  }
  for (const body of [
    `{"Callback_Url":${url},${input}}`,
    `{"callback_url":${url},"CALLBACK_URL":${url},${input}}`,
    `{"request_type":"callback",${input}}`,
    `{"request_type":"Callback","callback_url":${url},${input}}`,
    `{"request_type":["callback"],"callback_url":${url},${input}}`
  ]) { t.equal((await call(path, { token, body })).error, 'GW_BAD_REQUEST', body) }
  for (const name of ['callback_url', 'webhook_url']) {
    t.equal((await call(`${path}?${name}=https://app.example/`, { token, body: `{${input}}` })).error, 'GW_BAD_REQUEST')
  }
  t.equal(sandbox.calls.length, 0)
})

t.test('what a caller names is kept here: the upstream gets a submit like any other', async t => {
  const { call, mint, sandbox } = await startGateway(t, { config })
  const token = await mint('alice')
  const bodies = [
    bodyTo('https://app.example/hooks?a=1'),
    bodyTo('https://a.b.hooks.example:8443/'),
    bodyTo('https://93.184.215.14/'),
    `{"request_type":"async","callback_url":"https://app.example/",${input}}`,
    `{"callback_url":"https://app.example/",${input}}`,
    `{"callback\\u005furl":"https://app.example/",${input}}`
  ]
  for (const body of bodies) t.equal((await call(path, { token, body })).status, 200, body)
  t.equal(sandbox.submits.length, bodies.length)
  for (const { body } of sandbox.submits) {
    t.same(JSON.parse(body.toString()), { request_type: 'async', input: { prompt: 'x' } })
  }
})
