import t, { type Test } from 'tap'
import { gatewayError } from '../../src/errors.ts'
import { naming } from '../../src/features/batches/batches.ts'
import { anyItems, batchesConfig as config, batchStatus, items, submitBatch } from '../helpers/batches.ts'
import { startGateway, taskMs } from '../helpers/gateway.ts'
import { holdStore, missedClaim, overStore, storeFile } from '../helpers/store-file.ts'
import { until } from '../helpers/until.ts'

const plan = (limits: string) =>
  `plans: { default: { requestsPerMinute: 1000, ${limits} } }\nbatches: { enabled: true }`
const headerOf = ({ rawHeaders }: { rawHeaders: readonly string[] }, name: string) =>
  rawHeaders[rawHeaders.findIndex(other => other.toLowerCase() === name) + 1]
const taskIdsOf = (reply: { json: any }): string[] => reply.json.data.items.map((item: any) => item.taskId)

async function open (t: Test, options: Parameters<typeof startGateway>[1] = {}) {
  const gateway = await startGateway(t, { config, ...options })
  return { ...gateway, it: gateway, alice: await gateway.mint('alice') }
}

t.test('without the setting there is no such route', async t => {
  const { it, alice, sandbox } = await open(t, { config: 'plans: { default: {} }' })
  t.match(await submitBatch(it, alice, anyItems(2)), { status: 404, error: 'GW_NOT_FOUND' })
  t.match(await batchStatus(it, alice, 'batch_1'), { status: 404, error: 'GW_NOT_FOUND' })
  t.equal(sandbox.calls.length, 0)
})

t.test('a batch is one call upstream, and each of its tasks the caller\'s like any other', async t => {
  const { it, alice, sandbox, status, time, lines } = await open(t)
  const made = await submitBatch(it, alice, items('a red cube', 'a blue cube'))
  t.match(made, {
    status: 200,
    json: { data: { batchId: /./, items: [{ client_item_id: 'c0' }, { client_item_id: 'c1' }] } }
  })
  t.equal(sandbox.calls.length, 1)
  t.match(sandbox.calls[0], { method: 'POST', url: '/api/v1/generateTask/nano-banana/batches' })
  const [first, second] = taskIdsOf(made)
  time.advance(taskMs)
  t.equal((await status(alice, first!)).json.data.state, 'success')
  const all = await batchStatus(it, alice, made.json.data.batchId)
  t.match(all, {
    status: 200,
    json: { data: { state: 'completed', items: [{ taskId: first }, { taskId: second, state: 'success' }] } }
  })
  t.match(
    lines().filter(line => /batch/i.test(line.operation)),
    [
      { operation: 'generateBatch', stage: 'reply', granted: true, taskId: made.json.data.batchId },
      { operation: 'statusBatch', granted: true }
    ]
  )
})

t.test('the input of each item leaves digit for digit, and the answer comes back byte for byte', async t => {
  const { alice, call, sandbox } = await open(t)
  const input = '{ "prompt":"x", "seed":12345678901234567890, "scale": 1.50 }'
  const answer =
    '{"code":200, "data":{"batchId":"b1","n":12345678901234567890,"items":[{"client_item_id":"a","taskId":"task-1","x":1.0}]}}'
  sandbox.next((_request, response) => {
    response.writeHead(200, { 'content-type': 'application/json' }).end(answer)
  })
  const { text } = await call('/api/v1/generateTask/nano-banana/batches', {
    token: alice, body: `{"items":[{"client_item_id":"a","idempotency_key":"k","input":${input}}]}`
  })
  t.equal(text, answer)
  t.match(sandbox.submits[0]!.body.toString(), `"input":${input}}]}`)
})

t.test('a key of an item is another one upstream for every subject, and the same each time', async t => {
  const { it, alice, mint, sandbox } = await open(t)
  const list = anyItems(1)
  const mallory = await mint('mallory')
  for (const token of [alice, mallory, alice]) t.equal((await submitBatch(it, token, list)).status, 200)
  const [first, other, again] = sandbox.submits.map(({ body }) => JSON.parse(body.toString()).items[0].idempotency_key)
  t.notMatch(sandbox.submits.map(({ body }) => body.toString()).join(), list[0]!.idempotency_key)
  t.equal(first, again)
  t.not(first, other)
  t.equal(sandbox.tasks.size, 2, 'and so one caller never gets another\'s task')
})

