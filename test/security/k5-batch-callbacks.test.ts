import t from 'tap'
import { batchesConfig, items } from '../helpers/batches.ts'
import { startGateway } from '../helpers/gateway.ts'

const path = '/api/v1/generateTask/nano-banana/batches'
const item = '"client_item_id":"a","idempotency_key":"k","input":{"prompt":"x"}'
const list = `"items":[{${item}}]`

const callbacks = [
  `{${list},"webhook_url":"https://evil.test/"}`,
  `{${list},"webhook\\u005furl":"https://evil.test/"}`,
  `{${list},"callback_url":"https://evil.test/"}`,
  `{${list},"webhook":"https://evil.test/"}`,
  `{"items":[{${item},"webhook_url":"https://evil.test/"}]}`,
  `{"items":[{${item},"callback_url":"https://evil.test/"}]}`
]

const unknown = [
  `{${list},"Webhook_URL":"https://evil.test/"}`,
  `{${list},"ｗebhook_url":"https://evil.test/"}`,
  `{${list},"webhookUrl":"https://evil.test/"}`,
  `{${list},"webhook-url":"https://evil.test/"}`,
  `{${list},"request_type":"callback"}`,
  `{${list},"notify_url":"https://evil.test/"}`,
  `{${list},"Items":[{${item},"webhook_url":"https://evil.test/"}]}`,
  `{${list},"items":[{${item},"webhook_url":"https://evil.test/"}]}`,
  `{"items":[{${item},"request_type":"callback"}]}`,
  `{"items":[{${item},"Callback_Url":"https://evil.test/"}]}`,
  `{"items":[{${item},"input":{"prompt":"y"}}]}`,
  `{"items":{"0":{${item}}}}`
]

t.test(
  'a batch that asks for a callback is a 403, one with a field nobody knows a 400, and neither is sent',
  async t => {
    for (const fields of ['', 'submit: { fields: [provider, priority] }']) {
      const { call, mint, sandbox } = await startGateway(t, { config: `${batchesConfig}\n${fields}` })
      const token = await mint('alice')
      for (const body of callbacks) {
        t.match(await call(path, { token, body }), { status: 403, error: 'GW_CALLBACK_DENIED' }, body)
      }
      for (const body of unknown) {
        t.match(await call(path, { token, body }), { status: 400, error: 'GW_BAD_REQUEST' }, body)
      }
      t.equal(sandbox.calls.length, 0)
    }
  }
)

t.test('a callback can not be asked for in the query or by a header', async t => {
  const { call, mint, sandbox } = await startGateway(t, { config: batchesConfig })
  const token = await mint('alice')
  for (const query of ['webhook_url=https://evil.test', 'webhook=https://evil.test']) {
    t.equal((await call(`${path}?${query}`, { token, body: { items: items('x') } })).error, 'GW_BAD_REQUEST', query)
  }
  const headers = {
    'x-webhook-url': 'https://evil.test',
    'x-callback-url': 'https://evil.test',
    'idempotency-key': 'https://evil.test'
  }
  t.equal((await call(path, { token, body: { items: items('x') }, headers })).status, 200)
  t.notMatch(sandbox.submits[0]!.rawHeaders.join() + sandbox.submits[0]!.body.toString(), 'evil')
})
