import t from 'tap'
import { anyItems, batchesConfig, submitBatch } from '../helpers/batches.ts'
import { startGateway } from '../helpers/gateway.ts'

const config =
  'plans: { default: { credits: unlimited, concurrentTasks: 1000, requestsPerMinute: 10000, pollsPerMinute: 10000 } }\nlimits: { addressFailuresPerMinute: 10000 }'
const spent = { status: 402, error: 'GW_SESSION_SPENT', json: { message: /uses/ } }

t.test('of 50 parallel submits with a single-use token one passes, and its task can still be asked for', async t => {
  const { submit, status, call, mint, sandbox } = await startGateway(t, { config })
  const token = await mint('alice', { uses: 1 })
  const all = await Promise.all(Array.from({ length: 50 }, () => submit(token)))
  const passed = all.filter(reply => reply.status === 200)
  t.equal(passed.length, 1)
  for (const reply of all.filter(({ status }) => status !== 200)) {
    t.match(reply, spent)
    t.equal(reply.headers.get('x-should-retry'), 'false')
  }
  t.equal(sandbox.submits.length, 1)
  const { taskId } = passed[0]!.json.data
  for (let count = 0; count < 3; count++) t.equal((await status(token, taskId)).status, 200)
  t.match((await call('/gateway/session', { token })).json, { uses: { limit: 1, left: 0 } })
  t.match((await call('/gateway/tasks', { token })).json.tasks, [{ taskId }])
  t.match(await submit(await mint('alice')), { status: 200 }, 'another session of the same subject is another one')
})

t.test('what is refused, asked for again or only looked at uses nothing up', async t => {
  const { call, submit, status, mint, sandbox } = await startGateway(t, {
    config: `${config}\ncaps: { "*": { input.n: { max: 4 } } }`
  })
  const token = await mint('alice', { uses: 1, models: ['nano-banana'] })
  const path = '/api/v1/generateTask/nano-banana'
  const left = async () => (await call('/gateway/session', { token })).json.uses.left
  for (const body of [
    undefined,
    '{',
    '[]',
    {},
    { input: 7 },
    { input: {}, unknown: 1 },
    { input: { n: 5 } },
    { input: {}, callback_url: 'https://app.example' }
  ]) {
    const { status } = await call(path, { method: 'POST', token, body })
    t.ok(status === 400 || status === 403, JSON.stringify(body))
  }
  t.equal((await submit(token, 'x', 'sora-2')).status, 403)
  t.equal((await status(token, 'nobody')).status, 404)
  t.equal((await submit(token, 'sandbox:http-400')).json.code, 400, 'the upstream refuses it')
  t.equal(await left(), 1)
  const first = await submit(token, 'x', 'nano-banana', { headers: { 'idempotency-key': 'one' } })
  t.equal(first.status, 200)
  t.equal(await left(), 0)
  const again = await submit(token, 'x', 'nano-banana', { headers: { 'idempotency-key': 'one' } })
  t.equal(again.text, first.text, 'a replay asks for no use')
  t.equal(again.headers.get('idempotency-replayed'), 'true')
  t.match(await submit(token), spent)
  t.equal(sandbox.submits.length, 2)
})

t.test('a use whose outcome nobody knows is used', async t => {
  const { submit, mint } = await startGateway(t, { config })
  const token = await mint('alice', { uses: 1 })
  t.match(await submit(token, 'sandbox:drop-after'), { error: 'GW_OUTCOME_UNKNOWN' })
  t.match(await submit(token), spent)
})

t.test('when the subject lacks something, the session loses nothing', async t => {
  const { submit, mint, call } = await startGateway(t, {
    config: 'plans: { default: { credits: 1, concurrentTasks: 1000 } }'
  })
  const token = await mint('alice', { uses: 5 })
  await submit(await mint('alice'))
  t.match(await submit(token), { status: 402, error: 'GW_CREDITS_EXHAUSTED' })
  t.match((await call('/gateway/session', { token })).json, { uses: { limit: 5, left: 5 } })
})

t.test('a session spends its own credits and no more, whatever its subject has', async t => {
  const { submit, mint, call } = await startGateway(t, { config: `${config}\nprices: { "*": 0.7 }` })
  const token = await mint('alice', { credits: 1.5 })
  const all = await Promise.all(Array.from({ length: 20 }, () => submit(token)))
  t.equal(all.filter(({ status }) => status === 200).length, 2)
  for (const reply of all.filter(({ status }) => status !== 200)) {
    t.match(reply, { status: 402, error: 'GW_CREDITS_EXHAUSTED' })
    t.equal(reply.headers.get('x-should-retry'), 'false')
  }
  t.match((await call('/gateway/session', { token })).json, {
    credits: { used: 1.4, session: { limit: 1.5, used: 1.4, left: 0.1 } },
    uses: null
  })
  t.match((await call('/gateway/session', { token: await mint('alice') })).json, {
    credits: { used: 1.4, session: null },
    uses: null
  })
})

t.test('a batch takes a use for each of its items, all of them or none', async t => {
  const gateway = await startGateway(t, { config: batchesConfig })
  const { call, mint, sandbox } = gateway
  const token = await mint('alice', { uses: 5 })
  const batch = (size: number) => submitBatch(gateway, token, anyItems(size))
  const left = async () => (await call('/gateway/session', { token })).json.uses.left
  t.match(await batch(6), spent)
  t.equal(await left(), 5)
  t.equal((await batch(3)).status, 200)
  t.equal(await left(), 2)
  t.match(await batch(3), spent)
  t.equal(await left(), 2)
  t.equal(sandbox.calls.length, 1)
})
