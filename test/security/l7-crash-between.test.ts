import t from 'tap'
import { createGateway } from '../../src/gateway.ts'
import { startGateway, taskMs } from '../helpers/gateway.ts'
import { until } from '../helpers/until.ts'

const config = 'plans: { default: { credits: 2, concurrentTasks: 1, requestsPerMinute: 1000 } }'

t.test('a caller who hangs up mid-submit leaves no slot behind', async t => {
  const { submit, status, mint, sandbox, lines, time } = await startGateway(t, { config })
  const token = await mint('alice')
  const hangUp = new AbortController()
  const sent = submit(token, 'sandbox:slow-headers', 'nano-banana', { signal: hangUp.signal })
  await until('it is at the upstream', () => sandbox.waiting === 1)
  hangUp.abort()
  await t.rejects(sent)
  t.equal((await submit(token)).error, 'GW_TOO_MANY_TASKS', 'the slot is taken while the submit runs')
  sandbox.release()
  await until('it has been claimed', () =>
    lines().some(line => line.operation === 'generateTask' && line.taskId !== null)
  )
  const [taskId] = sandbox.tasks.keys()
  time.advance(taskMs)
  t.equal((await status(token, taskId!)).json.data.state, 'success')
  t.equal((await submit(token)).status, 200)
  t.equal((await submit(token)).error, 'GW_TOO_MANY_TASKS')
  t.equal(sandbox.submits.length, 2)
})

t.test('a caller who hangs up while the upstream refuses, or is not there, is charged nothing', async t => {
  const { submit, mint, sandbox, lines } = await startGateway(t, { config })
  const token = await mint('alice')
  const hangUp = new AbortController()
  let answer: (() => void) | undefined
  sandbox.next((_request, response) => {
    answer = () => response.writeHead(500, { 'content-type': 'application/json' }).end('{"code":500,"message":"no"}')
  })
  const sent = submit(token, 'x', 'nano-banana', { signal: hangUp.signal })
  await until('it is at the upstream', () => answer !== undefined)
  hangUp.abort()
  await t.rejects(sent)
  answer!()
  await until('it has ended', () => lines().some(line => line.operation === 'generateTask'))
  t.equal((await submit(token)).status, 200, 'slot and credit are free')
})

t.test('a gateway that stops lets a submit run to its end, and knows its task when it starts again', async t => {
  const folder = t.testdirName
  const { gateway, settings, submit, mint, sandbox, time } = await startGateway(t, {
    config,
    store: `${folder}/ledger.db`
  })
  const token = await mint('alice')
  const sent = submit(token, 'sandbox:slow-headers')
  await until('it is at the upstream', () => sandbox.waiting === 1)
  const closed = gateway.close()
  sandbox.release()
  t.equal((await sent).status, 200)
  await closed

  const second = await createGateway(settings, { ...time, logTo: { write () {} } })
  t.teardown(() => second.close())
  const origin = await second.listen()
  const [taskId] = sandbox.tasks.keys()
  const response = await fetch(`${origin}/api/v1/statusTask/nano-banana?taskId=${taskId}`, {
    headers: { authorization: `Bearer ${token}` }
  })
  t.equal(response.status, 200)
  await response.arrayBuffer()
})
