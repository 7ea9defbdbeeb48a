import t from 'tap'
import { clientOf, otherKey, read, sandboxFor } from './client.ts'

type Tools = Awaited<ReturnType<typeof sandboxFor>>
type Client = Pick<Tools, 'get'>

const item = (n: number, prompt = `cube ${n}`) => ({
  client_item_id: `c${n}`,
  idempotency_key: `k${n}`,
  input: { prompt }
})
const path = '/api/v1/generateTask/nano-banana/batches'

function submit ({ get }: Client, body: unknown, key: string | null = 'batch-1', at = path) {
  return get(at, {
    method: 'POST',
    body: JSON.stringify(body),
    headers: key === null ? {} : { 'idempotency-key': key }
  })
}

async function made (client: Client, items: readonly object[], key?: string): Promise<any> {
  const response = await submit(client, { items }, key)
  return { status: response.status, ...await read(response) }
}

t.test('a batch makes a task for each item, which statusTask knows as well, and charges for each', async (t) => {
  const tools = await sandboxFor(t)
  const { data } = await made(tools, [item(0), item(1)])
  t.match(data, {
    batchId: /^batch_/,
    shape: /guess/,
    items: [
      { client_item_id: 'c0', state: 'pending' },
      { client_item_id: 'c1', state: 'pending' }
    ]
  })
  t.equal(await tools.balance(), 99.94)
  t.match(await tools.data(data.items[1].taskId), { state: 'pending' })
  const status = async (): Promise<any> => (await read(await tools.get(`${path}/${data.batchId}`))).data
  t.match(await status(), {
    batchId: data.batchId,
    shape: /guess/,
    state: 'processing',
    items: [{ client_item_id: 'c0', taskId: data.items[0].taskId, state: 'pending' }, {}]
  })
  tools.clock.now += 6000
  t.match(await status(), {
    state: 'completed',
    items: [{ state: 'success', resultJson: /resultUrls/ }, { state: 'success' }]
  })
})

t.test('a batch belongs to the account of its key, and to its model', async (t) => {
  const tools = await sandboxFor(t)
  const { data } = await made(tools, [item(0)])
  t.equal((await clientOf(tools.sandbox, otherKey).get(`${path}/${data.batchId}`)).status, 404)
  t.equal((await clientOf(tools.sandbox, 'nobody').get(`${path}/${data.batchId}`)).status, 401)
  t.equal((await tools.get(`${path.replace('nano-banana', 'suno')}/${data.batchId}`)).status, 404)
  t.equal((await tools.get(`${path}/batch_1`)).status, 404)
})

t.test('the key of a batch gives the same batch again, the key of an item the same task', async (t) => {
  const tools = await sandboxFor(t)
  const first = await made(tools, [item(0), item(1)])
  t.strictSame(await made(tools, [item(0), item(1)]), first)
  const second = await made(tools, [item(1), item(2)], 'batch-2')
  t.not(second.data.batchId, first.data.batchId)
  t.equal(second.data.items[0].taskId, first.data.items[1].taskId)
  t.equal(await tools.balance(), 99.91, 'three tasks were paid for')
  const other = await made(clientOf(tools.sandbox, otherKey), [item(0)])
  t.not(other.data.items[0].taskId, first.data.items[0].taskId, 'another account has keys of its own')
})

t.test('a batch that can not be read, or has no key, makes nothing', async (t) => {
  const tools = await sandboxFor(t)
  const wrong: ReadonlyArray<readonly [unknown, RegExp]> = [
    [[], /items/],
    [{}, /items/],
    [{ items: [] }, /1 to 50/],
    [{ items: Array.from({ length: 51 }, (_, n) => item(n)) }, /1 to 50/],
    [{ items: [7] }, /items\.0 is not/],
    [{ items: [{ ...item(0), client_item_id: '' }] }, /items\.0\.client_item_id/],
    [{ items: [{ ...item(0), idempotency_key: 7 }] }, /items\.0\.idempotency_key/],
    [{ items: [{ ...item(0), input: {} }] }, /input\.prompt/],
    [{ items: [item(0), item(0)] }, /unique/],
    [{ items: [item(0, 'sandbox:no-such-word')] }, /no-such-word/]
  ]
  for (const [body, error] of wrong) {
    const response = await submit(tools, body)
    t.equal(response.status, 400)
    t.match(await read(response), { data: { error } })
  }
  t.match(await read(await submit(tools, { items: [item(0)] }, null)), {
    code: 400,
    data: { error: /Idempotency-Key/ }
  })
  t.equal((await submit(tools, { items: [item(0)] }, 'a', path.replace('nano-banana', 'no-such-model'))).status, 404)
  tools.sandbox.balanceUsd = 0.05
  t.equal((await submit(tools, { items: [item(0), item(1)] })).status, 402)
  t.equal(tools.sandbox.tasks.size, 0)
})

t.test('a word in one prompt holds for the whole answer, or for its item alone', async (t) => {
  const tools = await sandboxFor(t)
  const of = async (word: string, key: string) =>
    await made(
      tools,
      [
        { ...item(0, word), idempotency_key: key },
        { ...item(1), idempotency_key: `${key}b` }
      ],
      key
    )
  t.match(await of('sandbox:http-429', 'a'), { status: 429 })
  t.equal(tools.sandbox.tasks.size, 0)
  t.match((await of('sandbox:item-refused', 'b')).data.items, [{ client_item_id: 'c0', error: {} }, { taskId: /./ }])
  t.equal(tools.sandbox.tasks.size, 1)
  t.match((await of('sandbox:item-missing', 'c')).data.items, [{ client_item_id: 'c1' }])
  t.strictSame(Object.keys((await of('sandbox:item-nameless', 'd')).data.items[0]), ['taskId', 'state'])
  t.equal((await of('sandbox:no-batch-id', 'e')).data.batchId, undefined)
  t.equal((await of('sandbox:duplicate-task', 'f')).data.items[0].taskId, [...tools.sandbox.tasks.keys()].at(-2))
  t.equal(tools.sandbox.tasks.size, 8)
  const { data } = await made(tools, [item(2, 'sandbox:status-http-500'), item(3, 'sandbox:item-refused')], 'g')
  t.equal((await tools.get(`${path}/${data.batchId}`)).status, 500)
  const partly = (await made(tools, [item(4, 'sandbox:failed'), item(5, 'sandbox:item-refused')], 'h')).data
  tools.clock.now += 6000
  t.match((await read(await tools.get(`${path}/${partly.batchId}`))).data, {
    state: 'completed',
    items: [{ state: 'failed' }, { client_item_id: 'c5', error: {} }]
  })
})

t.test('the oldest batches and keys are forgotten first', async (t) => {
  const tools = await sandboxFor(t, { recordTasks: 1 })
  const first = await made(tools, [item(0)])
  const second = await made(tools, [item(1)], 'batch-2')
  t.equal((await tools.get(`${path}/${first.data.batchId}`)).status, 404)
  t.equal((await tools.get(`${path}/${second.data.batchId}`)).status, 200)
  t.not((await made(tools, [item(0)])).data.items[0].taskId, first.data.items[0].taskId)
})
