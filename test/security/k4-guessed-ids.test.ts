import { randomBytes } from 'node:crypto'
import t from 'tap'
import { startGateway, taskMs, type Reply } from '../helpers/gateway.ts'

/** All that tells one answer from another, but for the clock, the request's id, and what is left of a budget. */
function seen ({ status, headers, text, json }: Reply): string {
  const rest = [...headers].filter(
    ([name]) => name !== 'date' && name !== 'x-request-id' && !name.startsWith('ratelimit')
  )
  return JSON.stringify([status, rest, text.replace(json.error.requestId, '')]).replace(/"content-length","\d+"/, '')
}

t.test("every id that is not the caller's own gets the same answer, whatever it looks like", async t => {
  const { submit, status, mint, sandbox, time } = await startGateway(t, {
    config: 'plans: { default: {} }\nlimits: { addressFailuresPerMinute: 10000 }'
  })
  const [alice, mallory] = [await mint('alice'), await mint('mallory')]
  const { taskId } = (await submit(alice)).json.data
  const ended = (await submit(alice)).json.data.taskId
  time.advance(taskMs)
  await status(alice, ended)
  await submit(alice, 'sandbox:drop-after')
  const lost = [...sandbox.tasks.keys()].at(-1)!
  const calls = sandbox.calls.length
  const ids = [
    taskId,
    ended,
    lost,
    randomBytes(16).toString('hex'),
    taskId.slice(0, -1),
    `${taskId}0`,
    taskId.toUpperCase(),
    '1',
    '0',
    '-1',
    '1e9',
    'task_1',
    'null',
    'undefined',
    'true',
    '[]',
    '../x',
    '%',
    'x'.repeat(256),
    'x'.repeat(257),
    'x'.repeat(8000),
    '😀',
    ' ',
    '\t',
    '\0',
    "'"
  ]
  const answers = new Set<string>()
  for (const id of ids) answers.add(seen(await status(mallory, id)))
  t.equal(answers.size, 1)
  t.match([...answers][0]!, /^\[404,.*GW_TASK_NOT_FOUND/)
  t.equal(sandbox.calls.length, calls, 'the upstream is never asked')
})

t.test('guessing is throttled per address, whatever the session', async t => {
  const { status, mint, sandbox } = await startGateway(t, {
    config: 'plans: { default: {} }\nlimits: { addressFailuresPerMinute: 20 }'
  })
  const tokens = await Promise.all(Array.from({ length: 10 }, (_, index) => mint(`mallory-${index}`)))
  const errors: Array<string | null> = []
  for (let count = 0; count < 60; count++) {
    errors.push((await status(tokens[count % 10]!, randomBytes(16).toString('hex'))).error)
  }
  t.equal(errors.filter(error => error === 'GW_TASK_NOT_FOUND').length, 20)
  t.equal(errors.filter(error => error === 'GW_THROTTLED').length, 40)
  t.equal(sandbox.calls.length, 0)
})

t.test('guessing inside input is throttled as well, and a submit tries few ids at a time', async t => {
  const { call, mint, sandbox } = await startGateway(t, {
    config: 'plans: { default: {} }\nlimits: { addressFailuresPerMinute: 5 }'
  })
  const token = await mint('mallory')
  const guess = (ids: number) => call('/api/v1/generateTask/grok-video', {
    token, body: { input: { prompt: 'x', task_id: Array.from({ length: ids }, () => randomBytes(16).toString('hex')) } }
  })
  t.equal((await guess(1000)).error, 'GW_BAD_REQUEST')
  for (let count = 0; count < 5; count++) t.equal((await guess(50)).error, 'GW_TASK_NOT_FOUND')
  t.equal((await guess(1)).error, 'GW_THROTTLED')
  t.equal(sandbox.calls.length, 0)
})

t.test('the log of a miss has no id in it: what was guessed is nobody\'s task', async t => {
  const { status, mint, lines } = await startGateway(t)
  const id = randomBytes(16).toString('hex')
  await status(await mint('mallory'), id)
  t.notMatch(JSON.stringify(lines()), id)
})

t.test('guessing is throttled per session, from wherever: it uses up the polls', async t => {
  const { status, submit, mint, sandbox } = await startGateway(t, {
    config: 'plans: { default: { pollsPerMinute: 3 } }'
  })
  const mallory = await mint('mallory')
  const id = () => randomBytes(16).toString('hex')
  t.equal((await status(mallory, id())).error, 'GW_TASK_NOT_FOUND')
  t.equal(
    (await submit(mallory, 'x', 'nano-banana', { body: { input: { prompt: 'x', task_id: id() } } })).error,
    'GW_TASK_NOT_FOUND'
  )
  t.equal((await status(mallory, id())).error, 'GW_TASK_NOT_FOUND')
  t.match(await status(mallory, id()), { status: 429, error: 'GW_RATE_LIMITED' })
  t.equal(sandbox.calls.length, 0)
})