t.test('an item key that was used before gets its first task again, and costs nothing', async t => {
  const { it, alice } = await open(t, { config: plan('credits: 3, concurrentTasks: 3') })
  const list = anyItems(2)
  const first = await submitBatch(it, alice, list.slice(0, 1))
  const second = await submitBatch(it, alice, list)
  t.equal(second.status, 200)
  t.equal(taskIdsOf(second)[0], taskIdsOf(first)[0])
  t.equal((await submitBatch(it, alice, anyItems(1))).status, 200, 'two of three credits and slots were in use')
  t.equal((await submitBatch(it, alice, anyItems(1))).error, 'GW_TOO_MANY_TASKS')
})

t.test('the upstream gets the batch key it wants: from the caller\'s key, or a new one each time', async t => {
  const { it, alice, mint, sandbox } = await open(t)
  await submitBatch(it, alice, anyItems(1))
  await submitBatch(it, alice, anyItems(1))
  await submitBatch(it, alice, anyItems(1), { key: 'order-42' })
  await submitBatch(it, await mint('mallory'), anyItems(1), { key: 'order-42' })
  const sent = sandbox.submits.map(call => headerOf(call, 'idempotency-key'))
  t.equal(new Set(sent).size, 4)
  t.notMatch(sent.join(), 'order-42')
})

t.test('a batch takes as many requests, slots and credits as it has items', async t => {
  for (const [limits, code] of [
    ['credits: 5, concurrentTasks: 99', 'GW_CREDITS_EXHAUSTED'],
    ['concurrentTasks: 5', 'GW_TOO_MANY_TASKS'],
    ['requestsPerMinute: 5', 'GW_RATE_LIMITED']
  ]) {
    const { it, alice, submit, sandbox } = await open(t, {
      config: `plans: { default: { ${limits} } }\nbatches: { enabled: true }`
    })
    t.equal((await submitBatch(it, alice, anyItems(3))).status, 200)
    t.equal((await submitBatch(it, alice, anyItems(3))).error, code)
    if (code === 'GW_RATE_LIMITED') continue
    t.equal((await submitBatch(it, alice, anyItems(2))).status, 200, 'what was refused took nothing')
    t.equal((await submit(alice)).error, code)
    t.equal(sandbox.tasks.size, 5)
  }
})

t.test('a batch that is larger than the plan uses nothing up, and its caller need not try again', async t => {
  for (const [limits, code] of [
    ['concurrentTasks: 2', 'GW_TOO_MANY_TASKS'],
    ['requestsPerMinute: 2', 'GW_RATE_LIMITED']
  ]) {
    const { it, alice, sandbox } = await open(t, {
      config: `plans: { default: { ${limits} } }\nbatches: { enabled: true }`
    })
    const refused = await submitBatch(it, alice, anyItems(3))
    t.match(refused, { status: 429, error: code })
    t.equal(refused.headers.get('x-should-retry'), 'false')
    t.equal(refused.headers.get('retry-after'), null, 'it never fits')
    t.equal((await submitBatch(it, alice, anyItems(2))).status, 200)
    t.equal(sandbox.submits.length, 1)
  }
})

