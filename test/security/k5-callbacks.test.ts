import t from 'tap'
import { startGateway } from '../helpers/gateway.ts'

const path = '/api/v1/generateTask/nano-banana'
const input = '"input":{"prompt":"x"}'

const callbacks = [
  `{"request_type":"callback","callback_url":"https://evil.test/",${input}}`,
  `{"request_type":"callback",${input}}`,
  `{"request_type":"async","callback_url":"https://evil.test/",${input}}`,
  `{"webhook_url":"https://evil.test/",${input}}`,
  `{"webhook":"https://evil.test/",${input}}`,
  `{${input},"callback\\u005furl":"https://evil.test/"}`
]

const unknown = [
  `{"Callback_Url":"https://evil.test/",${input}}`,
  `{"CALLBACK_URL":"https://evil.test/",${input}}`,
  `{"ｃallback_url":"https://evil.test/",${input}}`,
  `{"request_type":"Callback",${input}}`,
  `{"request_type":["callback"],${input}}`,
  `{"request_type":"async","Request_Type":"callback",${input}}`,
  `{"callbackUrl":"https://evil.test/",${input}}`,
  `{"callback-url":"https://evil.test/",${input}}`,
  `{"callback_url ":"https://evil.test/",${input}}`,
  `{"callback_url\\u0000":"https://evil.test/",${input}}`,
  `{"notify_url":"https://evil.test/",${input}}`,
  `{"provider":"official",${input}}`,
  `{"provider":["auto"],${input}}`,
  `{"model":"sora-2-pro",${input}}`,
  `{"items":[{${input}}]}`,
  `{"x":1,${input}}`,
  `{"taskId":"x",${input}}`,
  '{"request_type":"async"}',
  '{"input":"x"}',
  '{"input":[]}',
  '{"input":null}',
  '{}'
]

t.test(
  'a submit that asks for a callback is a 403, one with a field nobody knows a 400, and neither is sent',
  async t => {
    const { call, mint, sandbox } = await startGateway(t)
    const token = await mint('alice')
    for (const body of callbacks) {
      t.match(await call(path, { token, body }), { status: 403, error: 'GW_CALLBACK_DENIED' }, body)
    }
    for (const body of unknown) {
      t.match(await call(path, { token, body }), { status: 400, error: 'GW_BAD_REQUEST' }, body)
    }
    t.equal(sandbox.calls.length, 0)
  }
)

t.test('a callback can not be asked for in the query or by a header', async t => {
  const { call, mint, sandbox } = await startGateway(t)
  const token = await mint('alice')
  for (const query of ['callback_url=https://evil.test', 'webhook=https://evil.test', 'request_type=callback']) {
    t.equal((await call(`${path}?${query}`, { token, body: `{${input}}` })).error, 'GW_BAD_REQUEST', query)
  }
  const headers = {
    'x-callback-url': 'https://evil.test',
    'x-webhook-url': 'https://evil.test',
    prefer: 'respond-async'
  }
  t.equal((await call(path, { token, body: `{${input}}`, headers })).status, 200)
  t.notMatch(sandbox.submits[0]!.rawHeaders.join(), 'evil')
  t.equal([...sandbox.tasks.values()][0]!.callbackUrl, null)
})

t.test('an operator\'s own list of fields opens no way to a callback', async t => {
  const { call, mint, sandbox } = await startGateway(t, {
    config: 'plans: { default: {} }\nsubmit: { fields: [provider, priority] }'
  })
  const token = await mint('alice')
  for (const body of callbacks) t.equal((await call(path, { token, body })).error, 'GW_CALLBACK_DENIED', body)
  t.equal((await call(path, { token, body: `{"Priority":1,${input}}` })).error, 'GW_BAD_REQUEST')
  t.equal((await call(path, { token, body: `{"priority":1,"provider":"official","source":"x",${input}}` })).status, 200)
  t.same(JSON.parse(sandbox.submits[0]!.body.toString()), {
    request_type: 'async',
    priority: 1,
    provider: 'official',
    input: { prompt: 'x' }
  })
})

