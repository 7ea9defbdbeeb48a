import { chmodSync, copyFileSync, mkdtempSync, renameSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import t, { type Test } from 'tap'
import { startGateway, type TestGateway } from '../helpers/gateway.ts'
import { redisServer } from '../helpers/redis-server.ts'
import { storeFile } from '../helpers/store-file.ts'
import { until } from '../helpers/until.ts'

const alarms = ({ log }: TestGateway) => log.filter(({ alarm }) => alarm === 'store-gone')
const readiness = async ({ call }: TestGateway) => (await call('/readyz')).status
const modeOf = (path: string) => (statSync(path).mode & 0o777).toString(8)

/** A gateway with a task of alice's, and her token. */
async function busy (t: Test, options: Parameters<typeof startGateway>[1]) {
  const it = await startGateway(t, options)
  const token = await it.mint('alice')
  const { taskId } = (await it.submit(token)).json.data
  it.time.advance(1000)
  return { ...it, token, taskId }
}

const losses = {
  deleted: (path: string) => {
    rmSync(path)
  },
  replaced: (path: string) => {
    copyFileSync(path, `${path}.copy`)
    renameSync(`${path}.copy`, path)
  }
}

for (const [what, lose] of Object.entries(losses)) {
  t.test(`a ledger file that is ${what} under a running gateway stops the writing, with one alarm`, async t => {
    const store = storeFile(t)
    const it = await busy(t, { store })
    t.equal(await readiness(it), 200)
    lose(store)
    it.time.advance(1000)
    t.match(
      await it.submit(it.token),
      { status: 503, error: 'GW_STORE_DOWN' },
      'nothing is made whose owner nobody would know'
    )
    t.equal(it.sandbox.submits.length, 1)
    it.time.advance(1000)
    t.equal(await readiness(it), 503)
    t.match((await it.call('/readyz')).json, { status: 'unavailable', store: 'down' })
    for (let count = 0; count < 3; count++) await it.submit(it.token)
    t.match(alarms(it), [{ level: 50, problem: /the file of the ledger is gone/ }])
  })
}

t.test('nobody has to call for the loss to be noticed', async t => {
  const store = storeFile(t)
  const it = await busy(t, { store })
  rmSync(store)
  await it.gateway.tidy().catch(() => {})
  t.equal(alarms(it).length, 1)
})

t.test('a ledger file that gets its name back is served from again, and lost again is an alarm again', async t => {
  const store = storeFile(t)
  const it = await busy(t, { store })
  for (const count of [1, 2]) {
    renameSync(store, `${store}.away`)
    it.time.advance(1000)
    t.equal(await readiness(it), 503)
    renameSync(`${store}.away`, store)
    it.time.advance(1000)
    t.equal(await readiness(it), 200)
    t.equal((await it.submit(it.token)).status, 200)
    t.equal(alarms(it).length, count)
    it.time.advance(1000)
  }
})

t.test(
  'the files of a ledger are for their owner alone, in a folder of their own, also those of an earlier version',
  async t => {
    const folder = mkdtempSync(join(tmpdir(), 'gateway-modes-'))
    t.teardown(() => rmSync(folder, { recursive: true, force: true }))
    const store = join(folder, 'data', 'gateway.db')
    const files = [store, `${store}-wal`, `${store}.lock`]
    const first = await busy(t, { store })
    t.same([modeOf(dirname(store)), ...files.map(modeOf)], ['700', '600', '600', '600'])
    await first.gateway.close()
    chmodSync(store, 0o644)
    chmodSync(`${store}.lock`, 0o644)
    await busy(t, { store })
    t.same(files.map(modeOf), ['600', '600', '600'])
  }
)

t.test(
  'a Redis that is emptied under a running gateway is served from no more, with one alarm, until a restart',
  async t => {
    const server = await redisServer(t)
    const env = { GATEWAY_STORE: server.url }
    const it = await busy(t, { env })
    const revoked = await it.mint('bob')
    await it.call('/gateway/session', { method: 'DELETE', token: revoked })
    await server.admin.flushall()
    await it.gateway.tidy().catch(() => {})
    t.equal(alarms(it).length, 1)
    t.match(await it.submit(it.token), { status: 503, error: 'GW_STORE_DOWN' })
    t.not((await it.call('/gateway/session', { token: revoked })).status, 200, 'who was revoked is not let in')
    t.equal((await it.status(it.token, it.taskId)).status, 503, "and no task is said to be nobody's")
    it.time.advance(1000)
    t.equal(await readiness(it), 503)
    t.equal(alarms(it).length, 1)
    t.match(alarms(it), [{ level: 50, problem: /^Redis has lost what it was told/ }])

    const next = await startGateway(t, { env, upstream: it.sandbox, time: it.time })
    t.equal((await next.submit(await next.mint('alice'))).status, 200, 'who starts it again begins anew')
    it.time.advance(1000)
    t.equal(await readiness(it), 503, 'and the other one has to be started again as well')
  }
)

t.test(
  'a Redis that comes back empty is noticed before anything is served from it, and one that knows all serves on',
  async t => {
    for (const appendonly of [false, true]) {
      const server = await redisServer(t, { appendonly })
      const it = await busy(t, { env: { GATEWAY_STORE: server.url } })
      await server.kill()
      await until('it is missed', async () => {
        it.time.advance(1000)
        return (await readiness(it)) === 503
      })
      await server.start()
      if (appendonly) {
        await until('it serves again', async () => (await it.submit(it.token)).status === 200)
        t.equal((await it.status(it.token, it.taskId)).status, 200)
        t.equal(alarms(it).length, 0)
      } else {
        await until('it is found to be empty', async () => {
          t.equal((await it.status(it.token, it.taskId)).status, 503)
          return alarms(it).length === 1
        })
        t.equal((await it.submit(it.token)).error, 'GW_STORE_DOWN')
        const { json } = await it.call('/gateway/session', { token: it.token })
        t.equal(json.error.code, 'GW_STORE_DOWN')
      }
    }
  }
)