t.test('the price is each item\'s own, and a cap or a price that is broken names its item', async t => {
  const { it, alice, submit, sandbox } = await open(t, {
    config:
      'plans: { default: { credits: 10 } }\nbatches: { enabled: true }\nprices: { "sora-2": { credits: 2, per: input.duration } }\ncaps: { "sora-2": { input.duration: { max: 4 } } }'
  })
  const [one, two] = anyItems(2)
  const send = (first: object, second: object) =>
    submitBatch(
      it,
      alice,
      [
        { ...one, input: { prompt: 'x', ...first } },
        { ...two, input: { prompt: 'x', ...second } }
      ],
      { model: 'sora-2' }
    )
  t.match(await send({ duration: 1 }, { duration: 5 }), {
    error: 'GW_BAD_REQUEST',
    json: { message: /items\.1: input\.duration must be at most 4/ }
  })
  t.match(await send({}, { duration: 1 }), {
    error: 'GW_BAD_REQUEST',
    json: { message: /items\.0: Set input\.duration/ }
  })
  t.equal((await send({ duration: 1 }, { duration: 4 })).status, 200)
  t.equal((await submit(alice, 'x', 'suno')).error, 'GW_CREDITS_EXHAUSTED', 'two and eight are ten')
  t.equal(sandbox.submits.length, 1)
})

t.test('a batch without a body, or of a session that may not, is refused before anything is sent', async t => {
  const { it, alice, call, mint, sandbox } = await open(t)
  t.match(await call('/api/v1/generateTask/suno/batches', { token: alice, method: 'POST' }), {
    error: 'GW_BAD_REQUEST',
    json: { message: /list of items/ }
  })
  t.equal((await submitBatch(it, await mint('bob', { scopes: ['tasks:read'] }), anyItems(1))).error, 'GW_SCOPE_DENIED')
  t.equal((await submitBatch(it, await mint('bob', { models: ['suno'] }), anyItems(1))).error, 'GW_MODEL_DENIED')
  t.equal(
    (await call('/api/v1/generateTask/suno/batches?x=1', { token: alice, body: { items: anyItems(1) } })).error,
    'GW_BAD_REQUEST'
  )
  t.equal(sandbox.calls.length, 0)
})

t.test('what the upstream refuses costs nothing, and is passed on', async t => {
  const { it, alice, sandbox, log } = await open(t, { config: plan('credits: 2, concurrentTasks: 2') })
  for (const [word, status, error] of [
    ['http-400', 400, null],
    ['http-429', 429, null],
    ['code-503', 200, null],
    ['html-404', 502, 'GW_UPSTREAM_INVALID'],
    ['http-402', 502, 'GW_UPSTREAM_REFUSED_KEY']
  ] as const) {
    t.match(await submitBatch(it, alice, items('x', `sandbox:${word}`)), { status, error }, word)
  }
  t.equal((await submitBatch(it, alice, anyItems(2))).status, 200)
  t.equal(sandbox.tasks.size, 2)
  t.same(log.filter(line => line.alarm !== undefined), [])
})

t.test('a batch that can not be sent costs nothing', async t => {
  const { it, alice, sandbox } = await open(t, { config: plan('credits: 2') })
  await sandbox.close()
  for (let round = 0; round < 3; round++) {
    t.equal((await submitBatch(it, alice, anyItems(2))).error, 'GW_UPSTREAM_UNREACHABLE')
  }
})

