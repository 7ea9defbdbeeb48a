import { once } from 'node:events'
import t from 'tap'
import { startGateway, taskMs } from '../helpers/gateway.ts'
import { until } from '../helpers/until.ts'

const count = 10
const config = `plans: { default: { credits: ${count}, concurrentTasks: 100, requestsPerMinute: 1000 } }`

for (const name of ['slow-headers', 'slow-body']) {
  t.test(`a caller who hangs up during each submit pays for each once, and owns what was made: ${name}`, async t => {
    const { submit, status, mint, sandbox, lines, time } = await startGateway(t, { config })
    const token = await mint('mallory')
    const hangUp = new AbortController()
    const submits = Array.from({ length: count }, () =>
      submit(token, `sandbox:${name}`, 'nano-banana', { signal: hangUp.signal })
    )
    await until('all submits are at the upstream', () => sandbox.waiting === count)
    hangUp.abort()
    for (const result of await Promise.allSettled(submits)) t.equal(result.status, 'rejected')
    const ended = () => lines().filter(line => line.operation === 'generateTask' && line.code === 'OK')
    t.same(ended(), [], 'no submit ends with its caller')

    sandbox.release()
    await until('all submits have ended', () => ended().length === count)
    t.ok(ended().every(line => line.status === 499 && line.granted && line.stage === 'reply'))
    t.same(new Set(ended().map(line => line.taskId)), new Set(sandbox.tasks.keys()), 'each task has been claimed')
    t.equal(sandbox.submits.length, count)

    t.equal((await submit(token)).error, 'GW_CREDITS_EXHAUSTED')
    time.advance(taskMs)
    for (const taskId of sandbox.tasks.keys()) t.equal((await status(token, taskId)).json.data.state, 'success')
  })
}

t.test('a caller who hangs up before the end of its body has sent nothing', async t => {
  const { origin, gateway, submit, mint, sandbox, lines } = await startGateway(t, {
    config: 'plans: { default: { credits: 1 } }'
  })
  const token = await mint('mallory')
  const hangUp = new AbortController()
  const body = new ReadableStream({
    start (controller) {
      controller.enqueue(new TextEncoder().encode('{"input":{"prompt":"x"}'))
    }
  })
  const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' }
  const arrived = once(gateway.app.server, 'request')
  const sent = fetch(`${origin}/api/v1/generateTask/nano-banana`, {
    method: 'POST',
    headers,
    body,
    duplex: 'half',
    signal: hangUp.signal
  } as RequestInit)
  await arrived
  hangUp.abort()
  await t.rejects(sent)
  await until('its line is written', () => lines().some(line => line.operation === 'generateTask'))
  t.equal(sandbox.submits.length, 0)
  t.equal((await submit(token)).status, 200, 'and nothing is charged')
})

t.test('a status call ends with its caller, upstream too', async t => {
  const { submit, status, mint, sandbox, lines } = await startGateway(t, { config })
  const token = await mint('alice')
  const { taskId } = (await submit(token, 'sandbox:status-slow-headers')).json.data
  const hangUp = new AbortController()
  const asked = status(token, taskId, 'nano-banana', { signal: hangUp.signal })
  await until('it is at the upstream', () => sandbox.waiting === 1)
  hangUp.abort()
  await t.rejects(asked)
  await until('its line is written', () => lines().some(line => line.operation === 'statusTask' && line.status === 499))
})
