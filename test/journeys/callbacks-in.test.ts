import t from 'tap'
import { calledBackGateway } from '../helpers/callbacks.ts'
import { statesOf } from '../helpers/cranked-gateway.ts'
import { taskMs } from '../helpers/gateway.ts'
import { until } from '../helpers/until.ts'

t.test(
  'the upstream says that a task has ended, and the ledger, the credits and whoever watches hear of it at once',
  async t => {
    const config = 'plans: { default: { credits: 1, concurrentTasks: 1 } }'
    const { submit, mint, passUntilCalled, hasEnded, listenTo, sandbox, polls, status, publicUrl } =
      await calledBackGateway(t, { config })
    const token = await mint('alice')
    const body =
      '{"source":"page", "input":{"mode":"text-to-image","prompt":"sandbox:failed","seed":12345678901234567890}}'
    const { taskId } = (await submit(token, '', 'nano-banana', { body })).json.data
    const sent = sandbox.submits[0]!.body.toString()
    t.match(
      sent,
      /^\{"request_type":"callback","callback_url":"https:\/\/gateway\.example\/gateway\/callbacks\/[\w-]{43}","input":/
    )
    t.ok(sent.includes('"seed":12345678901234567890}'), 'numbers survive')
    t.ok(JSON.parse(sent).callback_url.startsWith(publicUrl))

    const events = await listenTo(taskId, { token })
    await until('the first state', () => events.events.length === 1)
    const before = polls()
    await passUntilCalled(taskMs, 1)
    t.match(sandbox.callbacks, [{ status: 200 }], 'taken with a 200, and not sent again')
    await hasEnded(token, taskId, 'failed')
    await until('the last state', () => events.events.length === 2)
    t.same(statesOf(events.events), ['pending', 'failed'])
    t.ok(polls() - before <= 2, 'one question because of the callback, beside the watcher\'s own')
    const after = polls()
    t.equal((await status(token, taskId)).json.data.state, 'failed')
    t.equal(polls(), after, 'answered from the ledger')
    t.equal((await submit(token)).status, 200, 'its credit and its slot are free')
  })

t.test('a callback is worth a question before its time', async t => {
  const { submit, mint, status, pass, time, callbackPath, callBack, hasEnded, polls } = await calledBackGateway(t)
  const token = await mint('alice')
  const { taskId } = (await submit(token, 'sandbox:callback-lost')).json.data
  time.advance(taskMs - 1)
  await status(token, taskId)
  t.equal(polls(), 1)
  pass(1)
  t.match((await status(token, taskId)).json.data, { state: 'processing' }, 'for the interval has only begun')
  await callBack(callbackPath(), { code: 200, data: { taskId, state: 'success' } })
  await hasEnded(token, taskId)
  t.equal(polls(), 2)
})

t.test('a callback that is lost costs time and nothing else: the slow poll ends the task', async t => {
  const { submit, mint, pass, hasEnded, sandbox, gateway } = await calledBackGateway(t)
  const token = await mint('alice')
  const { taskId } = (await submit(token, 'sandbox:callback-lost')).json.data
  pass(120_001)
  await gateway.tidy()
  await hasEnded(token, taskId)
  t.equal(sandbox.callbacks.length, 0)
})

t.test('a callback that comes twice, or a minute late, ends the task once', async t => {
  for (const [word, ms, count] of [['callback-twice', taskMs, 2], ['callback-late', taskMs + 60_000, 1]] as const) {
    const { submit, mint, passUntilCalled, hasEnded, polls } = await calledBackGateway(t)
    const token = await mint('alice')
    const { taskId } = (await submit(token, `sandbox:${word}`)).json.data
    await passUntilCalled(ms, count)
    await hasEnded(token, taskId)
    t.equal(polls(), 1, word)
  }
})

t.test('while the gateway does not answer the upstream tries again, and the last try is not too late', async t => {
  const { submit, mint, pass, hasEnded, sandbox, origin } = await calledBackGateway(t)
  const token = await mint('alice')
  const { taskId } = (await submit(token)).json.data
  sandbox.callbacksTo = 'http://127.0.0.1:1'
  for (const [count, ms] of [taskMs, 30_000, 120_000].entries()) {
    pass(ms)
    await until(`try ${count}`, () => sandbox.callbacks.length > count)
  }
  t.match(sandbox.callbacks, [{ status: null }, { status: null }, { status: null }])
  sandbox.callbacksTo = origin
  await until('the pause before the last', () => { pass(600_000); return sandbox.callbacks.length === 4 })
  t.match(sandbox.callbacks[3], { status: 200 })
  await hasEnded(token, taskId)
})

t.test('a submit whose answer was lost gets its task from the callback', async t => {
  const config = 'plans: { default: { credits: 1, concurrentTasks: 1 } }'
  const { submit, mint, status, passUntilCalled, hasEnded, sandbox, polls, log } = await calledBackGateway(t, {
    config
  })
  const token = await mint('alice')
  t.match(await submit(token, 'sandbox:drop-after'), { status: 502, error: 'GW_OUTCOME_UNKNOWN' })
  const [taskId] = [...sandbox.tasks.keys()]
  t.equal((await status(token, taskId!)).status, 404)
  await passUntilCalled(taskMs, 1)
  await hasEnded(token, taskId!)
  t.match((await status(token, taskId!)).json.data, { taskId, state: 'success' })
  t.equal(polls(), 1)
  t.match(log.filter(({ msg }) => /named the task/.test(msg)), [{ taskId }])
  t.equal((await submit(token)).error, 'GW_CREDITS_EXHAUSTED', 'it is charged once, and stays so')
})

t.test(
  'a callback that overtakes the answer of its submit claims the task, and the submit ends as it should',
  async t => {
    const { submit, mint, call, pass, listed, sandbox } = await calledBackGateway(t)
    const token = await mint('alice')
    const answer = submit(token, 'sandbox:slow-headers', 'nano-banana', { headers: { 'idempotency-key': 'once' } })
    await until('the upstream to have it', () => sandbox.waiting === 1)
    const [taskId] = [...sandbox.tasks.keys()]
    pass(taskMs)
    await until('the callback', async () => (await listed(token, taskId!)) === 'success')
    sandbox.release()
    t.match(await answer, { status: 200, json: { data: { taskId } } })
    t.match((await call('/gateway/tasks', { token })).json.tasks, [{ taskId, state: 'success' }])
  }
)

t.test(
  'a second try with another key has the same secret, and the callback asks with the key that made it',
  async t => {
    const { submit, mint, passUntilCalled, hasEnded, sandbox } = await calledBackGateway(t, {
      keys: ['apixo-key-number-one', 'apixo-key-number-two']
    })
    const token = await mint('alice')
    sandbox.revoke('apixo-key-number-one')
    const { taskId } = (await submit(token)).json.data
    const urls = sandbox.submits.map(({ body }) => JSON.parse(body.toString()).callback_url)
    t.equal(urls.length, 2)
    t.equal(urls[0], urls[1])
    await passUntilCalled(taskMs, 1)
    await hasEnded(token, taskId)
  }
)

t.test('each task has a secret of its own', async t => {
  const { submit, mint, callbackPath } = await calledBackGateway(t)
  const token = await mint('alice')
  const paths = new Set<string>()
  for (let count = 0; count < 20; count++) {
    await submit(token)
    paths.add(callbackPath())
  }
  t.equal(paths.size, 20)
})
