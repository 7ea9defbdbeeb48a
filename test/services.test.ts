import { hash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { createServer } from 'node:net'
import { setTimeout as wait } from 'node:timers/promises'
import t from 'tap'
import { sqliteStore } from '../src/adapters/sqlite/store.ts'
import type { TaskLedger } from '../src/domain/ledger.ts'
import type { Store } from '../src/domain/store.ts'
import { systemClock } from '../src/domain/time.ts'
import { gatewayError } from '../src/errors.ts'
import { createGateway } from '../src/gateway.ts'
import type { Services } from '../src/http/services.ts'
import { startSandbox } from '../src/sandbox/sandbox.ts'
import type { GatewayFile, Settings } from '../src/settings.ts'
import { openStore } from '../src/stores.ts'
import { demandOf } from './contracts/ledger-balance.ts'
import { answer, terms } from './contracts/open-books.ts'
import { clock } from './helpers/clock.ts'
import { apiKey, settingsFor } from './helpers/gateway.ts'
import { listen } from './helpers/raw-server.ts'
import { redisServer } from './helpers/redis-server.ts'
import { storeFile } from './helpers/store-file.ts'
import { crankedTimers } from './helpers/timers.ts'
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

/** The names of services that would do where all of `Whole` is wanted. */
type StandIns<Whole> = {
  [Name in keyof Services]: NonNullable<Services[Name]> extends Whole ? Name : never
}[keyof Services]
type IsNone<Names> = [Names] extends [never] ? true : Names

// The compiler holds this, when tests are type-checked.
t.test('no service is the settings, the store or the bare ledger', async t => {
  const none: readonly [IsNone<StandIns<Settings | GatewayFile | Store>>, IsNone<StandIns<TaskLedger>>] = [true, true]
  t.strictSame(none, [true, true])
})

t.test('when a part can not be opened, those before it are closed, and the error is told as it is', async t => {
  const time = clock()
  const timers = crankedTimers(time)
  const real = sqliteStore({ path: ':memory:', terms, now: time.now, synchronous: 'normal' })
  let closed = 0
  const store: Store = {
    ...real,
    get guestCounts (): never { throw new Error('no guests') },
    async close () {
      closed++
      await real.close()
    }
  }
  const settings = settingsFor(t, 'http://127.0.0.1:1', {
    config: `plans: { default: {}, guest: {} }
guests: { enabled: true }
callbacks: { inbound: true }
results: { keep: directory }`,
    env: { GATEWAY_PUBLIC_URL: 'https://gateway.example' }
  })
  const started = createGateway(settings, {
    now: time.now, elapsed: time.elapsed, timers, store, logTo: { write () {} }
  })
  await t.rejects(started, { message: 'no guests' })
  t.equal(closed, 1, 'the store, once')
  t.equal(timers.waiting, 0)
})

t.test('a gateway that can not listen is closed: no port, no file and no timer is left', async t => {
  const time = clock()
  const timers = crankedTimers(time)
  const path = storeFile(t)
  const other = createServer()
  t.teardown(() => other.close())
  const port = await listen(other)
  const settings = settingsFor(t, 'http://127.0.0.1:1', {
    store: path, env: { HOST: '127.0.0.1', PORT: String(port), GATEWAY_ADMIN_PORT: '0' }
  })
  const gateway = await createGateway(settings, {
    now: time.now, elapsed: time.elapsed, timers, logTo: { write () {} }
  })
  t.ok(existsSync(`${path}-wal`), 'the store is open')
  await t.rejects(gateway.listen(), { code: 'EADDRINUSE' })
  t.equal(gateway.adminApp?.server.listening, false, 'the admin port is free again')
  t.notOk(existsSync(`${path}-wal`), 'the store was closed as at every stop')
  t.equal(timers.waiting, 0)
  t.equal(gateway.close(), gateway.close(), 'a second stop waits for the first')
  await gateway.close()
})
