import t, { type Test } from 'tap'
import { clock } from '../helpers/clock.ts'
import { crankedGateway, intervalMs } from '../helpers/cranked-gateway.ts'
import { adminToken, apiKey, taskMs, type TestGatewayOptions } from '../helpers/gateway.ts'
import { identityProvider } from '../helpers/identity-provider.ts'
import { redisServer } from '../helpers/redis-server.ts'
import { until } from '../helpers/until.ts'

const hourMs = 3_600_000
const steps = {
  'an hour back': -hourMs,
  'an hour ahead': hourMs,
  '25 hours back': -25 * hourMs,
  '25 hours ahead': 25 * hourMs
}
const roomy =
  'plans: { default: { credits: unlimited, concurrentTasks: 1000, requestsPerMinute: 10000, pollsPerMinute: 10000 } }'
const keys = ['apixo-key-number-one', 'apixo-key-number-two'] as const

const redis = await redisServer(t)
let databases = 0
/** Of one server for all, which is much sooner there. */
const nextDatabase = () => `${redis.url}/${databases++}`

/**
 * A gateway whose wall clock is stepped; its upstream has a clock of its own, which is not. Sessions outlast every
 * step.
 */
async function stepped (t: Test, options: TestGatewayOptions = {}) {
  const time = clock()
  const start = time.now()
  const it = await crankedGateway(t, {
    config: roomy,
    ...options,
    time,
    sandbox: { now: () => start + time.elapsed(), ...options.sandbox }
  })
  return { ...it, session: (subject: string, more = {}) => it.mint(subject, { ttlSeconds: 30 * 86_400, ...more }) }
}

function eachStep (title: string, run: (t: Test, stepMs: number) => Promise<void>): void {
  t.test(title, async t => {
    for (const [name, stepMs] of Object.entries(steps)) await t.test(name, async t => await run(t, stepMs))
  })
}

eachStep(
  'a running task is asked about after its interval, and not before, wherever the clock is put',
  async (t, stepMs) => {
    const { session, made, status, polls, pass, time } = await stepped(t)
    const token = await session('alice')
    const taskId = await made(token)
    await status(token, taskId)
    time.step(stepMs)
    const early = await status(token, taskId)
    t.equal(polls(), 1, 'no time has passed')
    t.equal(early.headers.get('retry-after'), String(intervalMs / 1000))
    pass(intervalMs)
    t.equal((await status(token, taskId)).json.data.state, 'processing')
    pass(taskMs)
    t.equal((await status(token, taskId)).json.data.state, 'success')
  }
)

eachStep('an event stream hears of the end though nobody polls', async (t, stepMs) => {
  const { session, made, listenTo, passUntil, time } = await stepped(t)
  const token = await session('alice')
  const stream = await listenTo(await made(token), { token })
  await until('the first state is told', () => stream.events.length === 1)
  time.step(stepMs)
  await passUntil('the end is told', () => stream.events.some(({ data }) => JSON.parse(data).data.state === 'success'))
})

eachStep('a benched key is asked about again after ten seconds, and not an hour later', async (t, stepMs) => {
  const { session, submit, sandbox, time, log, pass } = await stepped(t, { keys })
  const token = await session('alice')
  sandbox.revoke(keys[0])
  for (let round = 0; round < 2; round++) await submit(token)
  sandbox.restore(keys[0])
  time.step(stepMs)
  const probes = () => sandbox.calls.filter(({ url }) => url.includes('current-balance')).length
  const before = probes()
  for (let round = 0; round < 4; round++) await submit(token)
  t.equal(probes(), before, 'not before its time')
  pass(10_000)
  await submit(token)
  await until('it is back', () => log.some(line => line.msg === 'the key is back in use'))
})

eachStep('the last key that was benched is back for whoever comes after the announced wait', async (t, stepMs) => {
  const { session, submit, sandbox, time, pass } = await stepped(t)
  const token = await session('alice')
  sandbox.revoke(apiKey)
  await submit(token)
  sandbox.restore(apiKey)
  time.step(stepMs)
  const refused = await submit(token)
  t.equal(refused.error, 'GW_NO_KEY')
  const waitSeconds = Number(refused.headers.get('retry-after'))
  t.ok(waitSeconds >= 1 && waitSeconds <= 10, `a wait of ${waitSeconds} s`)
  pass(waitSeconds * 1000)
  await submit(token)
  await until('it serves again', async () => (await submit(token)).status === 200)
})

