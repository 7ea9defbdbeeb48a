import t from 'tap'
import { endedTaskIds, readBatchAnswer } from '../../../src/domain/batch.ts'

const answer = (body: unknown, status = 200) => ({
  status,
  contentType: 'application/json',
  retryAfter: undefined,
  leaksKey: false,
  body: Buffer.from(typeof body === 'string' ? body : JSON.stringify(body))
})
const envelope = (data: unknown, code = 200) => ({ code, message: 'success', data })
const read = (body: unknown, status?: number) => readBatchAnswer(answer(body, status), ['a', 'b'])
const one = { client_item_id: 'a', taskId: 'task_1' }
const two = { client_item_id: 'b', taskId: 'task_2' }

t.test("a task id beside the name of an item is that item's, in any order", async t => {
  t.match(read(envelope({ batchId: 'batch_1', items: [two, one] })), {
    kind: 'accepted',
    batchId: 'batch_1',
    taskIds: ['task_1', 'task_2']
  })
})

t.test('either spelling is read, in data or beside the code', async t => {
  const items = [{ clientItemId: 'a', task_id: 'task_1' }, two]
  t.match(read({ code: 200, batch_id: 'batch_1', items }, 201), {
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
      read(envelope({ batchId: 'batch_1', items: [one, ...other] })),
      { kind: 'accepted', taskIds: ['task_1', null] },
      JSON.stringify(other)
    )
  }
})

t.test('an id that is none, or would lead elsewhere in a path, is not taken for a batch\'s', async t => {
  for (const batchId of [undefined, null, 7, '', '.', '..', 'x'.repeat(257)]) {
    t.match(read(envelope({ batchId, items: [one, two] })), { kind: 'accepted', batchId: null }, String(batchId))
  }
})

t.test('where a task id can not be matched, or comes twice, nothing is believed', async t => {
  const odd = [
    [one, { taskId: 'task_2' }], [one, { client_item_id: 'c', taskId: 'task_2' }], [one, { ...one, taskId: 'task_2' }],
    [one, { ...two, taskId: 'task_1' }], [one, two, { client_item_id: 'A', taskId: 'task_3' }]
  ]
  for (const items of odd) {
    t.match(read(envelope({ batchId: 'batch_1', items })), { kind: 'unknown' }, JSON.stringify(items))
  }
  t.match(read(envelope({ items: [one, two] }), 502), { kind: 'unknown', reason: /502/ })
  t.match(read(envelope({ items: [one, two] }), 400), { kind: 'unknown' }, 'not even a refusal')
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
    t.match(read(body), { kind: 'unknown' }, JSON.stringify(body))
  }
  t.match(read(envelope({ taskId: 'task_1' })), { kind: 'unknown' }, 'a single task is no batch')
  t.match(read({ code: 400, message: 'no' }, 400), { kind: 'refused', status: 400 })
  t.match(read({ code: 429, message: 'no' }), { kind: 'refused', status: 429 }, 'inside a 200')
  t.match(read('<html>', 404), { kind: 'invalid' })
  t.match(read('<html>', 502), { kind: 'unknown' })
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
