import t, { type Test } from 'tap'
import { clock } from '../helpers/clock.ts'
import { identityProvider, type Misbehaviour, misbehaviours, type SignOptions } from '../helpers/identity-provider.ts'
import { until } from '../helpers/until.ts'
import { jwtSessions } from '../helpers/verifiers.ts'

const badSession = { code: 'GW_BAD_SESSION' }
const minute = 60_000
/** Generous next to the time that the keys may take, 300 ms, and short next to waiting for each token. */
const promptMs = 2000
const kinds = Object.keys(misbehaviours) as Misbehaviour[]

async function setup (t: Test, { how, discovery = false }: { how?: Misbehaviour, discovery?: boolean } = {}) {
  const time = clock()
  const provider = await identityProvider(t)
  const failures: string[] = []
  provider.misbehave(how)
  const verifier = jwtSessions({
    issuers: [
      {
        issuer: provider.origin,
        algorithms: ['ES256'],
        plan: 'default',
        ...(discovery ? {} : { jwksUrl: provider.jwksUrl })
      }
    ],
    secrets: new Map(),
    ...time,
    onKeysFailed: issuer => failures.push(issuer),
    timeoutMs: 300
  })
  let count = 0
  const print = (options?: SignOptions) =>
    provider.sign(
      { iss: provider.origin, sub: 'alice', jti: `id-${++count}`, exp: time.now() / 1000 + 86_400 },
      options
    )
  const verify = async (options?: SignOptions) => await verifier.verify(await print(options))
  return { time, provider, failures, verifier, print, verify }
}

for (const discovery of [false, true]) {
  t.test(
    `an issuer that ${discovery ? 'has its configuration' : 'publishes keys'} badly at start stops nobody, is told of, and is asked again`,
    async t => {
      for (const how of kinds) {
        const { provider, failures, verify, time } = await setup(t, { how, discovery })
        await until(`${how}: told`, () => failures.length === 1)
        t.same(failures, [provider.origin], how)
        await t.rejects(verify(), badSession, `${how}: nobody is let in without keys`)
        provider.misbehave(undefined)
        time.advance(5000)
        t.ok(await verify(), `${how}: and then all is well`)
      }
    }
  )
}

t.test('an issuer that comes up after the gateway serves the very next token', async t => {
  const { provider, failures, verify } = await setup(t, { how: 'is down' })
  await until('told', () => failures.length === 1)
  provider.misbehave(undefined)
  t.ok(await verify())
})

t.test('known keys go on working while their issuer is down or answers rubbish', async t => {
  for (const how of kinds) {
    const { provider, failures, verify, verifier, print, time } = await setup(t)
    const seen = await print()
    t.ok(await verifier.verify(seen), how)
    provider.misbehave(how)
    for (const age of [11, 25, 180]) {
      time.advance(age * minute)
      t.ok(await verify(), `${how}: a new token`)
      t.ok(await verifier.verify(seen), `${how}: one that was seen before`)
    }
    await until('told', () => failures.length >= 2)
  }
})

t.test('a flood of made-up key ids costs the issuer one request in half a minute, and is refused at once', async t => {
  for (const how of [undefined, 'is down', 'says nothing'] as const) {
    const { provider, verify, time } = await setup(t)
    t.ok(await verify())
    provider.misbehave(how)
    for (let round = 1; round <= 3; round++) {
      const before = performance.now()
      await Promise.all(
        Array.from({ length: 50 }, async (_, index) => {
          await t.rejects(verify({ header: { kid: `made-up-${round}-${index}` } }), badSession)
        })
      )
      for (let index = 0; index < 50; index++) {
        await t.rejects(verify({ header: { kid: `made-up-too-${round}-${index}` } }), badSession)
      }
      t.equal(provider.requests.length, 1 + round, `${how ?? 'well'}: round ${round}`)
      t.ok(performance.now() - before < promptMs, 'nobody waits for the cool-down')
      t.ok(await verify(), 'and who has a good token does not notice')
      time.advance(30_000)
    }
  }
})

t.test('so does a flood of forged signatures', async t => {
  const { provider, verify } = await setup(t)
  const stranger = await identityProvider(t)
  const key = await stranger.addKey('ES256')
  t.ok(await verify())
  for (let index = 0; index < 50; index++) await t.rejects(verify({ key, header: { kid: 'key-1' } }), badSession)
  t.equal(provider.requests.length, 2)
})

t.test('a flood while there are no keys at all costs one request in five seconds', async t => {
  const { provider, verify, time } = await setup(t, { how: 'is down' })
  await t.rejects(verify(), badSession)
  const asked = provider.requests.length
  for (let round = 1; round <= 3; round++) {
    time.advance(5000)
    await Promise.all(Array.from({ length: 50 }, () => t.rejects(verify(), badSession)))
    for (let index = 0; index < 50; index++) await t.rejects(verify(), badSession)
    t.equal(provider.requests.length, asked + round)
  }
})

t.test('keys are waited for in all a bounded time, though an issuer never ends its answer', async t => {
  for (const how of ['says nothing', 'stops halfway', 'never stops talking'] as const) {
    const { verify } = await setup(t, { how, discovery: true })
    const before = performance.now()
    await t.rejects(verify(), badSession)
    t.ok(performance.now() - before < promptMs, how)
  }
})

t.test('an issuer that sends elsewhere is not followed', async t => {
  const { provider, verify } = await setup(t, { how: 'sends elsewhere' })
  await t.rejects(verify(), badSession)
  t.notOk(provider.requests.includes('/other-keys'))
})
