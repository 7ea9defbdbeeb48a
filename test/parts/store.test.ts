import { setTimeout as wait } from 'node:timers/promises'
import t from 'tap'
import { systemClock } from '../../src/domain/time.ts'
import { openStore } from '../../src/stores.ts'
import { settingsFor } from '../helpers/gateway.ts'
import { redisServer } from '../helpers/redis-server.ts'
import { until } from '../helpers/until.ts'

t.test('who opens a Redis for one command hears of its end from the command alone', async t => {
  const server = await redisServer(t, { appendonly: true })
  const store = await openStore(
    settingsFor(t, 'http://127.0.0.1:9', { env: { GATEWAY_STORE: server.url } }),
    systemClock,
    'operator'
  )
  t.teardown(() => store.close())
  await store.ping()
  await server.kill()
  await until('the connection is lost', () => store.ping().then(() => false, ({ code }) => code === 'GW_STORE_DOWN'))
  await t.rejects(store.records.tasksOf('app:alice', { cursor: null, limit: 1 }), { code: 'GW_STORE_DOWN' })
  await wait(300) // some tries to connect again fail as well
  await server.start()
  await until('the connection is back', () => store.ping().then(() => true, () => false))
})