t.test(
  'a key that is refused gives way to another, and a batch that names an earlier task does not change its key',
  async t => {
    const keys = ['apixo-key-number-one', 'apixo-key-number-two']
    const { it, alice, sandbox, lines } = await open(t, { keys })
    sandbox.revoke(keys[0]!)
    sandbox.revoke(keys[1]!)
    t.equal((await submitBatch(it, alice, anyItems(1))).error, 'GW_UPSTREAM_REFUSED_KEY')
    t.equal(sandbox.submits.length, 2)
    t.equal(headerOf(sandbox.submits[0]!, 'idempotency-key'), headerOf(sandbox.submits[1]!, 'idempotency-key'))

    const other = await open(t, { keys })
    const [first, second] = [
      await submitBatch(other.it, other.alice, anyItems(1)),
      await submitBatch(other.it, other.alice, anyItems(1))
    ]
    const keyOf = (batchId: string) => other.lines().find(line => line.taskId === batchId)?.keyId
    t.not(keyOf(first.json.data.batchId), keyOf(second.json.data.batchId))
    for (let round = 0; round < 3; round++) {
      const [one] = anyItems(1)
      const again = await submitBatch(other.it, other.alice, [
        { ...one, input: { prompt: 'x', batch_id: second.json.data.batchId } }
      ])
      t.equal(keyOf(again.json.data.batchId), keyOf(second.json.data.batchId))
    }
    const [one, two] = anyItems(2)
    t.match(
      await submitBatch(other.it, other.alice, [
        { ...one, input: { prompt: 'x', task_id: taskIdsOf(first)[0] } },
        { ...two, input: { prompt: 'x', task_id: taskIdsOf(second)[0] } }
      ]),
      { error: 'GW_BAD_REQUEST', json: { message: /different upstream accounts/ } }
    )
    t.ok(lines().length > 0)

    other.sandbox.revoke(
      keys.find(
        key =>
          other.settings.apiKeys.find(secret => secret.reveal() === key)!.fingerprint ===
          keyOf(second.json.data.batchId)
      )!
    )
    t.equal(
      (
        await submitBatch(other.it, other.alice, [
          { ...one, input: { prompt: 'x', batch_id: second.json.data.batchId } }
        ])
      ).error,
      'GW_UPSTREAM_REFUSED_KEY'
    )
    t.equal(
      (
        await submitBatch(other.it, other.alice, [
          { ...one, input: { prompt: 'x', batch_id: second.json.data.batchId } }
        ])
      ).error,
      'GW_UPSTREAM_REFUSED_KEY',
      'nor is it tried with another'
    )
  }
)

t.test('without a usable key nothing is reserved', async t => {
  const { it, alice, sandbox } = await open(t)
  sandbox.balanceUsd = -1
  t.equal((await submitBatch(it, alice, anyItems(1))).error, 'GW_NO_KEY', 'the key is found empty')
  t.equal((await submitBatch(it, alice, anyItems(1))).error, 'GW_NO_KEY')
  t.equal(sandbox.submits.length, 1)
})

for (const word of ['drop-after', 'html-200', 'json-504', 'no-task-id', 'cut-body', 'item-nameless', 'redirect-307']) {
  t.test(
    `after ${word} the outcome of the batch is unknown: charged, its slots free, and never sent again`,
    async t => {
      const { it, alice, log, submit, sandbox } = await open(t, { config: plan('credits: 4, concurrentTasks: 3') })
      const lost = await submitBatch(it, alice, items('x', `sandbox:${word}`, 'y'))
      t.match(lost, { status: 502, error: 'GW_OUTCOME_UNKNOWN' })
      t.equal(lost.headers.get('x-should-retry'), 'false')
      t.match(
        log.filter(line => line.alarm === 'unknown-outcome'),
        [{ level: 50 }]
      )
      t.equal((await submit(alice)).status, 200)
      t.equal((await submit(alice)).error, 'GW_CREDITS_EXHAUSTED')
      t.equal(sandbox.submits.length, 2)
    }
  )
}

t.test('of a batch that was accepted in part, the answer passes, and the rest is unknown', async t => {
  for (const word of ['item-refused', 'item-missing']) {
    const { it, alice, log, submit, status } = await open(t, { config: plan('credits: 5, concurrentTasks: 3') })
    const made = await submitBatch(it, alice, items('x', `sandbox:${word}`, 'y'))
    t.equal(made.status, 200)
    const told = taskIdsOf(made).filter(id => id !== undefined)
    t.equal(told.length, 2)
    for (const id of told) t.equal((await status(alice, id)).status, 200)
    t.match(
      log.filter(line => line.alarm !== undefined),
      [{ alarm: 'unknown-outcome', count: 1, batchId: made.json.data.batchId }]
    )
    t.equal((await submit(alice)).status, 200, 'its slot is free')
    t.equal((await submit(alice)).error, 'GW_TOO_MANY_TASKS')
  }
})

t.test('a batch without an id whose answer has arrived is made again when it is asked for again', async t => {
  const { it, alice, sandbox } = await open(t)
  for (let round = 0; round < 2; round++) {
    t.equal((await submitBatch(it, alice, items('sandbox:no-batch-id', 'x'))).status, 200)
  }
  t.equal(sandbox.submits.length, 2)
})

