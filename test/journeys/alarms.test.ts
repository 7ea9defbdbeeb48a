import { rmSync } from 'node:fs'
import t, { type Test } from 'tap'
import { alarmReceiver, alarmSecret, isSignedWith } from '../helpers/alarm-receiver.ts'
import { apiKey, sessionSecret, startGateway, type TestGateway, type TestGatewayOptions } from '../helpers/gateway.ts'
import { redisServer } from '../helpers/redis-server.ts'
import { startReplicas } from '../helpers/replicas.ts'
import { storeFile } from '../helpers/store-file.ts'
import { until } from '../helpers/until.ts'
import { webhookReceiver } from '../helpers/webhook-receiver.ts'

const plans =
  'plans: { default: { requestsPerMinute: 100000, pollsPerMinute: 100000, concurrentTasks: 1000, credits: unlimited } }'
const env = { GATEWAY_ALARM_SECRET: alarmSecret }
/** Rounds of the housekeeping are the test's alone. */
const tidyEveryMs = 2 ** 31 - 1

/** A gateway that tells its alarms to a server on this machine. */
async function scene (t: Test, more: TestGatewayOptions & { readonly alarms?: string } = {}) {
  const receiver = await alarmReceiver(t)
  const { alarms = '', ...options } = more
  const config = `${plans}\nprices: { "*": 1 }\nalarms: { url: "${receiver.url}", ${alarms} }`
  return { receiver, config, ...await startGateway(t, { config, env, tidyEveryMs, ...options }) }
}

/** A round of the housekeeping, and what it has begun to send, so many messages in all. */
async function told (
  { gateway, receiver }: Pick<Awaited<ReturnType<typeof scene>>, 'gateway' | 'receiver'>, count: number
): Promise<void> {
  await gateway.tidy()
  await until(`${count} messages`, () => receiver.heard.length >= count)
}

/** Makes the upstream refuse the key. */
async function bench ({ mint, submit, sandbox }: Pick<TestGateway, 'mint' | 'submit' | 'sandbox'>): Promise<string> {
  const token = await mint('alice')
  sandbox.revoke(apiKey)
  await submit(token, 'a secret prompt')
  return token
}

