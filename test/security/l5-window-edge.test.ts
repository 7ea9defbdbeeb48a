import t from 'tap'
import { startGateway } from '../helpers/gateway.ts'
import { rawHttp, rawRequest } from '../helpers/raw-http.ts'

const minuteMs = 60_000
const limit = 6
const config = `plans: { default: { requestsPerMinute: ${limit}, pollsPerMinute: ${limit}, concurrentTasks: 1000, credits: unlimited } }\nlimits: { addressRequestsPerMinute: 100000, addressFailuresPerMinute: 100000 }`

/** The most passes within any minute. */
function densest (passes: readonly number[]): number {
  return Math.max(...passes.map(start => passes.filter(at => at >= start && at < start + minuteMs).length))
}

for (const kind of ['submit', 'status'] as const) {
  t.test(`at the edge of a window at most twice the limit passes in any minute: ${kind}`, async t => {
    const { submit, status, mint, sandbox, time } = await startGateway(t, { config })
    const tokens = [await mint('alice', { ttlSeconds: 100_000 }), await mint('alice', { ttlSeconds: 100_000 })]
    const { taskId } = (await submit(await mint('alice'))).json.data
    time.advance(2 * minuteMs)
    const passes: number[] = []
    const ask = async (index: number) => {
      const token = tokens[index % 2]!
      const reply = await (kind === 'submit' ? submit(token) : status(token, taskId))
      if (reply.status === 200) passes.push(time.elapsed())
      else t.match(reply, { status: 429, error: 'GW_RATE_LIMITED' })
      return reply
    }
    // One early request opens the window, the rest come just before its end, and the next ones just after it.
    await ask(0)
    time.advance(minuteMs - 10)
    for (let index = 0; index < 2 * limit; index++) await ask(index)
    time.advance(20)
    for (let index = 0; index < 2 * limit; index++) await ask(index)
    t.equal(passes.length, 2 * limit)
    // And a steady stream after that.
    for (let index = 0; index < 60; index++) {
      time.advance(5000)
      await ask(index)
    }
    t.ok(densest(passes) <= 2 * limit, `${densest(passes)} in a minute`)
    if (kind === 'submit') t.equal(sandbox.submits.length, passes.length + 1)
  })
}

t.test('what is refused says when to come back, and then it passes', async t => {
  const { submit, mint, sandbox, time } = await startGateway(t, { config })
  const token = await mint('alice')
  for (let index = 0; index < limit; index++) t.equal((await submit(token)).status, 200)
  time.advance(1000)
  const refused = await submit(token)
  t.equal(refused.error, 'GW_RATE_LIMITED')
  const waitMs = Number(refused.headers.get('retry-after')) * 1000
  t.ok(waitMs > 0 && waitMs <= minuteMs)
  t.equal(sandbox.submits.length, limit)
  time.advance(waitMs)
  t.equal((await submit(token)).status, 200)
})

t.test('the limit is the subject\'s: a new session brings no new budget, another subject has its own', async t => {
  const { submit, mint, sandbox } = await startGateway(t, { config })
  for (let index = 0; index < limit; index++) await submit(await mint('alice'))
  t.equal((await submit(await mint('alice'))).error, 'GW_RATE_LIMITED')
  t.equal((await submit(await mint('bob'))).status, 200)
  t.equal(sandbox.submits.length, limit + 1)
})

t.test('a burst of 100 in one moment passes the limit and no more', async t => {
  const { submit, mint, sandbox } = await startGateway(t, { config })
  const token = await mint('alice')
  const replies = await Promise.all(Array.from({ length: 100 }, () => submit(token)))
  t.equal(replies.filter(reply => reply.status === 200).length, limit)
  t.equal(sandbox.submits.length, limit)
})

t.test('requests that arrive in one piece count one by one: as many pass as the address has left', async t => {
  const { origin } = await startGateway(t, {
    config: 'plans: { default: {} }\nlimits: { addressRequestsPerMinute: 3 }'
  })
  const { text } = await rawHttp(
    t,
    origin,
    'GET /gateway/ HTTP/1.1\r\nhost: a\r\n\r\n'.repeat(4) + rawRequest('GET /gateway/')
  )
  t.same(text.match(/(?<=HTTP\/1\.1 )\d+/g), ['200', '200', '200', '429', '429'])
})
