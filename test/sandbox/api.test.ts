import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { sandboxModels } from '../../src/sandbox/tasks.ts'
import { clientOf, key, otherKey, rawSocket, read, sandboxFor, until } from './client.ts'

t.test('a submit is answered with a task id of 32 hexadecimal digits', async (t) => {
  const { sandbox, submit } = await sandboxFor(t)
  const response = await submit('a red cube')
  t.equal(response.status, 200)
  t.equal(response.headers.get('content-type'), 'application/json')
  const body = await read(response)
  t.match(body, { code: 200, message: 'success', data: { taskId: /^[0-9a-f]{32}$/ } })
  t.match(sandbox.tasks.get(body.data.taskId), { key, model: 'nano-banana', prompt: 'a red cube', callbackUrl: null })
})

t.test('a task is pending, then processing, then a success, by the clock alone', async (t) => {
  const { clock, taskId, data } = await sandboxFor(t, { taskMs: 3000 })
  const id = await taskId('a red cube')
  const createTime = clock.now
  t.strictSame(await data(id), { taskId: id, state: 'pending', createTime })
  clock.now += 1000
  t.strictSame(await data(id), { taskId: id, state: 'processing', createTime })
  clock.now += 1999
  t.equal((await data(id)).state, 'processing')
  clock.now += 1
  const { resultJson, ...done } = await data(id)
  t.strictSame(done, { taskId: id, state: 'success', costTime: 3000, createTime, completeTime: createTime + 3000 })
  t.type(resultJson, 'string')
  t.match(JSON.parse(resultJson).resultUrls, [/^http:\/\/127\.0\.0\.1:\d+\/temp\/[0-9a-f]{32}\.png$/])
})

t.test('without a good bearer key every route of the API answers 401 and no data', async (t) => {
  const { sandbox, taskId } = await sandboxFor(t, { keys: [key, ''] })
  const id = await taskId('mine')
  for (const authorization of ['', 'Bearer ', 'Bearer nobody', `Basic ${key}`, key]) {
    for (const [method, path] of [
      ['POST', '/api/v1/generateTask/nano-banana'], ['GET', `/api/v1/statusTask/nano-banana?taskId=${id}`],
      ['GET', '/api/v1/apikeys/current-balance']
    ] as const) {
      const response = await fetch(sandbox.origin + path, { method, headers: { authorization } })
      t.equal(response.status, 401)
      t.strictSame(await response.json(), { code: 401, message: 'Invalid or missing API key' })
    }
  }
  const bare = await fetch(`${sandbox.origin}/api/v1/apikeys/current-balance`)
  t.equal(bare.status, 401)
})

t.test('a revoked key is refused until it is restored', async (t) => {
  const { sandbox, submit } = await sandboxFor(t)
  sandbox.revoke(key)
  t.equal((await submit('one')).status, 401)
  sandbox.restore(key)
  t.equal((await submit('one')).status, 200)
})

t.test('a key can be forbidden single models', async (t) => {
  const { sandbox, submit } = await sandboxFor(t)
  sandbox.forbid(key, 'flux-2')
  sandbox.forbid(key, 'suno')
  for (const model of ['flux-2', 'suno']) {
    const response = await submit('one', {}, model)
    t.equal(response.status, 401)
    t.notOk('data' in await read(response))
  }
  t.equal((await submit('one')).status, 200)
  t.equal((await clientOf(sandbox, otherKey).submit('one', {}, 'suno')).status, 200)
})

t.test('models are those of the documents and those of the option; others are 404', async (t) => {
  const { submit, status } = await sandboxFor(t, { models: ['house-model'] })
  for (const model of [...sandboxModels, 'house-model']) t.equal((await submit('one', {}, model)).status, 200, model)
  for (const response of [await submit('one', {}, 'no-such'), await status('0', 'no-such')]) {
    t.equal(response.status, 404)
    t.match(await read(response), { code: 404, message: 'Model not found: no-such', data: null })
  }
})

t.test('a task is unknown to another key, under another model and by another id', async (t) => {
  const { sandbox, taskId, status } = await sandboxFor(t)
  const id = await taskId('mine')
  for (const response of [
    await status('0'), await status(id, 'flux-2'), await clientOf(sandbox, otherKey).status(id)
  ]) {
    t.equal(response.status, 404)
    t.strictSame(await read(response), { code: 404, message: 'Task not found', data: null })
  }
})

