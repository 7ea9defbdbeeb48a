import t from 'tap'
import { endedTaskIds, maxBatchItems, readBatchAnswer, readBatchBody } from '../../src/features/batches/body.ts'

const item = (n: number, more: object = {}) => ({
  client_item_id: `c${n}`,
  idempotency_key: `k${n}`,
  input: { prompt: `cube ${n}` },
  ...more
})
const readBody = (body: unknown) =>
  readBatchBody(Buffer.from(typeof body === 'string' ? body : JSON.stringify(body)), {
    keyOf: key => `hash of ${key}`,
    hold: () => []
  })
/** Four items, the last of them with something about it. */
const last = (more: object) => ({ items: [item(0), item(1), item(2), item(3, more)] })

t.test("what goes out are the items with keys that nobody else can meet, and each value's own bytes", async t => {
  const body =
    ' { "items" : [ {"client_item_id":"\\u0061, [b]","idempotency_key":"k","input": { "seed": 12345678901234567890, "a": [1.0, {"b":"]}"}] } } ,\n' +
    '{"input":{},"idempotency_key":"l","client_item_id":"\\"}"}]}'
  const { items, bytes } = readBody(body)
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
  t.equal(readBody({ items: Array.from({ length: maxBatchItems }, (_, n) => item(n)) }).items.length, 50)
  for (const items of [[], Array.from({ length: maxBatchItems + 1 }, (_, n) => item(n)), null, {}, 'x', undefined]) {
    t.throws(() => readBody({ items }), { code: 'GW_BAD_REQUEST', message: /items must be a list of 1 to 50/ })
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
    t.throws(() => readBody(last(more)), { code: 'GW_BAD_REQUEST', message }, JSON.stringify(more))
  }
  for (const odd of [null, 7, 'x', []]) {
    t.throws(() => readBody({ items: [item(0), odd] }), { message: /items\.1 must be an object/ })
  }
})

t.test('who asks for a callback is refused, in the batch and in an item', async t => {
  for (const name of ['webhook_url', 'callback_url', 'webhook']) {
    t.throws(() => readBody({ items: [item(0)], [name]: 'https://evil.example' }), {
      code: 'GW_CALLBACK_DENIED',
      message: new RegExp(`^${name} `)
    })
    t.throws(() => readBody(last({ [name]: false })), {
      code: 'GW_CALLBACK_DENIED',
      message: new RegExp(`^items\\.3\\.${name} `)
    })
  }
  for (const open of [null, '']) {
    t.notMatch(
      readBody({ items: [{ ...item(0), webhook: open }], callback_url: open }).bytes.toString(),
      /webhook|callback/,
      'what is left open is not asked for'
    )
  }
  t.throws(() => readBody({ items: [item(0)], Webhook_URL: 'https://evil.example' }), {
    code: 'GW_BAD_REQUEST',
    message: /write webhook_url/
  })
})

t.test('no other field stands beside the items', async t => {
  for (const name of ['input', 'request_type', 'provider', 'source', 'model', 'x']) {
    t.throws(() => readBody({ items: [item(0)], [name]: 'x' }), {
      code: 'GW_BAD_REQUEST',
      message: new RegExp(`"${name}" is not known`)
    })
  }
  t.throws(() => readBody('{"items":[{"input":{},"input":{}}]}'), { code: 'GW_BAD_REQUEST', message: /twice/ })
})

t.test('earlier tasks are found in every item, and one that many start from counts once', async t => {
  const id = 'dff8afd34c4e47719b85ad6651daa3f0'
  const { references, mentions } = readBody({
    items: [
      item(0, { input: { task_id: 'a', origin: id } }),
      item(1, { input: { deep: [{ batchId: 'b' }], task_ids: ['a'] } }),
      item(2, { input: { origin: id } })
    ]
  })
  t.same(references, ['a', 'b'])
  t.same(mentions, [id])
})

const answer = (body: unknown, status = 200) => ({
  status,
  contentType: 'application/json',
  retryAfter: undefined,
  leaksKey: false,
  body: Buffer.from(typeof body === 'string' ? body : JSON.stringify(body))
})
const envelope = (data: unknown, code = 200) => ({ code, message: 'success', data })
const readAnswer = (body: unknown, status?: number) => readBatchAnswer(answer(body, status), ['a', 'b'])
const one = { client_item_id: 'a', taskId: 'task_1' }
const two = { client_item_id: 'b', taskId: 'task_2' }

