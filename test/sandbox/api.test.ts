import t from 'tap'
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