t.test('a body that is no good request is 400 and says what is wrong', async (t) => {
  const { sandbox, post, get } = await sandboxFor(t)
  for (const [body, error] of [
    ['', 'The body is not a JSON object'], ['{', 'The body is not a JSON object'],
    ['[]', 'The body is not a JSON object'],
    [{}, 'Missing required field: input'], [{ input: 'x' }, 'Missing required field: input'],
    [{ input: null }, 'Missing required field: input'],
    [{ input: {} }, 'Missing required field: input.prompt'],
    [{ input: { prompt: 7 } }, 'Missing required field: input.prompt'],
    [{ input: { prompt: ' ' } }, 'Missing required field: input.prompt'],
    [{ input: { prompt: 'x', num_images: 5 } }, 'input.num_images must be a whole number from 1 to 4'],
    [{ input: { prompt: 'x', num_images: 0 } }, 'input.num_images must be a whole number from 1 to 4'],
    [{ input: { prompt: 'x', num_images: '2' } }, 'input.num_images must be a whole number from 1 to 4'],
    [{ request_type: 'sync', input: { prompt: 'x' } }, 'request_type must be async or callback'],
    [{ request_type: 'callback', input: { prompt: 'x' } }, 'Missing required field: callback_url'],
    [{ input: { prompt: 'sandbox:fialed and sandbox:Failed' } }, 'No such sandbox case: fialed, Failed']
  ] as const) {
    const response = await post(body)
    t.equal(response.status, 400)
    t.strictSame(await read(response), { code: 400, message: 'Invalid request', data: { error } })
  }
  const response = await get('/api/v1/statusTask/nano-banana')
  t.equal(response.status, 400)
  t.equal((await read(response)).data.error, 'Missing required parameter: taskId')
  t.equal(sandbox.tasks.size, 0)
})

t.test('the callback address of a request is kept with its task', async (t) => {
  const { sandbox, post } = await sandboxFor(t)
  const callbackUrl = 'https://cb.example/hook'
  const body = { request_type: 'callback', callback_url: callbackUrl, input: { prompt: 'x' } }
  const { data } = await read(await post(body))
  t.equal(sandbox.tasks.get(data.taskId)?.callbackUrl, callbackUrl)
})

t.test('the balance is a bare number that falls with each task, and can be set', async (t) => {
  const { sandbox, taskId, submit, balance } = await sandboxFor(t, { balanceUsd: 74.87 })
  t.equal(await balance(), 74.87)
  for (let n = 0; n < 3; n++) await taskId('one')
  t.equal(await balance(), 74.78)
  t.equal(sandbox.balanceUsd, 74.78)
  sandbox.balanceUsd = 0
  t.equal(await balance(), 0)
  const response = await submit('one')
  t.equal(response.status, 402)
  t.strictSame(await read(response), { code: 402, message: 'Payment Required', data: null })
})

t.test('other routes and other methods are 404', async (t) => {
  const { sandbox, get } = await sandboxFor(t)
  for (const [method, path] of [
    ['GET', '/'], ['GET', '/api/v1/generateTask/nano-banana'], ['POST', '/api/v1/statusTask/nano-banana'],
    ['POST', '/api/v1/apikeys/current-balance'], ['GET', '/api/v1/generateTask/'], ['GET', '/api/mcp/contracts'],
    ['POST', '/temp/0.png'], ['GET', '/temp/0.png'], ['GET', '//'],
    ['GET', '/api/v1/generateTask/nano-banana/batches']
  ] as const) {
    const response = await get(path, { method })
    t.equal(response.status, 404, path)
    t.strictSame(await read(response), { code: 404, message: 'Not Found', data: null })
  }
  t.equal(sandbox.submits.length, 0)
})

t.test('calls are recorded as they came, submits once more in a list of their own', async (t) => {
  const { sandbox, balance } = await sandboxFor(t)
  await balance()
  const headers = 'Host: x\r\nX-OdD: 1\r\nx-odd: 2\r\ncontent-length: 4'
  const head = `POST /api/v1/generateTask/nano-banana HTTP/1.1\r\n${headers}\r\n\r\n`
  const socket = await rawSocket(t, sandbox, head)
  await until(() => sandbox.calls.length === 2)
  t.equal(sandbox.submits[0]?.body.length, 0, 'recorded before its body is there')
  socket.write('oops')
  await until(() => sandbox.submits[0]?.body.length === 4)
  t.equal(sandbox.submits[0], sandbox.calls[1])
  t.match(sandbox.submits[0], { method: 'POST', url: '/api/v1/generateTask/nano-banana' })
  t.strictSame(sandbox.submits[0]?.rawHeaders.slice(2, 6), ['X-OdD', '1', 'x-odd', '2'])
})

t.test('a request that breaks off in its body is recorded and makes nothing', async (t) => {
  const { sandbox, balance } = await sandboxFor(t)
  const head = `POST /api/v1/generateTask/nano-banana HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${key}\r\n`
  const socket = await rawSocket(t, sandbox, `${head}content-length: 400\r\n\r\n{"input":`)
  await until(() => sandbox.submits.length === 1)
  socket.destroy()
  await balance()
  t.equal(sandbox.tasks.size, 0)
})

