import t, { type Test } from 'tap'
import { anyItems, batchesConfig, items, submitBatch } from '../helpers/batches.ts'
import { type Reply, startGateway, taskMs, type TestGatewayOptions } from '../helpers/gateway.ts'
import { until } from '../helpers/until.ts'

const tight = 'plans: { default: { requestsPerMinute: 6, concurrentTasks: 3, credits: 3 } }\nbatches: { enabled: true }'

async function start (t: Test, options: TestGatewayOptions = {}) {
  const gateway = await startGateway(t, { config: batchesConfig, ...options })
  return {
    gateway,
    token: await gateway.mint('alice', { ttlSeconds: 200_000 }),
    sandbox: gateway.sandbox,
    time: gateway.time
  }
}

const isReplay = (reply: Reply) => reply.headers.get('idempotency-replayed') === 'true'

t.test('a batch that is repeated with its key is answered with the first answer, and costs nothing', async t => {
  const { gateway, token, sandbox } = await start(t, { config: tight })
  const list = anyItems(3)
  const first = await submitBatch(gateway, token, list, { key: 'order-42' })
  t.equal(first.status, 200)
  for (const key of ['order-42', '"order-42"']) {
    const again = await submitBatch(gateway, token, list, { key })
    t.equal(again.text, first.text)
    t.ok(isReplay(again))
  }
  t.equal(sandbox.submits.length, 1)
})

t.test('a key with another body, model or route is a mistake', async t => {
  const { gateway, token, sandbox } = await start(t)
  const list = anyItems(2)
  t.equal((await submitBatch(gateway, token, list, { key: 'one' })).status, 200)
  t.equal((await submitBatch(gateway, token, anyItems(2), { key: 'one' })).error, 'GW_IDEMPOTENCY_MISMATCH')
  t.equal((await submitBatch(gateway, token, list, { key: 'one', model: 'suno' })).error, 'GW_IDEMPOTENCY_MISMATCH')
  t.equal(
    (await gateway.submit(token, 'x', 'nano-banana', { headers: { 'idempotency-key': 'one' } })).error,
    'GW_IDEMPOTENCY_MISMATCH'
  )
  t.equal(
    (await submitBatch(gateway, await gateway.mint('bob'), list, { key: 'one' })).status,
    200,
    'another subject has keys of its own'
  )
  t.equal(sandbox.submits.length, 2)
})

t.test(
  'of twenty batches with one key at a time, one is made, two wait for its answer, and the others are told to come again',
  async t => {
    for (const config of [batchesConfig, tight.replace('requestsPerMinute: 6', 'requestsPerMinute: 100')]) {
      const { gateway, token, sandbox } = await start(t, { config })
      const list = items('sandbox:slow-headers', 'x', 'y')
      const first = Array.from({ length: 20 }, () => submitBatch(gateway, token, list, { key: 'one' }))
      const told: Reply[] = []
      for (const reply of first) reply.then(value => told.push(value)).catch(() => {})
      await until('seventeen are told to come again', () => told.length === 17)
      for (const { error, headers } of told) {
        t.match({ error, wait: headers.get('retry-after') }, { error: 'GW_IDEMPOTENCY_PENDING', wait: /\d/ })
      }
      sandbox.release()
      const good = (await Promise.all(first)).filter(({ status }) => status === 200)
      t.same(good.map(isReplay).sort(), [false, true, true])
      t.ok(isReplay(await submitBatch(gateway, token, list, { key: 'one' })))
      t.equal(sandbox.submits.length, 1)
      t.equal(sandbox.tasks.size, 3)
    }
  }
)

t.test('a lasting refusal is given again, one that may pass frees the key, and so does one of our own', async t => {
  const { gateway, token, sandbox } = await start(t, {
    config: tight.replace('requestsPerMinute: 6', 'requestsPerMinute: 100')
  })
  const refused = items('sandbox:http-403', 'x')
  t.equal((await submitBatch(gateway, token, refused, { key: 'lasting' })).status, 403)
  t.match(await submitBatch(gateway, token, refused, { key: 'lasting' }), { status: 403, error: null })
  t.equal(sandbox.submits.length, 1)
  const busy = items('sandbox:http-429', 'x')
  for (let round = 0; round < 2; round++) {
    t.equal((await submitBatch(gateway, token, busy, { key: 'passing' })).status, 429)
  }
  t.equal(sandbox.submits.length, 3)
  const list = anyItems(3)
  await submitBatch(gateway, token, anyItems(1))
  t.equal((await submitBatch(gateway, token, list, { key: 'slots' })).error, 'GW_TOO_MANY_TASKS')
  t.equal(
    (await submitBatch(gateway, token, list.slice(1), { key: 'slots' })).status,
    200,
    'what was not granted left nothing'
  )
})

t.test('a batch whose outcome is unknown stays so, and is not sent again', async t => {
  const { gateway, token, sandbox } = await start(t)
  const list = items('sandbox:drop-after', 'x')
  for (let round = 0; round < 3; round++) {
    const lost = await submitBatch(gateway, token, list, { key: 'one' })
    t.equal(lost.error, 'GW_OUTCOME_UNKNOWN')
    t.equal(isReplay(lost), round > 0)
  }
  t.equal(sandbox.submits.length, 1)
})

t.test('when the gateway has forgotten a key and the upstream has not, nothing is made or paid for twice', async t => {
  const { gateway, token, sandbox, time } = await start(t, {
    config: tight.replace('requestsPerMinute: 6', 'requestsPerMinute: 100').replace('credits: 3', 'credits: 6')
  })
  const list = anyItems(3)
  const first = await submitBatch(gateway, token, list, { key: 'one' })
  time.advance(taskMs)
  for (const { taskId } of first.json.data.items) await gateway.status(token, taskId)
  time.advance(25 * 60 * 60 * 1000)
  for (let round = 0; round < 3; round++) await gateway.gateway.tidy()
  const again = await submitBatch(gateway, token, list, { key: 'one' })
  t.equal(isReplay(again), false)
  t.equal(again.json.data.batchId, first.json.data.batchId, 'the same key went upstream')
  t.equal(sandbox.tasks.size, 3)
  t.equal((await gateway.call('/api/v1/apikeys/current-balance', { token })).json.data, 6)
  t.ok(isReplay(await submitBatch(gateway, token, list, { key: 'one' })))
})

t.test('a key that is no key is a bad request', async t => {
  const { gateway, token, sandbox } = await start(t)
  for (const key of ['""', '"a', 'x'.repeat(256), 'ä']) {
    t.equal((await submitBatch(gateway, token, anyItems(1), { key })).error, 'GW_BAD_REQUEST', key)
  }
  t.equal(sandbox.calls.length, 0)
})
