import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { fileServer, taskWith, whole } from '../helpers/file-server.ts'
import { startGateway, taskMs } from '../helpers/gateway.ts'
import { until } from '../helpers/until.ts'

const plan = 'plans: { default: { credits: unlimited } }\nsessions: { defaultTtlSeconds: 7776000 }'
const dayMs = 86_400_000
// Of the file, not of its tests: each gateway makes its test's own folder anew.
const folders = t.testdir({ good: {}, bad: { results: 'a file, where the folder should be' } })

t.test(
  'with results.keep, a result is copied when its task ends, outlives its day at the upstream, and ends with its task',
  async t => {
    const folder = join(folders, 'good')
    const { call, mint, submit, status, time, gateway, sandbox } = await startGateway(t, {
      config: `${plan}\nresults: { keep: directory }\ntasks: { retentionDays: 7 }`,
      store: join(folder, 'gateway.db')
    })
    const token = await mint('alice')
    const { taskId } = (await submit(token)).json.data
    time.advance(taskMs)
    t.equal((await status(token, taskId)).json.data.state, 'success')
    const results = join(folder, 'results')
    await until('the copy is made', () =>
      readdirSync(folder, { recursive: true }).some(name => /^results\/2026-01-15\/[0-9a-f]{64}$/.test(String(name)))
    )
    const fetched = sandbox.calls.length

    time.advance(2 * dayMs)
    const { status: code, headers, text } = await call(`/gateway/tasks/${taskId}/results/0`, { token })
    t.equal(code, 200)
    t.match(text, /^.PNG/)
    t.match(Object.fromEntries(headers), {
      'content-type': 'image/png',
      'accept-ranges': 'bytes',
      'cache-control': 'no-store'
    })
    const part = await call(`/gateway/tasks/${taskId}/results/0`, { token, headers: { range: 'bytes=1-3' } })
    t.match(
      { status: part.status, text: part.text, range: part.headers.get('content-range') },
      { status: 206, text: 'PNG', range: `bytes 1-3/${headers.get('content-length')}` }
    )
    t.equal(sandbox.calls.length, fetched, 'its host is not asked')
    t.equal(
      (await call(`/gateway/tasks/${taskId}/results/0`, { token: await mint('mallory') })).error,
      'GW_TASK_NOT_FOUND'
    )

    time.advance(8 * dayMs)
    await gateway.tidy()
    t.same(readdirSync(results), [])
    t.equal((await call(`/gateway/tasks/${taskId}/results/0`, { token })).error, 'GW_TASK_NOT_FOUND')
  })

t.test('a copy that can not be made is a line in the log, and nothing else', async t => {
  const folder = join(folders, 'bad')
  const gateway = await startGateway(t, {
    config: `${plan}\nresults: { keep: directory, hosts: ["127.0.0.1"] }`,
    store: join(folder, 'gateway.db')
  })
  const token = await gateway.mint('alice')
  const files = await fileServer(t, whole('bytes'))
  const taskId = await taskWith(gateway, token, { resultUrls: [`${files.origin}/a`] })
  await until('it is told', () =>
    gateway.log.some(line => line.taskId === taskId && line.msg.startsWith('a result could not be kept'))
  )
  t.equal((await gateway.call(`/gateway/tasks/${taskId}/results/0`, { token })).text, 'bytes')
})

t.test(
  'a store without a file of its own has its copies in data/results, where nothing is made before the first',
  async t => {
    const { call } = await startGateway(t, { config: `${plan}\nresults: { keep: directory }` })
    t.equal((await call('/readyz')).status, 200)
  }
)
