import { hash } from 'node:crypto'
import { setTimeout as wait } from 'node:timers/promises'
import t from 'tap'
import { sqliteStore } from '../src/adapters/sqlite/store.ts'
import { systemClock } from '../src/domain/time.ts'
import { gatewayError } from '../src/errors.ts'
import { createGateway } from '../src/gateway.ts'
import { startSandbox } from '../src/sandbox/sandbox.ts'
import { openStore } from '../src/stores.ts'
import { demandOf } from './contracts/ledger-balance.ts'
import { answer, terms } from './contracts/open-books.ts'
import { clock } from './helpers/clock.ts'
import { apiKey, settingsFor } from './helpers/gateway.ts'
import { redisServer } from './helpers/redis-server.ts'
import { until } from './helpers/until.ts'
import { webhookReceiver } from './helpers/webhook-receiver.ts'

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

t.test('a store that fails behind a callback or a delivery is told in the log, and nothing is lost', async t => {
  const { now } = clock()
  const sandbox = await startSandbox({ keys: [apiKey], now, taskMs: 0 })
  t.teardown(() => sandbox.close())
  const receiver = await webhookReceiver(t)
  const store = sqliteStore({ path: ':memory:', terms, now, synchronous: 'normal' })
  const down = async () => {
    throw gatewayError('GW_STORE_DOWN')
  }
  const failing = {
    ...store,
    ledger: { ...store.ledger, settle: down },
    deliveries: { ...store.deliveries, attempted: down }
  }
  const settings = settingsFor(t, sandbox.origin, {
    config: `plans: { default: {} }\ncallbacks: { inbound: true, allowedHosts: [${receiver.host}] }`,
    env: { GATEWAY_PUBLIC_URL: 'https://gateway.example' }
  })
  const log: Array<Record<string, any>> = []
  const gateway = await createGateway(settings, {
    now,
    store: failing,
    webhooks: receiver.webhooks,
    logTo: {
      write: line => {
        log.push(JSON.parse(line))
      }
    }
  })
  t.teardown(() => gateway.close())

  const made = await fetch(`${sandbox.origin}/api/v1/generateTask/nano-banana`, {
    method: 'POST', headers: { authorization: `Bearer ${apiKey}` }, body: '{"input":{"prompt":"x"}}'
  })
  const { data: { taskId } } = await made.json() as { data: { taskId: string } }
  const secret = 's'.repeat(43)
  for (const id of [taskId, 'ended']) {
    const keyId = settings.apiKeys[0]!.fingerprint
    const reserved = await store.ledger.reserve(demandOf({ keyId, deliverTo: `${receiver.origin}/` }))
    if (!reserved.granted) throw new Error(reserved.reason)
    const callbackHash = hash('sha256', id === 'ended' ? 'another' : secret, 'base64url')
    await store.ledger.advance(reserved.id, { to: 'sent', keyId, callbackHash })
    await store.ledger.advance(reserved.id, { to: 'claimed', taskId: id })
  }
  const { statusCode } = await gateway.app.inject({
    method: 'POST',
    url: `/gateway/callbacks/${secret}`,
    payload: '{}'
  })
  t.equal(statusCode, 200)
  await until('the first line', () =>
    log.some(({ msg, err }) => /could not be looked into/.test(msg) && err.code === 'GW_STORE_DOWN')
  )

  await store.ledger.settle({ taskId: 'ended', state: 'success', answer })
  await gateway.tidy()
  await until('the second line', () =>
    log.some(({ msg, err }) => /could not be kept/.test(msg) && err.code === 'GW_STORE_DOWN')
  )
  t.match(await store.deliveries.of('ended'), { attempts: [], nextAt: now() })
  t.notMatch(JSON.stringify(log), secret)
})
