import t from 'tap'
import { fromOwnPage, swap } from '../helpers/cookies.ts'
import { doors } from '../helpers/doors.ts'
import { startGateway, type TestGateway } from '../helpers/gateway.ts'
import { slowBody } from '../helpers/slow-body.ts'

const config = 'plans: { default: { credits: unlimited } }\nlimits: { addressFailuresPerMinute: 1000 }'

/** Ways in which a session ends, each with all of alice's sessions. */
const ends: Readonly<Record<string, (gateway: TestGateway, token: string) => Promise<unknown>>> = {
  expires: async ({ time }) => time.advance(60_000),
  'is revoked': async ({ call }, token) => await call('/gateway/session', { method: 'DELETE', token }),
  'is ended by another one of its subject': async ({ call, mint }) =>
    await call('/gateway/session?everywhere=true', { method: 'DELETE', token: await mint('alice') })
}

for (const [how, end] of Object.entries(ends)) {
  t.test(`a session that ${how} opens no door with its next request`, async t => {
    const gateway = await startGateway(t, { config })
    const { call, mint, submit, sandbox } = gateway
    const token = await mint('alice', { ttlSeconds: 60 })
    const { taskId } = (await submit(token)).json.data
    await end(gateway, token)
    for (const [method, path] of doors(taskId)) {
      const reply = await call(path, {
        method,
        token,
        ...(path.includes('generateTask') ? { body: { input: { prompt: 'x' } } } : {})
      })
      t.match(reply, { status: 401, error: 'GW_BAD_SESSION' }, `${method} ${path}`)
    }
    t.equal(sandbox.submits.length, 1)
  })
}

t.test('requests that run when a session ends are answered, and the next one is not', async t => {
  const gateway = await startGateway(t, { config })
  const { call, mint } = gateway
  const cookie = await swap(gateway, await mint('alice'))
  const running = Array.from({ length: 10 }, () => call('/gateway/tasks', fromOwnPage(cookie)))
  await Promise.all(running)
  await call('/gateway/session', { method: 'DELETE', ...fromOwnPage(cookie) })
  const after = await Promise.all(Array.from({ length: 10 }, () => call('/gateway/tasks', fromOwnPage(cookie))))
  t.same(new Set(after.map(({ error }) => error)), new Set(['GW_BAD_SESSION']))
})

t.test('a submit whose body is still coming when its session ends is not made', async t => {
  const { origin, call, mint, time, sandbox, lines } = await startGateway(t, { config })
  const submit = (token: string) =>
    slowBody(t, `${origin}/api/v1/generateTask/nano-banana`, token, { input: { prompt: 'a red cube' } })
  const [ended, slow] = [await mint('alice'), await mint('bob')]
  const finish = await submit(ended)
  await call('/gateway/session', { method: 'DELETE', token: ended })
  time.advance(1000)
  t.match(await finish(), { status: 401, error: 'GW_BAD_SESSION' })
  t.equal(sandbox.submits.length, 0)
  t.match(lines().at(-1), { operation: 'generateTask', stage: 'authenticate', granted: false, code: 'GW_BAD_SESSION' })
  const finishSlowly = await submit(slow)
  time.advance(60_000)
  t.match(await finishSlowly(), { status: 200, error: undefined }, 'a body may take its time')
})
