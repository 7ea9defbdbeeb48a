import type { ServerResponse } from 'node:http'
import t, { type Test } from 'tap'
import { apiKey, startGateway, taskMs, type TestGateway, type TestGatewayOptions } from '../helpers/gateway.ts'
import { redisServer } from '../helpers/redis-server.ts'
import { secretFiles } from '../helpers/secret-files.ts'
import { storeFile } from '../helpers/store-file.ts'
import { until } from '../helpers/until.ts'

const nextKey = 'apixo-key-of-the-operator-0002'
const thirdKey = 'apixo-key-of-the-operator-0003'
const allKeys = [apiKey, nextKey, thirdKey]
const config =
  'plans: { default: { concurrentTasks: 1, pollsPerMinute: 100000, requestsPerMinute: 10000, credits: 10 } }'
const tenMinutes = 600_000
const intervalMs = 5000

/**
 * A gateway that has made a task and was stopped; those that come after it have other keys, and the same ledger and
 * upstream.
 */
async function afterRestart (t: Test, more: TestGatewayOptions = {}) {
  const store = storeFile(t)
  const first = await startGateway(t, { config, store, keys: [apiKey], sandbox: { keys: allKeys }, ...more })
  const token = await first.mint('alice')
  const { taskId } = (await first.submit(token)).json.data as { taskId: string }
  await first.gateway.close()
  const start = (keys: readonly string[]): Promise<TestGateway> =>
    startGateway(t, { config, store, time: first.time, upstream: first.sandbox, ...more, keys })
  const { sandbox, time } = first
  const asked = () => sandbox.calls.filter(({ url }) => url.includes('/statusTask/'))
  const probes = () => sandbox.calls.filter(({ url }) => url.endsWith('/current-balance')).length
  /** The next status call is answered so. */
  const say = (status: number, body: object | string) =>
    sandbox.next((_request, response: ServerResponse) => {
      response
        .writeHead(status, { 'content-type': 'application/json' })
        .end(typeof body === 'string' ? body : JSON.stringify(body))
    })
  const success = { code: 200, message: 'success', data: { taskId, state: 'success', resultJson: '{}' } }
  return { start, token, taskId, sandbox, time, asked, probes, say, success }
}

t.test(
  'after a restart with another key its tasks are asked about with that, and given up when it has not known them twice',
  async t => {
    const { start, token, taskId, sandbox, time, asked, probes } = await afterRestart(t)
    const { status, submit, call, gateway, log } = await start([nextKey])
    await until('the start says so', () => log.some(line => line.alarm === 'key-gone'))
    t.match(
      log.filter(line => line.alarm === 'key-gone'),
      [{ level: 40, count: 1, keyId: /^[0-9a-f]{8}$/ }]
    )
    t.match(await status(token, taskId), { status: 503, error: 'GW_NO_KEY' })
    t.equal(asked().length, 1)
    t.ok(asked()[0]!.rawHeaders.includes(`Bearer ${nextKey}`))
    for (let count = 0; count < 3; count++) t.match(await status(token, taskId), { status: 503, error: 'GW_NO_KEY' })
    t.equal(asked().length, 1, 'not before its interval is over')
    time.advance(tenMinutes - 1)
    await gateway.tidy()
    t.equal(asked().length, 2)
    t.match((await call('/gateway/session', { token })).json.tasks, { unfinished: 1 }, 'not yet ten minutes')
    time.advance(intervalMs)
    await gateway.tidy()
    t.equal(asked().length, 3)
    t.match(
      log.filter(line => line.alarm === 'unknown-outcome'),
      [{ level: 50, taskId, keyId: /./ }]
    )
    t.match(
      (await call('/gateway/session', { token })).json,
      { tasks: { unfinished: 0 }, credits: { used: 1 } },
      'its slot is free, its charge stays'
    )
    t.match((await call('/gateway/tasks', { token })).json.tasks, [
      { taskId, state: 'unknown', credits: 1, refunded: false }
    ])
    const ended = await status(token, taskId)
    t.match(ended, { status: 502, error: 'GW_OUTCOME_UNKNOWN' })
    t.equal(ended.headers.get('x-should-retry'), 'false')
    t.equal((await submit(token)).status, 200)
    t.equal(probes(), 0, 'no doubt was cast on the key')
    t.equal(sandbox.submits.length, 2)
    await gateway.close()

    const back = await start([nextKey, apiKey])
    await back.gateway.tidy()
    t.equal((await back.status(token, taskId)).json.data.state, 'success', 'the key is back, and knows it')
    t.match((await back.call('/gateway/tasks', { token })).json.tasks, [{}, { taskId, state: 'success' }])
  })

