import t from 'tap'
import { apiKey, startGateway } from '../helpers/gateway.ts'
import { secretFiles } from '../helpers/secret-files.ts'
import { until } from '../helpers/until.ts'

const keys = ['apixo-key-number-one', 'apixo-key-number-two'] as const
const config = 'plans: { default: { credits: unlimited, concurrentTasks: 1000, requestsPerMinute: 10000 } }'
const benched = (log: ReadonlyArray<Record<string, any>>) => log.filter(line => line.alarm === 'key-benched')

t.test('a caller who meets the upstream\'s limit is told so, and the next one gets another key', async t => {
  for (const [name, restsMs] of [['http-429', 7000], ['code-429', 5000]] as const) {
    await t.test(name, async t => {
      const { submit, mint, sandbox, log, time } = await startGateway(t, { config, keys })
      const [mallory, alice] = [await mint('mallory'), await mint('alice')]
      t.match(await submit(mallory, `sandbox:${name}`), { error: null, json: { code: 429 } })
      t.equal(sandbox.submits.length, 1, 'it is not tried with another key: that would be two for one')
      for (let round = 0; round < 4; round++) t.equal((await submit(alice)).status, 200)
      t.same(new Set([...sandbox.tasks.values()].map(({ key }) => key)), new Set([keys[1]]))
      time.advance(restsMs)
      for (let round = 0; round < 2; round++) t.equal((await submit(alice)).status, 200)
      t.equal([...sandbox.tasks.values()].at(-2)?.key, keys[0], 'the one that rested is next')
      t.same(benched(log), [])
    })
  }
})

t.test('a limit on status calls rests no key', async t => {
  const { submit, status, mint, sandbox } = await startGateway(t, { config, keys })
  const token = await mint('mallory')
  const { taskId } = (await submit(token, 'sandbox:status-http-429')).json.data
  t.match(await status(token, taskId), { status: 429, error: null })
  for (let round = 0; round < 4; round++) t.equal((await submit(token)).status, 200)
  t.equal(new Set([...sandbox.tasks.values()].slice(-4).map(({ key }) => key)).size, 2)
})

t.test('with one key the upstream has its say each time: one caller\'s 429 is nobody else\'s 503', async t => {
  const { submit, mint } = await startGateway(t, { config })
  const [mallory, alice] = [await mint('mallory'), await mint('alice')]
  for (let round = 0; round < 3; round++) {
    t.match(await submit(mallory, 'sandbox:http-429'), { status: 429, error: null })
    t.equal((await submit(alice)).status, 200)
  }
})

t.test('refused prompts bench no key while keys rotate', async t => {
  const files = secretFiles(t, { APIXO_API_KEY: apiKey })
  const { submit, mint, log, sandbox } = await startGateway(t, {
    config,
    keys: [],
    env: files.env,
    sandbox: { keys: [apiKey, ...keys] }
  })
  const [mallory, alice] = [await mint('mallory'), await mint('alice')]
  for (const key of keys) {
    files.rotate('APIXO_API_KEY', key)
    await until('it is read', async () => {
      t.match(await submit(mallory, 'sandbox:http-403'), { status: 403, error: null })
      t.equal((await submit(alice)).status, 200)
      return [...sandbox.tasks.values()].at(-1)?.key === key
    })
  }
  t.same(benched(log), [])
})