eachStep('a key that was refused one model serves it again a minute later', async (t, stepMs) => {
  const { session, submit, sandbox, time, pass } = await stepped(t)
  const token = await session('alice')
  sandbox.next((_request, response) => {
    response.writeHead(401, { 'content-type': 'application/json' }).end('{"code":401,"message":"no"}')
  })
  await submit(token)
  time.step(stepMs)
  pass(60_000)
  t.equal((await submit(token)).status, 200)
})

eachStep('a key that an issuer has rotated in is known by its first token', async (t, stepMs) => {
  const issuer = await identityProvider(t)
  const config = `${roomy}\nissuers: [{ issuer: "${issuer.origin}", algorithms: [ES256], audience: app, plan: default }]`
  const { call, time, pass } = await stepped(t, { config })
  const print = (options = {}) => {
    const seconds = Math.floor(time.now() / 1000)
    return issuer.sign({ iss: issuer.origin, sub: 'alice', aud: 'app', iat: seconds, exp: seconds + 3600 }, options)
  }
  t.equal((await call('/gateway/session', { token: await print() })).status, 200)
  await call('/gateway/session', { token: await print({ header: { kid: 'made-up' } }) })
  await issuer.addKey('ES256')
  time.step(stepMs)
  pass(30_000)
  t.equal((await call('/gateway/session', { token: await print() })).status, 200)
})

eachStep(
  'a spent rate is had again a minute later, and the announced wait is no longer than that',
  async (t, stepMs) => {
    const config =
      'plans: { default: { credits: unlimited, concurrentTasks: 1000, requestsPerMinute: 2, pollsPerMinute: 10000 } }'
    const { session, submit, time, pass } = await stepped(t, { config })
    const token = await session('alice')
    await submit(token)
    pass(20_000)
    await submit(token)
    time.step(stepMs)
    const refused = await submit(token)
    t.match(refused, { status: 429, error: 'GW_RATE_LIMITED' })
    t.equal(refused.headers.get('retry-after'), '40')
    pass(39_999)
    t.equal((await submit(token)).status, 429)
    pass(1)
    t.equal((await submit(token)).status, 200)
  }
)

eachStep(
  'an address that has used up its requests, or its failures, is let in again a minute later',
  async (t, stepMs) => {
    for (const [limits, path, code] of [
      ['addressRequestsPerMinute: 3', '/gateway/', 200],
      ['addressFailuresPerMinute: 3', '/nowhere', 404]
    ] as const) {
      const { call, time, pass } = await stepped(t, { config: `${roomy}\nlimits: { ${limits} }` })
      for (let count = 0; count < 3; count++) t.equal((await call(path)).status, code)
      time.step(stepMs)
      const refused = await call(path)
      t.match(refused, { status: 429, error: 'GW_THROTTLED' }, limits)
      t.ok(Number(refused.headers.get('retry-after')) <= 60)
      pass(60_000)
      t.equal((await call(path)).status, code)
    }
  }
)