t.test('a batch without an id of its own has its tasks all the same', async t => {
  const { it, alice, status, sandbox } = await open(t)
  const made = await submitBatch(it, alice, items('sandbox:no-batch-id', 'x'), { key: 'one' })
  t.match(made, { status: 200, json: { data: { batchId: undefined } } })
  for (const id of taskIdsOf(made)) t.equal((await status(alice, id)).status, 200)
  const again = await submitBatch(it, alice, anyItems(1), { key: 'one' })
  t.equal(again.error, 'GW_IDEMPOTENCY_MISMATCH')
  t.equal(sandbox.submits.length, 1)
})

t.test(
  "a task or a batch that is somebody else's is not told, and what was accepted beside it has its owner",
  async t => {
    const { it, alice, mint, sandbox, status, log } = await open(t)
    const mallory = await mint('mallory')
    const first = await submitBatch(it, alice, anyItems(1))
    const answer = (data: object) =>
      sandbox.next((_request, response) => {
        response
          .writeHead(200, { 'content-type': 'application/json' })
          .end(JSON.stringify({ code: 200, message: 'success', data }))
      })
    answer({
      batchId: 'batch_new',
      items: [
        { client_item_id: 'c0', taskId: taskIdsOf(first)[0] },
        { client_item_id: 'c1', taskId: 'task-of-mallory' }
      ]
    })
    const stolen = await submitBatch(it, mallory, anyItems(2))
    t.match(stolen, { status: 502, error: 'GW_OUTCOME_UNKNOWN' })
    t.notMatch(stolen.text, taskIdsOf(first)[0]!)
    t.not((await status(mallory, 'task-of-mallory')).error, 'GW_TASK_NOT_FOUND')
    t.equal((await batchStatus(it, mallory, 'batch_new')).error, 'GW_TASK_NOT_FOUND')

    answer({ batchId: first.json.data.batchId, items: [{ client_item_id: 'c0', taskId: 'another-task' }] })
    t.match(await submitBatch(it, mallory, anyItems(1)), { status: 502, error: 'GW_OUTCOME_UNKNOWN' })
    t.equal((await batchStatus(it, alice, first.json.data.batchId)).status, 200)

    answer({ batchId: taskIdsOf(first)[0], items: [{ client_item_id: 'c0', taskId: first.json.data.batchId }] })
    t.match(await submitBatch(it, alice, anyItems(1)), { error: 'GW_OUTCOME_UNKNOWN' }, 'nor is a batch a task')
    t.ok(log.every(line => line.level < 50 || line.alarm !== undefined))
  })

t.test('an answer that repeats our key is not passed on, though its tasks run', async t => {
  const { it, alice, call } = await open(t)
  const refused = await submitBatch(it, alice, items('sandbox:echo-key', 'x'))
  t.match(refused, { status: 502, error: 'GW_UPSTREAM_INVALID' })
  t.equal(refused.headers.get('x-should-retry'), 'false')
  t.equal((await call('/gateway/tasks', { token: alice })).json.tasks.length, 2)
})

t.test('the answer is not told before every task has its owner, nor when the store is gone', async t => {
  const store = storeFile(t)
  const { it, alice, status, sandbox, time, gateway: { tidy } } = await open(t, { store })
  const list = items('sandbox:slow-headers', 'x')
  const answer = submitBatch(it, alice, list, { key: 'one' })
  const letGo = await missedClaim(t, store, { sandbox, time })
  t.match(await answer, { status: 502, error: 'GW_OUTCOME_UNKNOWN' })
  letGo()
  await tidy()
  for (const id of sandbox.tasks.keys()) t.equal((await status(alice, id)).status, 200)
  t.match(await submitBatch(it, alice, list, { key: 'one' }), { error: 'GW_OUTCOME_UNKNOWN' })
  t.equal(sandbox.submits.length, 1)
})