t.test('a config that would let callbacks pass refuses to start', async t => {
  for (const field of ['callback_url', 'webhook_url', 'request_type', 'Callback_URL', 'webhook']) {
    await t.test(field, async t => {
      await t.rejects(startGateway(t, { config: `plans: { default: {} }\nsubmit: { fields: [${field}] }` }), {
        code: 'GW_SETTINGS'
      })
    })
  }
})

t.test('a callback that is left open is none: the submit is made, and the upstream hears nothing of it', async t => {
  const { call, mint, sandbox } = await startGateway(t, {
    config: 'plans: { default: { credits: unlimited, concurrentTasks: 100 } }\nbatches: { enabled: true }'
  })
  const token = await mint('alice')
  const open = [
    '"callback_url":null',
    '"callback_url":""',
    '"webhook_url":null',
    '"webhook_url":""',
    '"webhook":null',
    '"webhook":""',
    '"request_type":null',
    '"provider":null',
    '"source":null'
  ]
  for (const field of open) {
    t.equal((await call(path, { token, body: `{${field},${input}}` })).status, 200, field)
    t.equal(sandbox.submits.at(-1)!.body.toString(), `{"request_type":"async",${input}}`, field)
  }
  const item = (index: number, field: string) =>
    `{"client_item_id":"c${index}","idempotency_key":"k${index}",${field},${input}}`
  const body = `{"items":[${open
    .slice(0, 6)
    .map((field, index) => item(index, field))
    .join()}],"webhook":""}`
  t.equal((await call(`${path}/batches`, { token, body })).status, 200)
  t.notMatch(sandbox.submits.at(-1)!.body.toString(), /callback|webhook/)
  t.equal(
    (await call(path, { token, body: `{"request_type":"callback","callback_url":"",${input}}` })).error,
    'GW_CALLBACK_DENIED',
    'and a callback without an address is asked for'
  )
})

t.test('what is priced or capped is not left open by a null', async t => {
  const { call, mint, sandbox } = await startGateway(t, {
    config:
      'plans: { default: {} }\nprices: { "*": { credits: 1, per: input.count, default: 1 } }\ncaps: { "*": { input.size: { oneOf: [1] }, input.length: { max: 3 } } }'
  })
  const token = await mint('alice')
  for (const field of ['count', 'size', 'length']) {
    t.match(
      await call(path, { token, body: `{"input":{"prompt":"x","${field}":null}}` }),
      { status: 400, error: 'GW_BAD_REQUEST', json: { message: new RegExp(`input.${field}`) } },
      field
    )
  }
  t.equal(sandbox.calls.length, 0)
})

t.test('the official provider is for models whose row says so', async t => {
  const models = [
    { id: 'sora-2', category: 'video', provider: 'official' },
    { id: 'nano-banana', category: 'image' }
  ] as const
  const { call, mint, sandbox } = await startGateway(t, { models })
  const token = await mint('alice')
  const body = `{"provider":"official",${input}}`
  for (const model of ['sora-2', 'Sora-2']) {
    t.not((await call(`/api/v1/generateTask/${model}`, { token, body })).error, 'GW_BAD_REQUEST', model)
    t.equal(sandbox.submits.at(-1)!.body.toString(), `{"request_type":"async","provider":"official",${input}}`)
  }
  t.equal((await call(path, { token, body })).error, 'GW_BAD_REQUEST')
  t.equal((await call('/api/v1/generateTask/suno', { token, body })).error, 'GW_BAD_REQUEST', 'nor one that has no row')
  t.match(
    (await call('/gateway/models', { token })).json.models[0],
    { id: 'sora-2', provider: 'official' },
    'and callers are told'
  )
  t.equal(sandbox.submits.length, 2)
})
