import t from 'tap'
import { startGateway } from '../helpers/gateway.ts'

const config = 'plans: { default: { concurrentTasks: 1, credits: 2 } }\nupstream: { headersMs: 300, bodyIdleMs: 300 }'

/** Each of these leaves it open whether a task was made. */
const lost = [
  'drop-after', 'drop-before', 'cut-body', 'html-200', 'html-502', 'json-502', 'json-504', 'no-task-id', 'endless-body',
  'redirect-302', 'redirect-307', 'redirect-308', 'slow-headers', 'slow-body'
]

for (const name of lost) {
  t.test(`a submit whose answer is lost is never sent again, stays charged, and frees its slot: ${name}`, async t => {
    const { submit, mint, sandbox, log } = await startGateway(t, { config })
    const token = await mint('alice')
    const reply = await submit(token, `sandbox:${name}`)
    t.match(reply, { status: 502, error: 'GW_OUTCOME_UNKNOWN' })
    t.equal(reply.headers.get('x-should-retry'), 'false')
    t.equal(reply.headers.get('location'), null)
    t.equal(sandbox.submits.length, 1, 'sent once')
    t.match(log.filter(line => line.alarm === 'unknown-outcome'), [{ level: 50 }], 'the operator is told')

    t.equal((await submit(token)).status, 200, 'its slot is free')
    t.equal((await submit(token)).error, 'GW_TOO_MANY_TASKS')
    t.equal(sandbox.submits.length, 2)
  })
}

t.test('the charge of a lost submit is kept', async t => {
  const { submit, mint, sandbox } = await startGateway(t, {
    config: config.replace('concurrentTasks: 1', 'concurrentTasks: 9')
  })
  const token = await mint('alice')
  await submit(token, 'sandbox:drop-after')
  t.equal((await submit(token)).status, 200)
  t.equal((await submit(token)).error, 'GW_CREDITS_EXHAUSTED')
  t.equal(sandbox.submits.length, 2)
})

t.test('a second key is no reason to send a lost submit again', async t => {
  const { submit, mint, sandbox } = await startGateway(t, {
    config,
    keys: ['apixo-key-number-one', 'apixo-key-number-two']
  })
  t.equal((await submit(await mint('alice'), 'sandbox:drop-after')).error, 'GW_OUTCOME_UNKNOWN')
  t.equal(sandbox.calls.length, 1)
})

t.test('an upstream that nobody listens at was sent nothing, and nothing is charged', async t => {
  const { submit, mint, sandbox } = await startGateway(t, { config })
  const token = await mint('alice')
  await sandbox.close()
  for (let round = 0; round < 5; round++) {
    t.match(
      await submit(token),
      { status: 502, error: 'GW_UPSTREAM_UNREACHABLE' },
      'neither slot nor credits are spent'
    )
  }
})