t.test('while the store can not serve, nothing is sent', async t => {
  const store = storeFile(t)
  const { it, alice, sandbox } = await open(t, { store, config: plan('credits: 2, concurrentTasks: 2') })
  const letGo = holdStore(t, store)
  t.match(await submitBatch(it, alice, anyItems(2)), { status: 503, error: 'GW_STORE_DOWN' })
  t.equal(sandbox.submits.length, 0)
  letGo()
  await it.gateway.tidy()
  t.equal((await submitBatch(it, alice, anyItems(2))).status, 200, 'and nothing was charged')
})

t.test(
  'the status of a batch frees the slots of its tasks that have ended, and asks about each of them once',
  async t => {
    const { it, alice, sandbox, time, status } = await open(t, {
      config: plan('concurrentTasks: 3, pollsPerMinute: 1000')
    })
    const unfinished = async () => (await it.call('/gateway/session', { token: alice })).json.tasks.unfinished
    const made = await submitBatch(it, alice, items('x', 'sandbox:failed', 'sandbox:forever'))
    const polls = () => sandbox.calls.filter(call => call.url.startsWith('/api/v1/statusTask/')).length
    await batchStatus(it, alice, made.json.data.batchId)
    t.equal(await unfinished(), 3)
    t.equal(polls(), 0)
    time.advance(taskMs)
    const ended = await batchStatus(it, alice, made.json.data.batchId)
    t.match(ended.json.data.items, [{ state: 'success' }, { state: 'failed' }, { state: 'pending' }])
    await until('two slots are free', async () => (await unfinished()) === 1)
    for (let round = 0; round < 3; round++) await batchStatus(it, alice, made.json.data.batchId)
    t.equal(polls(), 2)
    const kept = await status(alice, taskIdsOf(made)[0]!)
    t.match(kept.json.data, { state: 'success', costTime: taskMs }, "the task's own answer, from the ledger")
    t.equal(polls(), 2)
  }
)

t.test('an ended task whose own status does not say so is left to its caller', async t => {
  const { it, alice, sandbox, time, status } = await open(t)
  const made = await submitBatch(it, alice, items('sandbox:status-drop', 'x'))
  const answer = JSON.stringify({
    code: 200,
    message: 'success',
    data: { items: ['not-a-task', ...taskIdsOf(made)].map(taskId => ({ taskId, state: 'success' })) }
  })
  sandbox.next((_request, response) => {
    response.writeHead(200, { 'content-type': 'application/json' }).end(answer)
  })
  const told = await batchStatus(it, alice, made.json.data.batchId)
  t.equal(told.text, answer)
  await until('both were asked about', () => sandbox.calls.length === 4)
  await status(alice, taskIdsOf(made)[1]!) // it waits for that answer: the interval begins before the time passes
  time.advance(taskMs)
  t.equal(
    (await status(alice, taskIdsOf(made)[1]!)).json.data.state,
    'success',
    'it ran then, and is asked about when its caller asks'
  )
})

t.test('a store that fails behind the caller\'s back is told to the operator alone', async t => {
  const store = storeFile(t)
  const { it, alice, sandbox, time, log } = await open(t, { store })
  const made = await submitBatch(it, alice, anyItems(1))
  time.advance(taskMs)
  const letGo = holdStore(t, store)
  t.equal((await batchStatus(it, alice, made.json.data.batchId)).status, 200)
  await until('it is told', () => log.some(line => /own status calls/.test(line.msg)))
  letGo()
  t.equal(sandbox.calls.length, 3)
})

t.test('a caller who hangs up has its batch all the same', async t => {
  const { it, alice, sandbox, call } = await open(t)
  const gone = new AbortController()
  const answer = submitBatch(it, alice, items('sandbox:slow-headers', 'x'), { signal: gone.signal }).catch(() => 'gone')
  await until('the upstream has it', () => sandbox.waiting === 1)
  gone.abort()
  t.equal(await answer, 'gone')
  sandbox.release()
  await until(
    'both tasks have an owner',
    async () =>
      (await call('/gateway/tasks', { token: alice })).json.tasks.filter((task: any) => task.taskId !== null).length ===
      2
  )
})

