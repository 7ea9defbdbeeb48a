import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import t, { type Test } from 'tap'
import { httpPort } from '../helpers/http-server.ts'
import { crankedTimers } from '../helpers/timers.ts'
import { until } from '../helpers/until.ts'
import { clientOf, sandboxFor } from './client.ts'

const taskMs = 6000

/** A sandbox whose time is turned on by hand, and what it calls. */
async function calling (
  t: Test,
  answer: (response: ServerResponse, request: IncomingMessage) => void = response => response.end()
) {
  const received: Array<{ readonly url: string, readonly body: any }> = []
  const server = createServer((request, response) => {
    const chunks: Buffer[] = []
    request.on('data', chunk => chunks.push(chunk))
    request.on('end', () => {
      received.push({ url: request.url!, body: JSON.parse(Buffer.concat(chunks).toString()) })
      answer(response, request)
    })
  })
  const origin = `http://127.0.0.1:${await httpPort(t, server)}`
  const time = { now: 1_700_000_000_000 }
  const timers = crankedTimers({ elapsed: () => time.now })
  const { sandbox } = await sandboxFor(t, { timers, now: () => time.now, taskMs })
  const { post } = clientOf(sandbox)
  const submit = async (prompt: string, callbackUrl = `${origin}/hooks?a=b`): Promise<string> =>
    ((await (await post({ request_type: 'callback', callback_url: callbackUrl, input: { prompt } })).json()) as any)
      .data.taskId
  const pass = async (ms: number, count: number): Promise<void> => {
    time.now += ms
    timers.run()
    await until(`${count} callbacks`, () => sandbox.callbacks.length === count)
  }
  return { sandbox, origin, received, submit, pass, timers }
}

t.test('at the end of a task its callback is sent, once, with the envelope of a status call', async t => {
  const { sandbox, received, submit, pass, origin, timers } = await calling(t)
  const taskId = await submit('a red cube')
  await pass(taskMs - 1, 0)
  await pass(1, 1)
  t.match(received, [
    { url: '/hooks?a=b', body: { code: 200, message: 'success', data: { taskId, state: 'success', costTime: taskMs } } }
  ])
  t.match(sandbox.callbacks, [{ url: `${origin}/hooks?a=b`, status: 200 }])
  t.equal(timers.waiting, 0)
  const failed = await submit('sandbox:failed')
  await pass(taskMs, 2)
  t.match(received[1]!.body.data, { taskId: failed, state: 'failed', failCode: 'CONTENT_VIOLATION' })
  await submit('sandbox:forever')
  t.equal(timers.waiting, 0, 'what does not end is not announced')
})

t.test('what is not answered with 200 is sent again after 30 s, 2 min and 10 min, and then abandoned', async t => {
  const answers: Array<(response: ServerResponse) => void> = [
    response => response.writeHead(500).end(),
    response => response.writeHead(204).end(),
    response => {
      response.destroy()
    },
    response => response.writeHead(302).end()
  ]
  const { sandbox, submit, pass, timers } = await calling(t, response => answers.shift()!(response))
  await submit('a red cube')
  for (const [index, ms] of [taskMs, 30_000, 120_000, 600_000].entries()) {
    await until('the pause', () => timers.waiting === 1)
    await pass(ms, index + 1)
  }
  t.same(sandbox.callbacks.map(({ status }) => status), [500, 204, null, 302])
  await new Promise(resolve => setImmediate(resolve))
  t.equal(timers.waiting, 0)
})

t.test('words in the prompt lose, double, delay and forge a callback', async t => {
  const { received, submit, pass, timers } = await calling(t)
  await submit('sandbox:callback-lost')
  t.equal(timers.waiting, 0)
  const twice = await submit('sandbox:callback-twice')
  await pass(taskMs, 2)
  t.same(received.map(({ body }) => body.data.taskId), [twice, twice])
  await submit('sandbox:callback-late')
  await pass(taskMs + 59_999, 2)
  await pass(1, 3)
  const foreign = await submit('sandbox:callback-foreign')
  await pass(taskMs, 4)
  t.not(received[3]!.body.data.taskId, foreign)
  const impossible = await submit('sandbox:callback-impossible')
  await pass(taskMs, 5)
  t.match(received[4]!.body.data, { taskId: impossible, state: 'pending' })
})

t.test('callbacks go where the test says, with the path of their URL; and what is no URL goes nowhere', async t => {
  const { sandbox, received, submit, pass, origin, timers } = await calling(t)
  sandbox.callbacksTo = origin
  t.equal(sandbox.callbacksTo, origin)
  await submit('a red cube', 'https://gateway.example/gateway/callbacks/x?y')
  await pass(taskMs, 1)
  t.match(received, [{ url: '/gateway/callbacks/x?y' }])
  await submit('a red cube', 'no URL')
  await pass(taskMs, 1)
  t.equal(timers.waiting, 0)
})

t.test('a sandbox that is closed calls nobody any more', async t => {
  const { sandbox, submit, pass, timers, received } = await calling(t)
  await submit('a red cube')
  await sandbox.close()
  await pass(taskMs, 0)
  t.equal(timers.waiting, 0)
  t.equal(received.length, 0)
})

t.test('without a test\'s timers the sandbox has Node\'s, and remembers as many callbacks as calls', async t => {
  const { sandbox } = await sandboxFor(t, { now: Date.now, taskMs: 20, recordCalls: 2 })
  const { post } = clientOf(sandbox)
  const server = createServer((request, response) => { request.resume().on('end', () => response.end()) })
  const origin = `http://127.0.0.1:${await httpPort(t, server)}`
  const alive = setInterval(() => {}, 1000)
  t.teardown(() => clearInterval(alive))
  for (const path of ['one', 'two', 'three']) {
    await post({ request_type: 'callback', callback_url: `${origin}/${path}`, input: { prompt: 'x' } })
  }
  await until('the last', () => sandbox.callbacks.some(({ url }) => url.endsWith('/three')))
  await until('the others', () => sandbox.callbacks.length === 2)
  t.ok(sandbox.callbacks.every(({ status }) => status === 200))
})