t.test('when the key is back, its tasks are asked about and settled though nobody polls them', async t => {
  const { start, taskId, time, token } = await afterRestart(t)
  const without = await start([nextKey])
  for (let count = 0; count < 2; count++) {
    time.advance(tenMinutes)
    await without.gateway.tidy()
  }
  t.match((await without.call('/gateway/tasks', { token })).json.tasks, [{ state: 'unknown' }])
  await without.gateway.close()
  const back = await start([apiKey])
  await back.gateway.tidy()
  t.match((await back.call('/gateway/tasks', { token })).json.tasks, [{ taskId, state: 'success' }])
  t.same(back.log.filter(line => line.alarm === 'key-gone'), [])
})

t.test('another key of the same account knows the task, and that is told; nothing but its own id counts', async t => {
  const { start, token, taskId, time, asked, say, success } = await afterRestart(t)
  const { status, submit } = await start([nextKey])
  const { data } = success
  for (const [what, body] of [
    ['another task', { ...success, data: { ...data, taskId: 'another' } }],
    ['no task id', { ...success, data: { state: 'success', resultJson: '{}' } }],
    ['no state', { ...success, data: { taskId } }],
    ['no JSON', 'success'],
    ['the key', { ...success, message: nextKey }]
  ] as const) {
    say(200, body)
    const reply = await status(token, taskId)
    t.match(reply, { status: 503, error: 'GW_NO_KEY' }, what)
    t.notMatch(reply.text, nextKey)
    time.advance(intervalMs)
  }
  t.match(await submit(token), { status: 429, error: 'GW_TOO_MANY_TASKS' })
  time.advance(intervalMs)
  say(200, success)
  t.equal((await status(token, taskId)).text, JSON.stringify(success))
  t.equal((await status(token, taskId)).text, JSON.stringify(success), 'from the ledger')
  t.equal(asked().length, 7)
  t.equal((await submit(token)).status, 200)
})

t.test('all ready keys are asked in turn, and what they answer casts no doubt on them', async t => {
  const { start, token, taskId, time, asked, probes, say, success } = await afterRestart(t)
  const { status, submit, log } = await start([nextKey, thirdKey])
  for (const code of [401, 403, 404]) {
    for (const status of [code, 200]) say(status, { code, message: 'no', data: null })
    t.match(await status(token, taskId), { status: 503, error: 'GW_NO_KEY' })
    time.advance(intervalMs)
  }
  t.equal(asked().length, 6)
  say(404, { code: 404, message: 'Task not found', data: null })
  say(200, success)
  t.equal((await status(token, taskId)).json.data.state, 'success')
  t.equal(probes(), 0)
  t.same(log.filter(line => line.alarm === 'key-benched'), [])
  for (let count = 0; count < 2; count++) t.equal((await submit(token)).status === 503, false)
})

t.test('an upstream that can not say how a task is does not end it', async t => {
  const { start, token, taskId, time, say, sandbox } = await afterRestart(t)
  const { status, call } = await start([nextKey])
  t.match(await status(token, taskId), { status: 503, error: 'GW_NO_KEY' })
  for (const answer of [
    () => say(500, { code: 500, message: 'no', data: null }),
    () => say(429, { code: 429, message: 'no', data: null }),
    () => say(302, ''),
    () => sandbox.next((_request, response) => { response.destroy() })
  ]) {
    time.advance(tenMinutes)
    answer()
    t.match(await status(token, taskId), { status: 503, error: 'GW_NO_KEY' })
  }
  t.match((await call('/gateway/session', { token })).json.tasks, { unfinished: 1 })
})