t.test('polls of a batch count as polls', async t => {
  const { it, alice } = await open(t, { config: plan('pollsPerMinute: 2') })
  const { batchId } = (await submitBatch(it, alice, anyItems(1))).json.data
  t.equal((await batchStatus(it, alice, batchId)).status, 200)
  t.equal((await batchStatus(it, alice, batchId)).status, 200)
  t.equal((await batchStatus(it, alice, batchId)).error, 'GW_RATE_LIMITED')
})

t.test('an awkward answer to the status of a batch is treated as a task\'s is', async t => {
  const { it, alice } = await open(t)
  for (const [word, status, error] of [
    ['status-http-500', 500, null],
    ['status-html-502', 502, 'GW_UPSTREAM_INVALID'],
    ['status-redirect-302', 502, 'GW_UPSTREAM_INVALID'],
    ['status-echo-key', 502, 'GW_UPSTREAM_INVALID'],
    ['status-http-401', 502, 'GW_UPSTREAM_REFUSED_KEY']
  ] as const) {
    const { batchId } = (await submitBatch(it, alice, items(`sandbox:${word}`))).json.data
    t.match(await batchStatus(it, alice, batchId), { status, error }, word)
  }
})

t.test(
  'a key that was used while the batch was on its way to the ledger is told as one that was used before',
  async t => {
    let looks = 0
    const { it, alice, sandbox } = await open(t, {
      createGateway: overStore(({ ledger }) => ({
        ledger: {
          ...ledger,
          reserveAll: async () => ({ granted: false, reason: 'duplicate', earlier: { kind: 'pending' } })
        },
        idempotency: { earlier: async () => ++looks === 1 ? null : { kind: 'mismatch' } }
      }))
    })
    t.match(await submitBatch(it, alice, anyItems(1), { key: 'used' }), { error: 'GW_IDEMPOTENCY_MISMATCH' })
    t.equal(looks, 2)
    t.equal(sandbox.calls.length, 0)
  }
)

t.test('a batch whose first has come to nothing by the time it looks again is made itself', async t => {
  let isFirst = true
  const { it, alice, sandbox } = await open(t, {
    createGateway: overStore(({ ledger }) => ({
      ledger: {
        ...ledger,
        async reserveAll (requests) {
          if (!isFirst) return await ledger.reserveAll(requests)
          isFirst = false
          return { granted: false, reason: 'duplicate', earlier: { kind: 'pending' } }
        }
      }
    }))
  })
  t.equal((await submitBatch(it, alice, anyItems(2), { key: 'used' })).status, 200)
  t.equal(sandbox.calls.length, 1)
})

t.test('a caller who hangs up while a batch is asked about ends the call for it', async t => {
  const { it, alice, sandbox } = await open(t)
  const { json: { data: { batchId } } } = await submitBatch(it, alice, anyItems(2))
  const ended = Promise.withResolvers<void>()
  const asked = new Promise<void>(resolve => {
    sandbox.next(request => {
      request.socket.once('close', ended.resolve)
      resolve()
    })
  })
  const gone = new AbortController()
  const path = `/api/v1/generateTask/nano-banana/batches/${batchId}`
  const status = it.call(path, { token: alice, signal: gone.signal })
  await asked
  gone.abort()
  await t.rejects(status)
  await ended.promise
})

t.test('a batch whose own row can not be ended is answered all the same, and the operator is told', async t => {
  const { it, alice, log } = await open(t, {
    createGateway: overStore(({ ledger }) => ({
      ledger: { ...ledger, settle: async () => { throw gatewayError('GW_STORE_DOWN') } }
    }))
  })
  const made = await submitBatch(it, alice, anyItems(2))
  t.equal(made.status, 200)
  t.equal(taskIdsOf(made).length, 2)
  t.match(log.find(({ batchId }) => batchId === made.json.data.batchId), { err: { code: 'GW_STORE_DOWN' } })
})

t.test("a mistake of our own in a rule is not told as the caller's", t => {
  t.throws(() => naming('items.0', () => { throw new TypeError('a bug') }), new TypeError('a bug'))
  t.end()
})