t.test('the number of recorded calls and tasks can be bounded, the oldest go first', async (t) => {
  const bounds = { recordCalls: 2, recordTasks: 2, taskMs: 0 }
  const { sandbox, clock, taskId, status, data, get } = await sandboxFor(t, bounds)
  const first = await taskId('one')
  const [url] = JSON.parse((await data(first)).resultJson).resultUrls
  const later = [await taskId('two'), await taskId('three')]
  clock.now += 1
  t.equal((await status(first)).status, 404)
  t.equal((await get(new URL(url).pathname)).status, 404)
  t.strictSame([...sandbox.tasks.keys()], later)
  t.equal(sandbox.calls.length, 2)
  t.equal(sandbox.submits.length, 2)
  t.match(sandbox.submits[1]?.body.toString(), 'three')
})

t.test('a test can answer single requests by hand, in turn', async (t) => {
  const { sandbox, submit, balance } = await sandboxFor(t)
  sandbox.next((_, response) => response.writeHead(418).end())
  sandbox.next((request, response) => response.end(JSON.stringify({ data: request.url })))
  t.equal((await submit('one')).status, 418)
  t.equal(await balance(), '/api/v1/apikeys/current-balance')
  t.equal(sandbox.tasks.size, 0)
  t.equal((await submit('one')).status, 200)
})

t.test('without options the real clock, 100 USD and six seconds are used', async (t) => {
  const { sandbox, taskId, balance } = await sandboxFor(t, { now: Date.now })
  t.equal(await balance(), 100)
  const before = Date.now()
  const task = sandbox.tasks.get(await taskId('one'))!
  t.ok(task.createTime >= before && task.createTime <= Date.now())
  t.equal(task.completeTime - task.createTime, 6000)
})

t.test('closing destroys connections that wait, and can be done twice', async (t) => {
  const { sandbox, submit, get } = await sandboxFor(t)
  const slow = submit('sandbox:slow-headers')
  const idle = await rawSocket(t, sandbox, '')
  const ended = new Promise((resolve) => idle.on('close', resolve))
  const refused = t.rejects(slow)
  await until(() => sandbox.waiting === 1)
  await sandbox.close()
  await Promise.all([refused, ended])
  await t.rejects(get('/'))
  await sandbox.close()
})

t.test('a port that is taken is an error', async (t) => {
  const { sandbox } = await sandboxFor(t)
  await t.rejects(sandboxFor(t, { port: Number(new URL(sandbox.origin).port) }), { code: 'EADDRINUSE' })
})

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

const main = fileURLToPath(new URL('../../src/sandbox/main.ts', import.meta.url))

async function spawned (t: Test, env: Record<string, string>, args: readonly string[] = []) {
  const child = spawn(process.execPath, [main, ...args], {
    env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'inherit']
  })
  t.teardown(() => child.kill('SIGKILL'))
  const lines: string[] = []
  const reader = createInterface(child.stdout)
  reader.on('line', (line) => lines.push(line))
  await once(reader, 'line')
  return { child, lines, origin: lines[0]! }
}

t.test('the sandbox runs as a process set up by variables, and ends on SIGTERM', async (t) => {
  const { child, lines, origin } = await spawned(t, {
    SANDBOX_PORT: '0',
    SANDBOX_HOST: 'localhost',
    SANDBOX_KEYS: 'one, two',
    SANDBOX_TASK_MS: '0',
    SANDBOX_PUBLIC_ORIGIN: 'http://file.example'
  })
  t.match(origin, /^http:\/\/localhost:\d+$/)
  for (const key of ['one', 'two']) {
    const { taskId, data } = clientOf({ origin }, key)
    t.match(await data(await taskId('hello')), { state: 'success', resultJson: 'http://file.example/temp/' })
  }
  child.kill('SIGTERM')
  t.strictSame(await once(child, 'exit'), [0, null])
  t.strictSame(lines, [origin], 'it prints its origin and nothing else')
})

t.test('without variables it takes a free port of this host, six seconds and a key of no worth', async (t) => {
  const { child, origin } = await spawned(t, {})
  t.match(origin, /^http:\/\/127\.0\.0\.1:\d+$/)
  const { taskId, data, balance } = clientOf({ origin }, 'sandbox-key')
  t.equal((await data(await taskId('hello'))).state, 'pending')
  t.equal(await balance(), 999_999.97)
  child.kill('SIGINT')
  t.strictSame(await once(child, 'exit'), [0, null])
})

t.test('arguments beat variables', async (t) => {
  const variables = { SANDBOX_KEYS: 'one', SANDBOX_TASK_MS: '600000' }
  const { origin } = await spawned(t, variables, ['--keys', 'two', '--task-ms', '0'])
  t.equal(await clientOf({ origin }, 'one').balance(), undefined)
  const { taskId, data } = clientOf({ origin }, 'two')
  t.equal((await data(await taskId('hello'))).state, 'success')
})