for (const store of ['memory', 'redis'] as const) {
  const openIn = async (t: Test) => {
    const env = store === 'memory' ? {} : { GATEWAY_STORE: nextDatabase() }
    const it = await stepped(t, { env: { ...env, GATEWAY_ADMIN_TOKEN: adminToken } })
    const statusOf = async (token: string) => (await it.call('/gateway/session', { token })).status
    const endAll = (subject: string) => it.call('/gateway/admin/revocations', { token: adminToken, body: { subject } })
    return { ...it, statusOf, endAll }
  }

  eachStep(
    `all sessions of a subject end, also those dated before the step, and a new one is good (${store})`,
    async (t, stepMs) => {
      const { session, statusOf, endAll, time, call } = await openIn(t)
      const old = await session('alice')
      const bobs = await session('bob')
      time.step(stepMs)
      t.match(await endAll('app:alice'), { error: null })
      const fresh = await session('alice')
      t.same([await statusOf(old), await statusOf(fresh), await statusOf(bobs)], [401, 200, 200])
      time.step(-stepMs)
      t.same(
        [await statusOf(old), await statusOf(fresh), await statusOf(bobs)],
        [401, 200, 200],
        'also when the clock is right again'
      )

      time.step(stepMs)
      t.equal((await call('/gateway/session?everywhere=true', { method: 'DELETE', token: fresh })).status, 204)
      const next = await session('alice')
      t.same([await statusOf(fresh), await statusOf(next)], [401, 200], 'who logs out everywhere is out')
      time.step(-stepMs)
      t.same([await statusOf(old), await statusOf(fresh), await statusOf(next)], [401, 401, 200])
    }
  )

  eachStep(`a session that was revoked stays so, whatever is forgotten meanwhile (${store})`, async (t, stepMs) => {
    const { mint, session, statusOf, call, time, gateway } = await openIn(t)
    const revoked = await mint('alice', { ttlSeconds: 3600 })
    t.equal((await call('/gateway/session', { method: 'DELETE', token: revoked })).status, 204)
    time.step(stepMs)
    const other = await session('bob')
    await call('/gateway/session', { method: 'DELETE', token: other })
    await gateway.tidy()
    time.step(-stepMs)
    t.equal(await statusOf(revoked), 401)
  })
}

t.test(
  'a submit that is repeated with its idempotency key is not charged again, a day and an hour ahead and when the clock is right again',
  async t => {
    for (const env of [{}, { GATEWAY_STORE: nextDatabase() }]) {
      const { session, submit, sandbox, time, gateway } = await stepped(t, { env })
      const token = await session('alice')
      const send = () => submit(token, 'a cube', 'nano-banana', { headers: { 'idempotency-key': 'order-42' } })
      const { status, text } = await send()
      t.equal(status, 200)
      for (const stepMs of [25 * hourMs, -25 * hourMs]) {
        time.step(stepMs)
        await gateway.tidy()
        t.equal((await send()).text, text)
      }
      t.equal(sandbox.calls.filter(({ url }) => url.includes('/generateTask/')).length, 1)
    }
  }
)

eachStep(
  'a token of another issuer that was ended stays so, and one dated in the future is refused',
  async (t, stepMs) => {
    const issuer = await identityProvider(t)
    const config = `${roomy}\nissuers: [{ issuer: "${issuer.origin}", algorithms: [ES256], audience: app, plan: default }]`
    const { call, time, gateway } = await stepped(t, { config, env: { GATEWAY_ADMIN_TOKEN: adminToken } })
    const print = (at: number, more = {}) =>
      issuer.sign({
        iss: issuer.origin,
        sub: 'alice',
        aud: 'app',
        iat: Math.floor(at / 1000),
        exp: Math.floor(at / 1000) + 30 * 86_400,
        ...more
      })
    const statusOf = async (token: string) => (await call('/gateway/session', { token })).status
    const old = await print(time.now())
    t.equal(await statusOf(old), 200)
    await gateway.tidy()
    time.step(stepMs)
    t.match(
      await call('/gateway/admin/revocations', { token: adminToken, body: { subject: `${issuer.origin}:alice` } }),
      { error: null }
    )
    t.equal(await statusOf(old), 401)
    time.step(-stepMs)
    t.equal(await statusOf(old), 401, 'also when the clock is right again')
    t.equal(await statusOf(await print(time.now() + 60_000, { sub: 'bob' })), 200)
    t.equal(await statusOf(await print(time.now() + 62_000, { sub: 'bob' })), 401)
  }
)

eachStep(
  'a running task is asked about by replicas over Redis, and the wait that is told is no longer than its interval',
  async (t, stepMs) => {
    const { session, made, status, polls, pass, time } = await stepped(t, { env: { GATEWAY_STORE: nextDatabase() } })
    const token = await session('alice')
    const taskId = await made(token)
    await status(token, taskId)
    time.step(stepMs)
    const { headers } = await status(token, taskId)
    t.ok(Number(headers.get('retry-after') ?? 0) <= intervalMs / 1000)
    pass(intervalMs)
    const before = polls()
    await status(token, taskId)
    t.equal(polls(), before + 1)
  }
)
