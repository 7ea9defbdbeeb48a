import { openSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { createGateway } from '../../src/gateway.ts'
import { logger } from '../../src/http/observe.ts'
import { settingsFor, startGateway } from '../helpers/gateway.ts'

t.test('an access line has the words that the operator searches for, and no others', async t => {
  const { mint, submit, lines, call } = await startGateway(t)
  const token = await mint('alice')
  const { taskId } = (await submit(token)).json.data
  await call(`/nowhere/${token}?key=${token}`)
  const [minted, submitted, lost] = lines()
  t.match(minted, { operation: 'mintSession', stage: 'reply', granted: true, code: 'OK', status: 201, subject: null })
  t.same(Object.keys(submitted!).sort(), [
    'code',
    'granted',
    'keyId',
    'level',
    'method',
    'model',
    'ms',
    'msg',
    'operation',
    'requestId',
    'route',
    'stage',
    'status',
    'subject',
    'taskId',
    'time',
    'upstreamMs'
  ])
  t.match(submitted, {
    operation: 'generateTask',
    route: '/api/v1/generateTask/:model',
    keyId: /^[0-9a-f]{8}$/,
    taskId
  })
  t.match(lost, {
    operation: 'none',
    route: 'none',
    stage: 'receive',
    granted: false,
    code: 'GW_NOT_FOUND',
    status: 404
  })
})

t.test('each request ends at the stage that refused it', async t => {
  const { mint, submit, lines, call, status } = await startGateway(t, { config: 'plans: { default: { credits: 0 } }' })
  const token = await mint('alice')
  await call('/api/v1/generateTask/nano-banana', { body: {} })
  await status(token, 'nobody')
  await submit(token)
  t.same(lines().slice(1).map(({ stage, code, granted }) => ({ stage, code, granted })), [
    { stage: 'authenticate', code: 'GW_NO_SESSION', granted: false },
    { stage: 'authorize', code: 'GW_TASK_NOT_FOUND', granted: false },
    { stage: 'admit', code: 'GW_CREDITS_EXHAUSTED', granted: false }
  ])
  const other = await startGateway(t, {})
  await other.submit(await other.mint('bob'), 'sandbox:drop-after')
  t.match(other.lines()[1], { stage: 'settle', code: 'GW_OUTCOME_UNKNOWN', granted: true })
})

t.test('a bug is a 500 with a fixed sentence; what it was is in the log', async t => {
  const { origin, log } = await startBroken(t)
  const reply = await fetch(`${origin}/broken`)
  t.equal(reply.status, 500)
  t.match(await reply.json(), {
    code: 500,
    message: 'Something went wrong in the gateway.',
    error: { code: 'GW_INTERNAL' }
  })
  t.match(
    log.find(line => line.level === 50),
    { err: { message: 'outer', cause: { message: 'inner', code: 'E_INNER' } } }
  )
  t.notMatch(JSON.stringify(log), /a secret field/)
  t.equal((await fetch(`${origin}/livez`)).status, 200)
})

/** A gateway with one route more, which fails as only a bug can. */
async function startBroken (t: Parameters<typeof settingsFor>[0]) {
  const log: Array<Record<string, any>> = []
  const gateway = await createGateway(settingsFor(t, 'http://127.0.0.1:9', {}), {
    logTo: {
      write: line => {
        log.push(JSON.parse(line))
      }
    }
  })
  t.teardown(() => gateway.close())
  gateway.app.get('/broken', async () => {
    throw Object.assign(
      new Error('outer', { cause: Object.assign(new Error('inner'), { code: 'E_INNER', headers: 'a secret field' }) }),
      { token: 'a secret field' }
    )
  })
  return { origin: await gateway.listen(), log }
}

t.test('lines go out at once to a terminal, and in blocks to anything else', async t => {
  const folder = t.testdir()
  for (const buffered of [false, true]) {
    const file = join(folder, `buffered-${buffered}`)
    const log = logger({ level: 'info', buffered, destination: openSync(file, 'w') })
    log.info('one line')
    t.equal(readFileSync(file, 'utf8') === '', buffered)
    log.flush()
    t.match(readFileSync(file, 'utf8'), /"msg":"one line"/)
  }
})

t.test('a path that can not be decoded has its line as well', async t => {
  const { call, lines } = await startGateway(t)
  t.match(await call('/gateway/%zz'), { status: 400, error: 'GW_BAD_REQUEST' })
  t.match(lines()[0], { status: 400, code: 'GW_BAD_REQUEST', stage: 'receive', route: 'none' })
})
