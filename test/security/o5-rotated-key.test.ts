import t, { type Test } from 'tap'
import { adminToken, apiKey, startGateway, type TestGatewayOptions } from '../helpers/gateway.ts'
import { secretFiles } from '../helpers/secret-files.ts'
import { until } from '../helpers/until.ts'

const nextKey = 'apixo-key-of-the-operator-0002'
const benched = (log: ReadonlyArray<Record<string, any>>) => log.filter(line => line.alarm === 'key-benched')

/** A gateway whose keys are in a file; `rotate` resolves when it has read them. */
async function withKeyFile (t: Test, options: TestGatewayOptions = {}) {
  const files = secretFiles(t, { APIXO_API_KEY: apiKey })
  const gateway = await startGateway(t, {
    ...options,
    keys: [],
    env: { ...files.env, GATEWAY_ADMIN_TOKEN: adminToken, ...options.env },
    sandbox: { keys: [apiKey, nextKey] }
  })
  const rotate = async (keys: string) => {
    const reads = () => gateway.log.filter(line => line.setting === 'APIXO_API_KEY').length
    const before = reads()
    files.rotate('APIXO_API_KEY', keys)
    await until('the keys are read', () => reads() > before)
  }
  return { ...gateway, rotate }
}

t.test(
  'a key that is taken out and revoked while a submit is under way fails nobody: the next key takes it',
  async t => {
    const { submit, mint, sandbox, rotate } = await withKeyFile(t)
    const token = await mint('alice')
    sandbox.next((_request, response) => {
      rotate(nextKey).then(
        () => {
          sandbox.revoke(apiKey)
          response
            .writeHead(401, { 'content-type': 'application/json' })
            .end('{"code":401,"message":"Invalid API key","data":null}')
        },
        error => {
          t.fail(error)
        }
      )
    })
    t.equal((await submit(token)).status, 200)
    t.equal(sandbox.submits.length, 2)
    t.same(
      [...sandbox.tasks.values()].map(({ key }) => key),
      [nextKey]
    )
  }
)

t.test('a key that was taken out and is revoked takes its tasks with it, and no submit', async t => {
  const { submit, status, mint, sandbox, log, rotate } = await withKeyFile(t)
  const token = await mint('alice')
  const { taskId } = (await submit(token)).json.data
  await rotate(nextKey)
  sandbox.revoke(apiKey)
  for (let round = 0; round < 5; round++) t.equal((await submit(token)).status, 200)
  t.same(benched(log), [], 'nobody has met the old key')
  t.match(await status(token, taskId), { status: 502, error: 'GW_UPSTREAM_REFUSED_KEY' })
  t.match(benched(log), [{ state: 'refused' }], 'the operator is told that its tasks can not be asked about')
  t.equal((await submit(token)).status, 200)
})

t.test('a task goes on with the key that made it, also when that has been taken out', async t => {
  const { submit, call, mint, sandbox, rotate } = await withKeyFile(t)
  const token = await mint('alice')
  const { taskId } = (await submit(token, 'a cube', 'grok-video')).json.data
  await rotate(nextKey)
  t.equal(
    (await call('/api/v1/generateTask/grok-video', { token, body: { input: { prompt: 'again', task_id: taskId } } }))
      .status,
    200
  )
  t.ok([...sandbox.tasks.values()].every(({ key }) => key === apiKey))
})

t.test(
  'a key that is rotated in by mistake is found at the first submit, and the right one serves as soon as it is there',
  async t => {
    const { submit, mint, log, rotate } = await withKeyFile(t)
    const token = await mint('alice')
    await rotate('apixo-key-with-a-slip-of-the-pen')
    t.match(await submit(token), { status: 502, error: 'GW_UPSTREAM_REFUSED_KEY' })
    t.match(benched(log), [{ level: 50, state: 'refused' }])
    const refused = await submit(token)
    t.match(refused, { status: 503, error: 'GW_NO_KEY' })
    t.equal(refused.headers.get('retry-after'), '10', 'when it may be asked about again')
    await rotate(nextKey)
    t.equal((await submit(token)).status, 200)
  }
)

t.test('when all keys rest, the one with the shortest rest serves', async t => {
  const { submit, mint, sandbox, time, rotate } = await withKeyFile(t)
  await rotate(`${apiKey},${nextKey}`)
  const token = await mint('alice')
  const limitFor = (seconds: number) =>
    sandbox.next((_request, response) => {
      response
        .writeHead(429, { 'content-type': 'application/json', 'retry-after': String(seconds) })
        .end('{"code":429,"message":"slow","data":null}')
    })
  for (const seconds of [30, 20]) {
    limitFor(seconds)
    t.match(await submit(token), { status: 429, error: null })
  }
  const maker = () => [...sandbox.tasks.values()].at(-1)?.key
  time.advance(500)
  limitFor(40)
  t.match(await submit(token), { status: 429, error: null }, 'the upstream has its say')
  t.equal((await submit(token)).status, 200)
  t.equal(maker(), apiKey, 'its rest is the shorter one now')
})
