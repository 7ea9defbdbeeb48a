import t from 'tap'
import { maxBatchItems, readBatchBody } from '../../../src/domain/batch.ts'

const item = (n: number, more: object = {}) => ({
  client_item_id: `c${n}`,
  idempotency_key: `k${n}`,
  input: { prompt: `cube ${n}` },
  ...more
})
const read = (body: unknown) =>
  readBatchBody(Buffer.from(typeof body === 'string' ? body : JSON.stringify(body)), key => `hash of ${key}`)
/** Four items, the last of them with something about it. */
const last = (more: object) => ({ items: [item(0), item(1), item(2), item(3, more)] })

t.test("what goes out are the items with keys that nobody else can meet, and each value's own bytes", async t => {
  const body =
    ' { "items" : [ {"client_item_id":"\\u0061, [b]","idempotency_key":"k","input": { "seed": 12345678901234567890, "a": [1.0, {"b":"]}"}] } } ,\n' +
    '{"input":{},"idempotency_key":"l","client_item_id":"\\"}"}]}'
  const { items, bytes } = read(body)
  t.equal(
    bytes.toString(),
    '{"items":[' +
      '{"client_item_id":"\\u0061, [b]","idempotency_key":"hash of k","input":{ "seed": 12345678901234567890, "a": [1.0, {"b":"]}"}] }},' +
      '{"client_item_id":"\\"}","idempotency_key":"hash of l","input":{}}]}'
  )
  t.match(items, [
    { clientItemId: 'a, [b]', input: { a: [1, { b: ']}' }] } },
    { clientItemId: '"}', input: {} }
  ])
})

t.test('a batch has one to fifty items', async t => {
  t.equal(read({ items: Array.from({ length: maxBatchItems }, (_, n) => item(n)) }).items.length, 50)
  for (const items of [[], Array.from({ length: maxBatchItems + 1 }, (_, n) => item(n)), null, {}, 'x', undefined]) {
    t.throws(() => read({ items }), { code: 'GW_BAD_REQUEST', message: /items must be a list of 1 to 50/ })
  }
})

t.test('what is wrong with an item is named with its place', async t => {
  const wrong: ReadonlyArray<readonly [object, RegExp]> = [
    [{ input: undefined }, /items\.3\.input must be an object/],
    [{ input: [] }, /items\.3\.input must be an object/],
    [{ client_item_id: 7 }, /items\.3\.client_item_id must be a text of 1 to 128/],
    [{ client_item_id: '' }, /items\.3\.client_item_id/],
    [{ client_item_id: 'x'.repeat(129) }, /items\.3\.client_item_id/],
    [{ client_item_id: 'a\nb' }, /items\.3\.client_item_id/],
    [{ client_item_id: '\ud800' }, /items\.3\.client_item_id/],
    [{ idempotency_key: undefined }, /items\.3\.idempotency_key must be a text of 1 to 255/],
    [{ idempotency_key: 'x'.repeat(256) }, /items\.3\.idempotency_key/],
    [{ seed: 1 }, /"items\.3\.seed" is not known/],
    [{ request_type: 'async' }, /"items\.3\.request_type" is not known/],
    [{ Input: {}, input: undefined }, /write items\.3\.input instead of "items\.3\.Input"/],
    [{ client_item_id: 'c1' }, /items\.3\.client_item_id is the same as items\.1\.client_item_id/],
    [{ idempotency_key: 'k0' }, /items\.3\.idempotency_key is the same as items\.0\.idempotency_key/]
  ]
  for (const [more, message] of wrong) {
    t.throws(() => read(last(more)), { code: 'GW_BAD_REQUEST', message }, JSON.stringify(more))
  }
  for (const odd of [null, 7, 'x', []]) {
    t.throws(() => read({ items: [item(0), odd] }), { message: /items\.1 must be an object/ })
  }
})

t.test('who asks for a callback is refused, in the batch and in an item', async t => {
  for (const name of ['webhook_url', 'callback_url', 'webhook']) {
    t.throws(() => read({ items: [item(0)], [name]: 'https://evil.example' }), {
      code: 'GW_CALLBACK_DENIED',
      message: new RegExp(`^${name} `)
    })
    t.throws(() => read(last({ [name]: false })), {
      code: 'GW_CALLBACK_DENIED',
      message: new RegExp(`^items\\.3\\.${name} `)
    })
  }
  for (const open of [null, '']) {
    t.notMatch(
      read({ items: [{ ...item(0), webhook: open }], callback_url: open }).bytes.toString(),
      /webhook|callback/,
      'what is left open is not asked for'
    )
  }
  t.throws(() => read({ items: [item(0)], Webhook_URL: 'https://evil.example' }), {
    code: 'GW_BAD_REQUEST',
    message: /write webhook_url/
  })
})

t.test('no other field stands beside the items', async t => {
  for (const name of ['input', 'request_type', 'provider', 'source', 'model', 'x']) {
    t.throws(() => read({ items: [item(0)], [name]: 'x' }), {
      code: 'GW_BAD_REQUEST',
      message: new RegExp(`"${name}" is not known`)
    })
  }
  t.throws(() => read('{"items":[{"input":{},"input":{}}]}'), { code: 'GW_BAD_REQUEST', message: /twice/ })
})

t.test('earlier tasks are found in every item, and one that many start from counts once', async t => {
  const id = 'dff8afd34c4e47719b85ad6651daa3f0'
  const { references, mentions } = read({
    items: [
      item(0, { input: { task_id: 'a', origin: id } }),
      item(1, { input: { deep: [{ batchId: 'b' }], task_ids: ['a'] } }),
      item(2, { input: { origin: id } })
    ]
  })
  t.same(references, ['a', 'b'])
  t.same(mentions, [id])
})
