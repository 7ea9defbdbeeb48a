import t from 'tap'
import { anyItems, batchesConfig as config, batchStatus, items, submitBatch } from '../helpers/batches.ts'
import { type Reply, startGateway, taskMs } from '../helpers/gateway.ts'

/** All that a caller sees, but for what differs between any two answers. */
function seen ({ status, headers, json }: Reply) {
  const { date, 'x-request-id': _id, ...rest } = Object.fromEntries(headers)
  const { requestId, ...error } = json.error
  return { status, headers: rest, body: { ...json, error } }
}

t.test(
  "a stranger's batch, and its tasks, look exactly like what does not exist, while they run and when they have ended",
  async t => {
    const gateway = await startGateway(t, { config })
    const [alice, mallory] = [await gateway.mint('alice'), await gateway.mint('mallory')]
    const { batchId, items: made } = (await submitBatch(gateway, alice, anyItems(2))).json.data
    const unknown = seen(await batchStatus(gateway, mallory, 'batch_0123456789abcdef'))
    t.match(unknown, { status: 404, body: { code: 404, data: null, error: { code: 'GW_TASK_NOT_FOUND' } } })
    for (const wait of [0, taskMs]) {
      gateway.time.advance(wait)
      const calls = gateway.sandbox.calls.length
      t.same(seen(await batchStatus(gateway, mallory, batchId)), unknown)
      t.same(seen(await gateway.status(mallory, made[0].taskId)), unknown)
      t.equal(gateway.sandbox.calls.length, calls, 'the upstream is not asked')
      t.equal((await batchStatus(gateway, alice, batchId)).status, 200)
    }
  }
)

t.test("a batch is its owner's under its own model only, is no task, and a task is no batch", async t => {
  const gateway = await startGateway(t, { config })
  const alice = await gateway.mint('alice')
  const {
    batchId,
    items: [{ taskId }]
  } = (await submitBatch(gateway, alice, anyItems(1))).json.data
  const unknown = seen(await batchStatus(gateway, alice, 'no-such-batch'))
  for (const model of ['suno', 'Nano-Banana']) {
    t.same(seen(await batchStatus(gateway, alice, batchId, model)), unknown, model)
  }
  t.same(seen(await gateway.status(alice, batchId)), unknown, 'statusTask does not know batches')
  t.same(seen(await batchStatus(gateway, alice, taskId)), unknown)
  for (const id of [
    batchId.toUpperCase(),
    ` ${batchId}`,
    `${batchId}\0`,
    '%',
    '*',
    '..',
    '../batches',
    batchId.slice(0, -1)
  ]) {
    t.ok((await batchStatus(gateway, alice, id)).status >= 400, JSON.stringify(id))
  }
  t.equal(gateway.sandbox.calls.length, 1)
})

t.test('a batch or a task named inside an item belongs to the caller, or nothing of the batch is sent', async t => {
  const gateway = await startGateway(t, { config })
  const [alice, mallory] = [await gateway.mint('alice'), await gateway.mint('mallory')]
  const {
    batchId,
    items: [{ taskId }]
  } = (await submitBatch(gateway, alice, anyItems(1))).json.data
  const send = (token: string, more: object) => {
    const [first, second] = anyItems(2)
    return submitBatch(gateway, token, [first!, { ...second, input: { prompt: 'again', ...more } }])
  }
  const references = [
    { task_id: taskId },
    { batch_id: batchId },
    { BatchId: batchId },
    { deep: [{ 'batch-ids': [batchId] }] },
    { taſk_id: taskId },
    { origin: taskId },
    { origin: batchId },
    { task_id: 7 }
  ]
  for (const more of references) t.equal((await send(mallory, more)).error, 'GW_TASK_NOT_FOUND', JSON.stringify(more))
  t.equal(
    (await send(mallory, { task_id: Array.from({ length: 51 }, (_, n) => `task-${n}`) })).error,
    'GW_BAD_REQUEST',
    'nor are ids tried in bulk'
  )
  t.equal(gateway.sandbox.submits.length, 1)
  for (const more of references.slice(0, -1)) t.equal((await send(alice, more)).status, 200, JSON.stringify(more))
  t.equal(
    (
      await gateway.call('/api/v1/generateTask/suno', {
        token: alice,
        body: { input: { prompt: 'x', batch_id: batchId } }
      })
    ).status,
    200,
    'a submit may as well'
  )
})

t.test('the same names and keys of two subjects lead to tasks of their own', async t => {
  const gateway = await startGateway(t, { config })
  const list = items('a cube')
  const made = []
  for (const subject of ['alice', 'mallory', 'alice ', 'app:alice']) {
    made.push((await submitBatch(gateway, await gateway.mint(subject), list, { key: 'order-42' })).json.data)
  }
  t.equal(new Set(made.map(({ batchId }) => batchId)).size, 4)
  t.equal(new Set(made.map(({ items: [{ taskId }] }) => taskId)).size, 4)
})