t.test("a task id beside the name of an item is that item's, in any order", async t => {
  t.match(readAnswer(envelope({ batchId: 'batch_1', items: [two, one] })), {
    kind: 'accepted',
    batchId: 'batch_1',
    taskIds: ['task_1', 'task_2']
  })
})

t.test('either spelling is read, in data or beside the code', async t => {
  const items = [{ clientItemId: 'a', task_id: 'task_1' }, two]
  t.match(readAnswer({ code: 200, batch_id: 'batch_1', items }, 201), {
    kind: 'accepted',
    batchId: 'batch_1',
    taskIds: ['task_1', 'task_2']
  })
})

t.test('an item without a task id is unknown, whatever is said of it', async t => {
  for (const other of [
    [],
    [{ client_item_id: 'b' }],
    [{ client_item_id: 'b', error: { code: 400 } }],
    [{ client_item_id: 'b', state: 'failed', taskId: null }],
    [null, 7, 'x']
  ]) {
    t.match(
      readAnswer(envelope({ batchId: 'batch_1', items: [one, ...other] })),
      { kind: 'accepted', taskIds: ['task_1', null] },
      JSON.stringify(other)
    )
  }
})

t.test('an id that is none, or would lead elsewhere in a path, is not taken for a batch\'s', async t => {
  for (const batchId of [undefined, null, 7, '', '.', '..', 'x'.repeat(257)]) {
    t.match(readAnswer(envelope({ batchId, items: [one, two] })), { kind: 'accepted', batchId: null }, String(batchId))
  }
})

t.test('where a task id can not be matched, or comes twice, nothing is believed', async t => {
  const odd = [
    [one, { taskId: 'task_2' }], [one, { client_item_id: 'c', taskId: 'task_2' }], [one, { ...one, taskId: 'task_2' }],
    [one, { ...two, taskId: 'task_1' }], [one, two, { client_item_id: 'A', taskId: 'task_3' }]
  ]
  for (const items of odd) {
    t.match(readAnswer(envelope({ batchId: 'batch_1', items })), { kind: 'unknown' }, JSON.stringify(items))
  }
  t.match(readAnswer(envelope({ items: [one, two] }), 502), { kind: 'unknown', reason: /502/ })
  t.match(readAnswer(envelope({ items: [one, two] }), 400), { kind: 'unknown' }, 'not even a refusal')
})

t.test('without any task id a batch is read as a submit is', async t => {
  for (const body of [
    '',
    '<html>',
    '[]',
    '{}',
    envelope({ batchId: 'batch_1', items: [] }),
    envelope({ items: {} }),
    envelope([one])
  ]) {
    t.match(readAnswer(body), { kind: 'unknown' }, JSON.stringify(body))
  }
  t.match(readAnswer(envelope({ taskId: 'task_1' })), { kind: 'unknown' }, 'a single task is no batch')
  t.match(readAnswer({ code: 400, message: 'no' }, 400), { kind: 'refused', status: 400 })
  t.match(readAnswer({ code: 429, message: 'no' }), { kind: 'refused', status: 429 }, 'inside a 200')
  t.match(readAnswer('<html>', 404), { kind: 'invalid' })
  t.match(readAnswer('<html>', 502), { kind: 'unknown' })
})

t.test('the status of a batch hints at the tasks that have ended', async t => {
  const items = [
    { taskId: '1', state: 'success' },
    { taskId: '2', state: 'processing' },
    { task_id: '3', state: 'failed' },
    { taskId: '4' },
    { taskId: '5', state: 7 },
    { state: 'success' },
    { taskId: '6', state: 'success' }
  ]
  t.same(endedTaskIds(answer(envelope({ items })), 50), ['1', '3', '6'])
  t.same(endedTaskIds(answer(envelope({ items })), 2), ['1', '3'])
  t.same(endedTaskIds(answer(envelope({ items }, 500)), 50), [])
  t.same(endedTaskIds(answer(envelope({ items }), 503), 50), [])
})