t.test('a benched key is told once, signed, and so is its return', async t => {
  const it = await scene(t)
  const { receiver, sandbox, submit, time, gateway } = it
  const token = await bench(it)
  await told(it, 1)
  const [message] = receiver.messages
  t.equal(message!.path, '/alarms?team=1')
  t.ok(isSignedWith(alarmSecret, message!))
  t.match(message!.headers, { 'content-type': 'application/json', 'user-agent': /^apixo-gateway\// })
  const { type, data } = JSON.parse(String(message!.body))
  t.match({ type, data }, {
    type: 'alarm.raised',
    data: { kind: 'key-benched', details: { keyId: /^[0-9a-f]{8}$/, state: 'refused' }, count: 1, gateway: null }
  })
  for (const secret of [apiKey, token, sessionSecret, alarmSecret, 'a secret prompt']) {
    t.notOk(JSON.stringify(receiver.messages.map(({ headers, body }) => [headers, String(body)])).includes(secret))
  }
  sandbox.restore(apiKey)
  for (let round = 0; round < 40; round++) {
    time.advance(10_000)
    await submit(token)
    await gateway.tidy()
  }
  await until('its return', () => receiver.heard.length > 1)
  t.same(receiver.heard, ['alarm.raised key-benched', 'alarm.cleared key-benched'])
})

t.test('a restart says nothing twice, and what is over meanwhile is said', async t => {
  const store = storeFile(t)
  await t.test('before', async t => {
    const it = await scene(t, { store })
    await bench(it)
    await told(it, 1)
    t.same(it.receiver.heard, ['alarm.raised key-benched'])
  })
  const after = await scene(t, { store })
  after.time.advance(600_000)
  await told(after, 1)
  t.same(after.receiver.heard, ['alarm.cleared key-benched'])
})

t.test('while the operator\'s server is down nothing is lost, and nobody waits for it', async t => {
  const it = await scene(t)
  it.receiver.answers.push(503)
  await bench(it)
  await told(it, 1)
  await until('the miss is noted', () => it.log.some(({ untold }) => untold !== undefined))
  t.match(it.log.find(({ untold }) => untold !== undefined), { level: 40, status: 503, error: null })
  t.notOk(JSON.stringify(it.log).includes('team=1'), 'where it is stays out of the log')
  it.time.advance(30_000)
  await told(it, 2)
  const ids = it.receiver.messages.map(({ headers }) => headers['webhook-id'])
  t.equal(ids[0], ids[1])
})

t.test('a store that is gone is told without it', async t => {
  const store = storeFile(t)
  const it = await scene(t, { store })
  await it.gateway.tidy()
  rmSync(store)
  it.time.advance(1000)
  await it.gateway.tidy().catch(() => {})
  await it.gateway.tidy().catch(() => {})
  await until('it is told', () => it.receiver.heard.length > 0)
  t.ok(it.receiver.heard.includes('alarm.raised store-gone'), it.receiver.heard.join())
})

t.test('a store that goes away while a message is under way is no reason to fail', async t => {
  const store = storeFile(t)
  const it = await scene(t, { store })
  it.receiver.before.push(() => {
    rmSync(store)
    it.time.advance(1000)
  })
  await bench(it)
  await told(it, 1)
  const text = 'it could not be noted that an alarm was told; it may be told again'
  await until('that is said', () => it.log.some(({ msg }) => msg === text))
  t.match(it.log.find(({ msg }) => msg === text), { level: 40, err: { code: 'GW_STORE_DOWN' } })
})

t.test('three replicas on one Redis say one thing once', async t => {
  const receiver = await alarmReceiver(t)
  const { url } = await redisServer(t)
  const config = `${plans}\nprices: { "*": 1 }\nalarms: { url: "${receiver.url}" }`
  const replicas = await startReplicas(t, 3, url, { config, env, tidyEveryMs })
  const token = await replicas[0]!.mint('alice')
  for (const { submit } of replicas) await submit(token, 'sandbox:drop-after')
  for (let round = 0; round < 3; round++) {
    for (const { gateway } of replicas) await gateway.tidy()
  }
  await until('it is told', () => receiver.heard.length > 0)
  for (const { gateway } of replicas) await gateway.tidy()
  t.same(receiver.heard, ['alarm.raised unknown-outcome'])
})

t.test('a name that leads into a network of our own is not called, unless the operator says so', async t => {
  const server = await webhookReceiver(t)
  const { ca, resolve } = server.webhooks
  for (const insecureUrl of [false, true]) {
    await t.test(`insecureUrl: ${insecureUrl}`, async t => {
      const config = `${plans}\nprices: { "*": 1 }\nalarms: { url: "${server.origin}/x", insecureUrl: ${insecureUrl} }`
      const it = await startGateway(t, { config, env, tidyEveryMs, webhooks: { ca, resolve } })
      await bench(it)
      await it.gateway.tidy()
      if (insecureUrl) await until('it is told', () => server.messages.length > 0)
      else await until('it is refused', () => it.log.some(({ error }) => error === 'address-refused'))
      t.equal(server.messages.length, insecureUrl ? 1 : 0)
    })
  }
})

t.test('a low balance is an alarm, also without a server to tell it to', async t => {
  const { gateway, log } = await startGateway(t, {
    config: `${plans}\nprices: { "*": 1 }\nalarms: { upstreamBalanceBelow: 1e9 }`, tidyEveryMs
  })
  const said = () => log.filter(({ alarm }) => alarm === 'upstream-balance')
  await until('the balance is known', async () => {
    await gateway.tidy()
    return said().length > 0
  })
  await gateway.tidy()
  t.match(said(), [{ below: 1e9, balance: Number, keyId: String }])
  t.equal(said().length, 1)
})

t.test('while a secret is replaced, a message is signed with both', async t => {
  const older = `whsec_${Buffer.from('another key of 32 bytes, or more!').toString('base64')}`
  const it = await scene(t, { env: { GATEWAY_ALARM_SECRET: `${alarmSecret},${older.slice(6)}` } })
  await bench(it)
  await told(it, 1)
  for (const secret of [alarmSecret, older]) t.ok(isSignedWith(secret, it.receiver.messages[0]!))
})

t.test('a pool whose ceiling is nearly used is told, and told again when it is full', async t => {
  const receiver = await alarmReceiver(t)
  const config = 'plans: { default: { requestsPerMinute: 1000, concurrentTasks: 100, credits: unlimited, pool: film } }\n' +
    `pools: { film: { ceilings: { day: 10 } } }\nprices: { "*": 1 }\nalarms: { url: "${receiver.url}" }`
  const it = await startGateway(t, { config, env, tidyEveryMs })
  const token = await it.mint('alice')
  const spend = async (count: number, messages: number) => {
    for (; count > 0; count--) t.equal((await it.submit(token)).status, 200)
    it.time.advance(300_000)
    await told({ gateway: it.gateway, receiver }, messages)
  }
  await it.gateway.tidy()
  await spend(8, 1)
  await spend(2, 2)
  t.match(receiver.messages.map(({ body }) => JSON.parse(String(body)).data), [
    { kind: 'ceiling', about: 'pool:film day:2026-01-15', grade: 80, details: { account: 'pool:film', percent: 80 } },
    { kind: 'ceiling', grade: 100, details: { percent: 100, resetsAt: '2026-01-16T00:00:00.000Z' } }
  ])
})
