import t from 'tap'
import type { Reply } from '../helpers/gateway.ts'
import { startGateway, taskMs } from '../helpers/gateway.ts'

const config =
  'plans: { default: { credits: unlimited, concurrentTasks: 100, requestsPerMinute: 1000 } }\nlimits: { addressFailuresPerMinute: 10000 }'

/** All that a caller sees, but for what differs between any two answers. */
function seen ({ status, headers, json }: Reply) {
  const { date, 'x-request-id': _id, ...rest } = Object.fromEntries(headers)
  const { requestId, ...error } = json.error
  return { status, headers: rest, body: { ...json, error } }
}

t.test(
  "a stranger's task looks exactly like a task that does not exist, while it runs and when it has ended",
  async t => {
    const { submit, status, mint, sandbox, time } = await startGateway(t, { config })
    const [alice, mallory] = [await mint('alice'), await mint('mallory')]
    const { taskId } = (await submit(alice)).json.data
    const unknown = seen(await status(mallory, '0123456789abcdef0123456789abcdef'))
    t.match(unknown, { status: 404, body: { code: 404, data: null, error: { code: 'GW_TASK_NOT_FOUND' } } })

    const calls = sandbox.calls.length
    t.same(seen(await status(mallory, taskId)), unknown, 'running')
    t.equal(sandbox.calls.length, calls, 'the upstream is not asked')
    time.advance(taskMs)
    t.equal((await status(alice, taskId)).json.data.state, 'success')
    const after = sandbox.calls.length
    t.same(seen(await status(mallory, taskId)), unknown, 'ended, its answer in the ledger')
    t.equal(sandbox.calls.length, after)
  })

t.test('a task is its owner\'s under its own model only', async t => {
  const { submit, status, mint, sandbox } = await startGateway(t, { config })
  const alice = await mint('alice')
  const { taskId } = (await submit(alice)).json.data
  const unknown = seen(await status(alice, 'no-such-task', 'suno'))
  for (const model of ['suno', 'Nano-Banana', 'nano-banana-2']) {
    t.same(seen(await status(alice, taskId, model)), unknown, model)
  }
  t.equal(sandbox.calls.length, 1)
})

t.test('names that nearly are the owner\'s, and ids that nearly are the task\'s, open nothing', async t => {
  const { submit, status, mint, sandbox } = await startGateway(t, { config })
  const alice = await mint('alice')
  const { taskId } = (await submit(alice)).json.data
  for (const subject of [
    'Alice',
    'alice ',
    ' alice',
    'app:alice',
    'alic',
    'alicé',
    'ａlice',
    'alice%',
    '%',
    '_____',
    '*'
  ]) {
    t.equal((await status(await mint(subject), taskId)).error, 'GW_TASK_NOT_FOUND', JSON.stringify(subject))
  }
  for (const id of [
    taskId.toUpperCase(),
    ` ${taskId}`,
    `${taskId} `,
    `${taskId}\0`,
    taskId.slice(0, -1),
    '%',
    '*',
    `${taskId}' OR '1'='1`,
    'x'.repeat(5000)
  ]) {
    t.equal((await status(alice, id)).error, 'GW_TASK_NOT_FOUND', JSON.stringify(id.slice(0, 50)))
  }
  t.equal(sandbox.calls.length, 1)
})

t.test(
  'a task named inside input belongs to the caller, at any depth and in any spelling, or the submit is a 404',
  async t => {
    const { submit, call, mint, sandbox } = await startGateway(t, { config })
    const [alice, mallory] = [await mint('alice'), await mint('mallory')]
    const { taskId } = (await submit(alice, 'a cube', 'grok-video')).json.data
    const send = (token: string, more: object) =>
      call('/api/v1/generateTask/grok-video', { token, body: { input: { prompt: 'again', ...more } } })

    const references = [
      { task_id: taskId },
      { taskId },
      { TASK_ID: taskId },
      { 'task-id': taskId },
      { taſk_id: taskId },
      { ｔask_id: taskId },
      { originTaskId: taskId },
      { task_ids: [taskId] },
      { taskIds: ['', taskId] },
      { a: [{ b: { c: { task_id: taskId } } }] },
      { batch_id: taskId },
      { task_id: [[taskId]] },
      { task_id: { 0: taskId } },
      { task_id: { value: [taskId] } },
      { task_id: ` ${taskId}` },
      { task_id: 7 },
      { task_id: true }
    ]
    for (const more of references) {
      t.equal((await send(mallory, more)).error, 'GW_TASK_NOT_FOUND', JSON.stringify(more))
    }
    for (const more of [{ origin: taskId }, { parent: { uuid: taskId } }, { sources: ['x', taskId] }]) {
      t.equal((await send(mallory, more)).error, 'GW_TASK_NOT_FOUND', `no name is needed: ${JSON.stringify(more)}`)
    }
    t.equal(
      (await send(mallory, { words: Array.from({ length: 201 }, (_, index) => `a-word-of-some-length-${index}`) }))
        .error,
      'GW_BAD_REQUEST'
    )
    t.equal(sandbox.submits.length, 1, 'none of them was sent')
    t.equal((await send(alice, { a: [{ task_id: taskId }] })).status, 200, 'the owner may')
    t.equal((await send(alice, { origin: taskId, style: 'not-a-task-but-as-long' })).status, 200, 'under any name')
    t.equal(
      (await send(mallory, { task_id: Array.from({ length: 51 }, (_, index) => taskId + index) })).error,
      'GW_BAD_REQUEST',
      'nor are ids tried in bulk'
    )
    t.equal(sandbox.submits.length, 3)
  }
)

t.test('a task id that the upstream hands out twice stays with its first owner', async t => {
  const { submit, status, mint, time } = await startGateway(t, { config })
  const [alice, mallory] = [await mint('alice'), await mint('mallory')]
  const { taskId } = (await submit(alice)).json.data
  const again = await submit(mallory, 'sandbox:duplicate-task')
  t.equal(again.error, 'GW_OUTCOME_UNKNOWN')
  t.notMatch(again.text, taskId, 'and it is not told')
  time.advance(taskMs)
  t.equal((await status(mallory, taskId)).error, 'GW_TASK_NOT_FOUND')
  t.equal((await status(alice, taskId)).json.data.state, 'success')
})

t.test('there is no way to cancel, list, or delete a task', async t => {
  const { submit, call, mint, sandbox } = await startGateway(t, { config })
  const alice = await mint('alice')
  const { taskId } = (await submit(alice)).json.data
  const before = sandbox.calls.length
  for (const path of [
    'statusTask/nano-banana',
    `statusTask/nano-banana/${taskId}`,
    `cancelTask/nano-banana?taskId=${taskId}`,
    'tasks'
  ]) {
    for (const method of ['GET', 'DELETE', 'POST']) {
      const { status } = await call(`/api/v1/${path}`, { method, token: alice })
      t.ok(status === 404 || status === 405 || status === 400, `${method} ${path}`)
    }
  }
  t.equal(sandbox.calls.length, before)
})