t.test('a submit that goes on with such a task is made by no other account', async t => {
  const { start, token, taskId, sandbox } = await afterRestart(t, {
    config: config.replace('concurrentTasks: 1', 'concurrentTasks: 9')
  })
  const { call } = await start([nextKey])
  const before = sandbox.calls.length
  t.match(
    await call('/api/v1/generateTask/nano-banana', { token, body: { input: { prompt: 'again', task_id: taskId } } }),
    { status: 503, error: 'GW_NO_KEY' }
  )
  t.equal(sandbox.calls.length, before)
})

t.test('a key that another replica holds is not gone; when that replica is, it is', async t => {
  const redis = await redisServer(t)
  const shared = { config, env: { GATEWAY_STORE: redis.url } }
  const first = await startGateway(t, { ...shared, keys: [apiKey], sandbox: { keys: allKeys } })
  const second = await startGateway(t, { ...shared, time: first.time, upstream: first.sandbox, keys: [nextKey] })
  const token = await first.mint('alice')
  const { taskId } = (await first.submit(token)).json.data
  const asked = () => first.sandbox.calls.filter(({ url }) => url.includes('/statusTask/')).length
  t.match(await second.status(token, taskId), { status: 503, error: 'GW_NO_KEY' })
  t.equal(asked(), 0)
  first.time.advance(taskMs)
  t.equal((await first.status(token, taskId)).json.data.state, 'success')
  t.equal(asked(), 1)

  const other = await first.mint('bob')
  const lost = (await first.submit(other)).json.data.taskId
  await first.gateway.close()
  const names = await redis.admin.keys('*held-key*')
  t.equal(names.length, 2)
  for (const name of names) t.ok(await redis.admin.pttl(name) > 0, 'it goes by itself')
  await redis.admin.del(names)
  await second.gateway.tidy()
  t.equal((await redis.admin.keys('*held-key*')).length, 1, 'the one that lives says so again')
  for (let count = 0; count < 2; count++) {
    first.time.advance(tenMinutes)
    t.not((await second.status(other, lost)).status, 200)
  }
  t.match((await second.call('/gateway/tasks', { token: other })).json.tasks, [{ taskId: lost, state: 'unknown' }])
  t.equal((await second.submit(other)).status, 200)

  const third = await startGateway(t, { ...shared, time: first.time, upstream: first.sandbox, keys: [apiKey] })
  t.equal((await third.status(other, lost)).json.data.state, 'success', 'settled late')
})

t.test(
  'a key that is replaced and revoked at once: its tasks are asked about with the next one, and their slots come free',
  async t => {
    const files = secretFiles(t, { APIXO_API_KEY: apiKey })
    const { mint, submit, status, sandbox, time, log } = await startGateway(t, {
      config,
      keys: [],
      env: files.env,
      sandbox: { keys: allKeys }
    })
    const token = await mint('alice')
    const { taskId } = (await submit(token)).json.data
    files.rotate('APIXO_API_KEY', nextKey)
    await until('the keys are read', () => log.some(line => line.setting === 'APIXO_API_KEY'))
    t.match(await status(token, taskId), { status: 200 }, 'it drains')
    sandbox.revoke(apiKey)
    time.advance(intervalMs)
    t.match(await status(token, taskId), { status: 502, error: 'GW_UPSTREAM_REFUSED_KEY' })
    const bearers = sandbox.calls
      .filter(({ url }) => url.includes('/statusTask/'))
      .map(({ rawHeaders }) => rawHeaders.find(value => value.startsWith('Bearer ')))
    t.same(
      bearers,
      [apiKey, apiKey, nextKey].map(key => `Bearer ${key}`)
    )
    time.advance(tenMinutes)
    t.match(await status(token, taskId), { status: 502, error: 'GW_OUTCOME_UNKNOWN' })
    t.match(
      log.filter(line => line.alarm === 'unknown-outcome'),
      [{ taskId }]
    )
    t.equal((await submit(token)).status, 200)
    sandbox.restore(apiKey)
    time.advance(tenMinutes)
    t.equal((await status(token, taskId)).json.data.state, 'success', 'it is restored, and knows its task')
  }
)
