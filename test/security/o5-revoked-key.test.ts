import t from 'tap'
import { startGateway, taskMs } from '../helpers/gateway.ts'

const keys = ['apixo-key-number-one', 'apixo-key-number-two'] as const
const config = 'plans: { default: { credits: unlimited, concurrentTasks: 1000, requestsPerMinute: 10000 } }'
const benched = (log: ReadonlyArray<Record<string, any>>) => log.filter(line => line.alarm === 'key-benched')

t.test('a revoked key is benched after one answer, the other serves, and no caller notices', async t => {
  const { submit, mint, sandbox, log } = await startGateway(t, { config, keys })
  const token = await mint('alice')
  sandbox.revoke(keys[0])
  for (let round = 0; round < 8; round++) t.equal((await submit(token)).status, 200)
  t.ok([...sandbox.tasks.values()].every(task => task.key === keys[1]))
  t.equal(sandbox.submits.length, 9, 'one submit met the revoked key and was made again with the other')
  t.match(benched(log), [{ level: 50, state: 'refused', keyId: /^[0-9a-f]{8}$/ }], 'one alarm, by fingerprint')
})

t.test('a revoked key that is restored comes back by itself', async t => {
  const { submit, mint, sandbox, time, log } = await startGateway(t, { config, keys })
  const token = await mint('alice')
  sandbox.revoke(keys[0])
  for (let round = 0; round < 2; round++) await submit(token)
  sandbox.restore(keys[0])
  time.advance(10_000)
  for (let round = 0; round < 20 && !log.some(line => line.msg === 'the key is back in use'); round++) {
    await submit(token)
  }
  t.ok(log.some(line => line.msg === 'the key is back in use'))
  await submit(token)
  await submit(token)
  t.ok([...sandbox.tasks.values()].slice(-2).some(task => task.key === keys[0]))
})

t.test('a key without money is benched, the other serves', async t => {
  const { submit, mint, sandbox, log } = await startGateway(t, { config, keys })
  const token = await mint('alice')
  const answer = (status: number, data: unknown) =>
    sandbox.next((_request, response) => {
      response
        .writeHead(status, { 'content-type': 'application/json' })
        .end(JSON.stringify({ code: status, message: 'x', data }))
    })
  answer(402, null)
  answer(200, 0)
  t.equal((await submit(token)).status, 200, 'the first says 402, its balance is zero, the second takes the task')
  t.match(benched(log), [{ level: 50, state: 'empty' }])
  for (let round = 0; round < 4; round++) t.equal((await submit(token)).status, 200)
  t.equal(new Set([...sandbox.tasks.values()].map(task => task.key)).size, 1)
})

t.test('all keys out: 503 with a time to come back, no hammering, and readiness does not depend on it', async t => {
  const { submit, mint, sandbox, call } = await startGateway(t, { config, keys })
  const token = await mint('alice')
  for (const key of keys) sandbox.revoke(key)
  t.match(await submit(token), { status: 502, error: 'GW_UPSTREAM_REFUSED_KEY' })
  const before = sandbox.calls.length
  for (let round = 0; round < 10; round++) {
    const reply = await submit(token)
    t.match(reply, { status: 503, error: 'GW_NO_KEY' })
    t.ok(Number(reply.headers.get('retry-after')) > 0)
  }
  t.equal(sandbox.calls.length, before)
  t.equal((await call('/readyz')).status, 200)
})

t.test('tasks of a benched key are still asked about with that key and no other', async t => {
  const { submit, status, mint, sandbox, time } = await startGateway(t, { config, keys })
  const token = await mint('alice')
  const { taskId } = (await submit(token)).json.data
  const { key } = sandbox.tasks.get(taskId)!
  sandbox.revoke(key)
  for (let round = 0; round < 2; round++) await submit(token)
  time.advance(taskMs)
  t.match(await status(token, taskId), { status: 502, error: 'GW_UPSTREAM_REFUSED_KEY' })
  sandbox.restore(key)
  t.equal((await status(token, taskId)).json.data.state, 'success')
  const asked = sandbox.calls.filter(({ url }) => url.includes('statusTask'))
  t.ok(asked.every(({ rawHeaders }) => rawHeaders.includes(`Bearer ${key}`)))
})

t.test('a submit that continues a task goes to that task\'s account or nowhere', async t => {
  const { submit, call, mint, sandbox } = await startGateway(t, { config, keys })
  const token = await mint('alice')
  const { taskId } = (await submit(token, 'a cube', 'grok-video')).json.data
  const { key } = sandbox.tasks.get(taskId)!
  const again = () =>
    call('/api/v1/generateTask/grok-video', { token, body: { input: { prompt: 'again', task_id: taskId } } })
  for (let round = 0; round < 3; round++) t.equal((await again()).status, 200)
  t.ok([...sandbox.tasks.values()].every(task => task.key === key))
  sandbox.revoke(key)
  const before = sandbox.submits.length
  t.match(await again(), { status: 502, error: 'GW_UPSTREAM_REFUSED_KEY' })
  t.equal(sandbox.submits.length, before + 1, 'it is not tried with a key whose account does not know the task')
})

t.test(
  "when the other key is benched, a limit that the upstream has set for one caller is not everybody's",
  async t => {
    const { mint, submit, sandbox, time } = await startGateway(t, { keys })
    const token = await mint('alice')
    sandbox.revoke(keys[1]!)
    for (let count = 0; count < 2; count++) t.equal((await submit(token)).status, 200)
    sandbox.next((_request, response) => {
      response
        .writeHead(429, { 'content-type': 'application/json', 'retry-after': '60' })
        .end('{"code":429,"message":"slow down","data":null}')
    })
    t.match(await submit(token), { status: 429, error: null })
    t.equal((await submit(await mint('bob'))).status, 200)
    sandbox.restore(keys[1]!)
    time.advance(60_000)
    t.equal((await submit(token)).status, 200)
  }
)
