import { DatabaseSync } from 'node:sqlite'
import t from 'tap'
import { patienceWithCallersMs } from '../../src/domain/maintenance.ts'
import { startGateway } from '../helpers/gateway.ts'
import { storeFile } from '../helpers/store-file.ts'
import { until } from '../helpers/until.ts'

t.test('a task that nobody polls is ended in the background, and makes room', async t => {
  const { gateway, mint, submit, call, sandbox, time } = await startGateway(t, {
    config: 'plans: { default: { concurrentTasks: 1 } }'
  })
  const token = await mint('alice')
  const unfinished = async () => (await call('/gateway/session', { token })).json.tasks.unfinished
  t.equal((await submit(token)).status, 200)
  time.advance(patienceWithCallersMs - 1)
  await gateway.tidy()
  t.equal(sandbox.calls.length, 1, 'callers come first')
  t.equal(await unfinished(), 1)
  time.advance(1)
  await gateway.tidy()
  t.equal(sandbox.calls.length, 2)
  t.equal(await unfinished(), 0)
  t.equal((await submit(token)).status, 200)
})

t.test('a task that failed unseen gives its credits back', async t => {
  const { gateway, mint, submit, time } = await startGateway(t, { config: 'plans: { default: { credits: 1 } }' })
  const token = await mint('alice')
  t.equal((await submit(token, 'sandbox:failed')).status, 200)
  t.match(await submit(token), { error: 'GW_CREDITS_EXHAUSTED' })
  time.advance(patienceWithCallersMs)
  await gateway.tidy()
  t.equal((await submit(token)).status, 200)
})

t.test('a few tasks a round, all of them in turn, and a bad answer ends none', async t => {
  const { gateway, mint, submit, sandbox, time } = await startGateway(t)
  const token = await mint('alice')
  for (let count = 0; count < 6; count++) await submit(token, 'sandbox:forever')
  await submit(token, 'sandbox:status-drop')
  await submit(token, 'sandbox:status-html-502')
  await submit(token, 'sandbox:status-echo-key')
  time.advance(patienceWithCallersMs)
  const asked = async () => {
    time.advance(60_000) // it is everybody's turn again
    const before = sandbox.calls.length
    await gateway.tidy()
    return sandbox.calls.length - before
  }
  t.equal(await asked(), 5)
  t.equal(await asked(), 4)
  t.equal(await asked(), 5, 'and over again')
})

t.test('rounds do not overlap', async t => {
  const { gateway } = await startGateway(t)
  const first = gateway.tidy()
  t.equal(gateway.tidy(), first)
  await first
  t.not(gateway.tidy(), first)
})

t.test('a task that never ends is given up: charged, its slot free, and the operator told', async t => {
  const { gateway, mint, submit, status, time, log } = await startGateway(t, {
    config:
      'plans: { default: { concurrentTasks: 1, credits: 2, period: month } }\nsessions: { defaultTtlSeconds: 600000 }'
  })
  const token = await mint('alice')
  const { taskId } = (await submit(token, 'sandbox:forever')).json.data
  time.advance(86_400_000)
  await gateway.tidy()
  t.match(log.find(line => line.alarm === 'unknown-outcome'), { count: 1 })
  t.equal((await status(token, taskId)).json.data.state, 'pending', 'its owner may still ask')
  t.equal((await submit(token)).status, 200)
  t.match(await submit(token), { error: 'GW_TOO_MANY_TASKS' })
})

t.test('a task of a key that has left the ring is asked about with the keys that are there', async t => {
  const store = storeFile(t)
  const { gateway, mint, submit, time } = await startGateway(t, { store })
  await submit(await mint('alice'))
  await gateway.close()
  const other = await startGateway(t, { store, keys: ['another-key-of-the-operator'], time })
  time.advance(patienceWithCallersMs)
  await other.gateway.tidy()
  t.same(other.sandbox.calls.map(({ url }) => url.split('?')[0]), ['/api/v1/statusTask/nano-banana'])
})

t.test('it runs by itself, and goes on after it has failed', async t => {
  const store = storeFile(t)
  const { mint, submit, sandbox, time, log } = await startGateway(t, { store, tidyEveryMs: 5 })
  await submit(await mint('alice'), 'sandbox:forever')
  time.advance(patienceWithCallersMs)
  await until('it has asked a few times', () => {
    time.advance(60_000)
    return sandbox.calls.length >= 3
  })
  const other = new DatabaseSync(store)
  t.teardown(() => other.close())
  other.exec('ALTER TABLE tasks RENAME TO elsewhere')
  await until(
    'it has failed twice',
    () => log.filter(line => line.msg === 'housekeeping failed; it is tried again').length >= 2
  )
  other.exec('ALTER TABLE elsewhere RENAME TO tasks')
  const asked = sandbox.calls.length
  await until('it asks again', () => {
    time.advance(60_000)
    return sandbox.calls.length > asked
  })
  other.exec('ALTER TABLE tasks RENAME TO elsewhere') // and the last round, at the stop, is no reason not to stop
})
