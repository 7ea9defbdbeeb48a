import t from 'tap'
import { calledBackGateway } from '../helpers/callbacks.ts'
import { taskMs } from '../helpers/gateway.ts'
import { until } from '../helpers/until.ts'

const said = (data: unknown) => ({ code: 200, message: 'success', data })

t.test(
  'a callback that names another task, or a state that can not be, is a 200 and a warning, and nothing else',
  async t => {
    const { submit, mint, callBack, callbackPath, listed, polls, log, time } = await calledBackGateway(t)
    const token = await mint('alice')
    const other = (await submit(token, 'sandbox:callback-lost')).json.data.taskId
    const { taskId } = (await submit(token, 'sandbox:callback-lost')).json.data
    time.advance(taskMs)
    const bodies = [
      said({ taskId: other, state: 'success' }),
      said({ taskId: "nobody's", state: 'success' }),
      { taskId: other },
      said({ taskId, state: 'pending' }),
      said({ taskId, state: 'SUCCESS' }),
      said({ taskId, state: '' }),
      said({ taskId, state: 'constructor' })
    ]
    for (const [index, body] of bodies.entries()) {
      t.equal((await callBack(callbackPath(), body)).status, 200, JSON.stringify(body))
      await until(
        'the warning',
        () => log.filter(({ level, oddity }) => level === 40 && oddity !== undefined).length === index + 1
      )
    }
    t.equal(polls(), 0, 'nobody was asked')
    t.same([await listed(token, taskId), await listed(token, other)], ['running', 'running'])
    t.notMatch(JSON.stringify(log.filter(({ oddity }) => oddity !== undefined)), 'nobody')
  }
)

t.test("the upstream's answer decides, not what a callback says of the end", async t => {
  const { submit, mint, status, callBack, callbackPath, hasEnded, time } = await calledBackGateway(t)
  const token = await mint('alice')
  const { taskId } = (await submit(token, 'sandbox:callback-lost')).json.data
  time.advance(taskMs)
  await callBack(callbackPath(), said({ taskId, state: 'failed', resultJson: '{"resultUrls":["https://evil.test/"]}' }))
  await hasEnded(token, taskId)
  t.notMatch((await status(token, taskId)).text, 'evil')
})

t.test('callbacks of the upstream that mislead cost time and nothing else: the slow poll ends the task', async t => {
  for (const word of ['callback-foreign', 'callback-impossible']) {
    const { submit, mint, passUntilCalled, pass, listed, hasEnded, gateway, sandbox } = await calledBackGateway(t)
    const token = await mint('alice')
    const { taskId } = (await submit(token, `sandbox:${word}`)).json.data
    await passUntilCalled(taskMs, 1)
    t.match(sandbox.callbacks, [{ status: 200 }])
    t.equal(await listed(token, taskId), 'running', word)
    pass(120_001)
    await gateway.tidy()
    await hasEnded(token, taskId)
  }
})

t.test("a lost submit gets no task that is somebody else's, that nobody has, or that can not be an id", async t => {
  const { submit, mint, callBack, callbackPath, listed, log, sandbox, polls, pass } = await calledBackGateway(t)
  const alice = await mint('alice')
  const { taskId } = (await submit(alice, 'sandbox:callback-lost')).json.data
  const mallory = await mint('mallory')
  await submit(mallory, 'sandbox:drop-before')
  const path = callbackPath()
  const hints = [taskId, "nobody's", '\ud800', ' ', '../x', 'a b', 'é', 'x'.repeat(257), ['x'], 7, undefined]
  for (const [index, hint] of hints.entries()) {
    pass(5000)
    t.equal((await callBack(path, said({ taskId: hint, state: 'success' }))).status, 200)
    await until('the warning', () => log.filter(({ oddity }) => oddity !== undefined).length === index + 1)
  }
  t.ok(polls() <= 2, "the upstream was asked about what could be an id, and not about somebody else's task")
  t.equal(await listed(mallory, taskId), undefined)
  t.equal(await listed(alice, taskId), 'running')
  t.equal(sandbox.tasks.size, 1)
})

t.test('a lost submit is checked once an interval, however many ids are tried', async t => {
  const { submit, mint, callBack, callbackPath, polls } = await calledBackGateway(t)
  await submit(await mint('mallory'), 'sandbox:drop-before')
  for (let count = 0; count < 30; count++) {
    await callBack(callbackPath(), said({ taskId: `guess-${count}`, state: 'success' }))
  }
  await until('the question', () => polls() === 1)
  t.equal(polls(), 1)
})

t.test('an answer that is not about the task that was named claims nothing', async t => {
  const { submit, mint, call, callBack, callbackPath, sandbox, log, polls, pass } = await calledBackGateway(t)
  const token = await mint('mallory')
  await submit(token, 'sandbox:drop-before')
  const answers: ReadonlyArray<readonly [number, unknown]> = [
    [200, said({ taskId: 'another', state: 'success' })],
    [200, said({ state: 'success' })],
    [200, said({ taskId: 'named' })],
    [404, { code: 404, message: 'Task not found', data: null }],
    [200, { code: 404, message: 'Task not found', data: { taskId: 'named', state: 'success' } }],
    [500, { code: 500, message: 'Server Error' }],
    [302, {}]
  ]
  for (const [index, [status, body]] of answers.entries()) {
    pass(5000)
    sandbox.next((_request, response) => {
      response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body))
    })
    await callBack(callbackPath(), said({ taskId: 'named', state: 'success' }))
    await until('the question', () => polls() === index + 1)
  }
  t.match((await call('/gateway/tasks', { token })).json.tasks, [{ taskId: null, state: 'unknown' }])
  await until(
    'the warnings',
    () => log.filter(({ oddity }) => oddity === 'a task that the upstream does not know').length >= 5
  )
})

t.test('of two lost submits that are told of one task, one gets it', async t => {
  const { submit, mint, call, callBack, callbackPath, sandbox, log } = await calledBackGateway(t)
  const token = await mint('alice')
  await submit(token, 'sandbox:drop-after sandbox:status-slow-headers sandbox:callback-lost')
  const first = callbackPath()
  const [taskId] = [...sandbox.tasks.keys()]
  await submit(token, 'sandbox:drop-before')
  await Promise.all([first, callbackPath()].map(path => callBack(path, said({ taskId, state: 'success' }))))
  await until('both questions', () => sandbox.waiting === 2)
  sandbox.release()
  await until('the warning', () => log.some(({ oddity }) => oddity === 'not its task'))
  const { tasks } = (await call('/gateway/tasks', { token })).json
  t.same(tasks.map((task: { taskId: string | null }) => task.taskId).sort(), [taskId, null].sort())
})
