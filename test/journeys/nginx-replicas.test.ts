import { once } from 'node:events'
import { createServer } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { startSandbox } from '../../src/sandbox/sandbox.ts'
import { apiKey } from '../helpers/gateway.ts'
import { gatewayEnvironment, startProcess } from '../helpers/gateway-process.ts'
import { callerOf } from '../helpers/http-caller.ts'
import { replicasNginx } from '../helpers/nginx.ts'
import { closedPort } from '../helpers/raw-server.ts'
import { redisServer } from '../helpers/redis-server.ts'
import { until } from '../helpers/until.ts'

/** Replicas over one Redis, each at an address of its own, and nginx as compose has it in front of two of them. */
async function start (t: Test) {
  const [sandbox, redis, port] = [await startSandbox({ keys: [apiKey] }), await redisServer(t), await closedPort()]
  t.teardown(() => sandbox.close())
  const cwd = t.testdir({
    'gateway.yaml': 'plans: { default: { concurrentTasks: 1000, credits: unlimited } }',
    'models.json': '{"models":[]}'
  })
  const replica = (HOST: string) =>
    startProcess(t, {
      cwd,
      env: { ...gatewayEnvironment(sandbox.origin), GATEWAY_STORE: redis.url, HOST, PORT: String(port) }
    })
  const replicas = [await replica('127.0.0.1'), await replica('127.0.0.2')] as const
  const nginx = await replicasNginx(t, port, ['127.0.0.1', '127.0.0.2'])
  await nginx.start()
  return { sandbox, replica, replicas, nginx, ...callerOf(nginx.origin) }
}

const many = async <Result>(count: number, one: () => Promise<Result>): Promise<Result[]> => {
  const results: Result[] = []
  for (let index = 0; index < count; index++) results.push(await one())
  return results
}

t.test('when a replica dies nobody hears of it, and each submit is made once', async t => {
  const { sandbox, replica, replicas, nginx, mint, submit, status, call } = await start(t)
  const token = await mint('alice')
  const taskId = (await submit(token)).json.data.taskId
  const poll = async () => (await status(token, taskId)).status
  let made = 0
  // Not one like the other: what the dead one had just answered would be given again.
  const make = async () => (await submit(token, `a lighthouse, the ${made++}.`)).status
  t.same(new Set(await many(10, make)), new Set([200]))

  replicas[0].child.kill('SIGKILL')
  await replicas[0].ended
  t.same(new Set(await many(20, poll)), new Set([200]), 'reads go on to the other one')
  t.same(new Set(await many(20, make)), new Set([200]), 'and so do submits, which the dead one never got')
  t.equal(sandbox.submits.length, 31)
  t.match(nginx.logs(), /connect\(\) failed \(111: Connection refused\)/, 'it was tried')

  await replica('127.0.0.3')
  replicas[1].child.kill('SIGKILL')
  await replicas[1].ended
  t.equal(await poll(), 502, 'both that are known are dead')
  nginx.setAddresses(['127.0.0.3'])
  await until('nginx to ask for the name again', async () => (await call('/livez')).status === 200, 5000)
  t.same([await poll(), await make()], [200, 200])
})

t.test(
  'a submit whose replica dies in mid-call is not sent again, neither by nginx nor by another replica',
  async t => {
    const { sandbox, replicas, mint, submit } = await start(t)
    const token = await mint('alice')
    const lost = submit(token, 'sandbox:slow-headers')
    await until('the sandbox to have it', () => sandbox.submits.length === 1)
    let isOver = false
    lost.finally(() => {
      isOver = true
    })
    for (const { child, ended } of replicas) {
      child.kill('SIGKILL')
      await ended
      await sleep(200) // for nginx to do it, had it a mind to
      if (isOver) break
    }
    t.equal((await lost).status, 502)
    t.equal(sandbox.submits.length, 1)
  }
)

t.test('of what was sent only reads are sent again: the methods that change nothing, or the same', async t => {
  const port = await closedPort()
  const seen: string[] = []
  for (const address of ['127.0.0.1', '127.0.0.2']) {
    const server = createServer(request => {
      seen.push(request.method!)
      request.resume().on('end', () => request.socket.destroy())
    })
    server.listen(port, address)
    await once(server, 'listening')
    t.teardown(() => {
      server.close()
    })
  }
  const nginx = await replicasNginx(t, port, ['127.0.0.1', '127.0.0.2'])
  await nginx.start()
  for (const [method, times] of [
    ['POST', 1],
    ['GET', 2],
    ['HEAD', 2]
  ] as const) {
    seen.length = 0
    t.equal(
      (await fetch(`${nginx.origin}/api/v1/generateTask/x`, { method, ...(method === 'POST' ? { body: '{}' } : {}) }))
        .status,
      502
    )
    t.same(seen, Array(times).fill(method), method)
  }
})
