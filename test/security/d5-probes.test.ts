import t from 'tap'
import { startGateway } from '../helpers/gateway.ts'
import { redisServer } from '../helpers/redis-server.ts'

t.test('however many ask whether the gateway is ready, its store is probed once a second', async t => {
  const server = await redisServer(t, { appendonly: true, directives: ['--appendfsync', 'always'] })
  const { call, time } = await startGateway(t, {
    env: { GATEWAY_STORE: server.url, GATEWAY_ADMIN_TOKEN: 'admin-token-of-the-operator-0001' }
  })
  const probes = async () => {
    const [, count] = /cmdstat_set:calls=(\d+)/.exec(await server.admin.info('commandstats'))!
    return Number(count)
  }
  const ask = async () => {
    const answers = await Promise.all(Array.from({ length: 50 }, () => call('/readyz')))
    t.same([...new Set(answers.map(({ status, text }) => `${status} ${text}`))], ['200 {"status":"ok","store":"ok"}'])
  }
  await ask()
  const before = await probes()
  time.advance(999)
  for (let round = 0; round < 4; round++) await ask()
  t.equal(await probes(), before, 'nobody is asked twice in a second')
  time.advance(1)
  await ask()
  await ask()
  await call('/metrics', { token: 'admin-token-of-the-operator-0001' })
  t.equal(await probes(), before + 1)
  for (const stepMs of [-90_000_000, 90_000_000]) {
    time.step(stepMs)
    time.advance(1000)
    await ask()
  }
  t.equal(await probes(), before + 3, 'whatever the wall clock says')
})

t.test('a store that is away is found out a second later, and one that is back as well', async t => {
  const server = await redisServer(t, { appendonly: true })
  const { call, time } = await startGateway(t, { env: { GATEWAY_STORE: server.url } })
  t.equal((await call('/readyz')).status, 200)
  await server.kill()
  time.advance(1000)
  t.same(await Promise.all([call('/readyz'), call('/readyz')].map(async reply => (await reply).status)), [503, 503])
})
