import t from 'tap'
import { crankedGateway, intervalMs, statesOf } from '../helpers/cranked-gateway.ts'
import { taskMs } from '../helpers/gateway.ts'
import { until } from '../helpers/until.ts'

const roomy =
  'plans: { default: { pollsPerMinute: 100000 } }\nlimits: { streamsPerSubject: 1000, addressRequestsPerMinute: 100000 }'

t.test('a thousand watchers of a running task, streams and pollers, cost one upstream call an interval', async t => {
  const { mint, made, listenTo, listen, status, pass, polls, sandbox } = await crankedGateway(t, { config: roomy })
  const token = await mint('alice')
  const taskId = await made(token)
  const streams = await Promise.all(Array.from({ length: 400 }, (_, index) =>
    index % 2 === 0 ? listenTo(taskId, { token }) : listen('/gateway/events', { token })))
  const poll = async (state: string): Promise<void> => {
    const answers = await Promise.all(Array.from({ length: 300 }, () => status(token, taskId)))
    t.strictSame(
      [...new Set(answers.map(({ status, json }) => `${status} ${json.data?.state ?? json.message}`))],
      [`200 ${state}`]
    )
  }
  const tell = (count: number): Promise<void> =>
    until('all have heard', () => streams.every(({ events }) => events.length === count))

  await poll('pending')
  await tell(1)
  await poll('pending')
  t.equal(polls(), 1)
  pass(intervalMs - 1)
  await poll('pending')
  t.equal(polls(), 1)
  pass(1)
  await Promise.all([poll('processing'), tell(2)])
  t.equal(polls(), 2)
  pass(taskMs)
  await Promise.all([poll('success'), tell(3)])
  await poll('success')
  t.equal(polls(), 3, 'and the end is the ledger\'s')
  for (const { events } of streams) t.strictSame(statesOf(events), ['pending', 'processing', 'success'])
  t.equal(sandbox.submits.length, 1)
})

t.test('who asks too early gets the last answer and is told when to come again, in whole seconds', async t => {
  const { mint, made, status, polls, pass, sandbox } = await crankedGateway(t)
  const token = await mint('alice')
  const taskId = await made(token, 'sandbox:forever')
  const first = await status(token, taskId)
  t.equal(first.headers.get('retry-after'), null, 'the first call always asks')
  for (const [passedMs, seconds] of [[0, '5'], [1, '5'], [1000, '4'], [3998, '1']] as const) {
    pass(passedMs)
    const early = await status(token, taskId)
    t.match(early, { status: 200, text: first.text, error: null })
    t.equal(early.headers.get('retry-after'), seconds)
    t.equal(early.headers.get('cache-control'), 'no-store')
    t.equal(early.headers.get('content-type'), first.headers.get('content-type'))
  }
  t.equal(polls(), 1)
  pass(1)
  t.equal((await status(token, taskId)).headers.get('retry-after'), null)
  t.equal(polls(), 2)
  sandbox.next((_request, response) => {
    response.writeHead(500, { 'content-type': 'application/json' }).end('{"code":500,"message":"no"}')
  })
  pass(intervalMs)
  t.equal((await status(token, taskId)).status, 500)
  t.equal((await status(token, taskId)).status, 200, 'trouble is not kept')
  t.equal(polls(), 4)
})

t.test('polling takes nothing from the budget of submits', async t => {
  const { mint, made, status, submit } = await crankedGateway(t, {
    config: 'plans: { default: { requestsPerMinute: 2, pollsPerMinute: 50 } }'
  })
  const token = await mint('alice')
  const taskId = await made(token)
  for (let count = 0; count < 50; count++) t.equal((await status(token, taskId)).status, 200)
  t.match(await status(token, taskId), { status: 429, error: 'GW_RATE_LIMITED' })
  t.equal((await submit(token)).status, 200)
})

t.test('the shared call goes on while one of those who wait is there, and ends with the last', async t => {
  const { mint, made, status, sandbox, lines } = await crankedGateway(t)
  const token = await mint('alice')
  const taskId = await made(token, 'sandbox:status-slow-headers')
  const callers = [new AbortController(), new AbortController()]
  const answers = callers.map(({ signal }) => status(token, taskId, 'nano-banana', { signal }))
  await until('the upstream has it', () => sandbox.waiting === 1)
  callers[0]!.abort()
  await t.rejects(answers[0]!)
  await until('its line is written', () => lines().some(line => line.operation === 'statusTask'))
  sandbox.release()
  t.equal((await answers[1]!).status, 200)
})
