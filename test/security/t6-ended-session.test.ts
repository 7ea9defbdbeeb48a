import { request } from 'node:http'
import t from 'tap'
import { fromOwnPage, swap } from '../helpers/cookies.ts'
import { startGateway, type TestGateway } from '../helpers/gateway.ts'

const config = 'plans: { default: { credits: unlimited } }\nlimits: { addressFailuresPerMinute: 1000 }'

/** Each door that a session opens. */
const doors = (taskId: string) => [
  ['POST', '/api/v1/generateTask/nano-banana'], ['GET', `/api/v1/statusTask/nano-banana?taskId=${taskId}`], ['GET', '/api/v1/apikeys/current-balance'], ['GET', '/gateway/session'],
  ['DELETE', '/gateway/session'], ['POST', '/gateway/sessions/cookie'], ['GET', '/gateway/models'], ['GET', '/gateway/tasks'], ['GET', `/gateway/tasks/${taskId}/results/0`],
  ['GET', '/gateway/events'], ['GET', `/gateway/tasks/${taskId}/events`]
] as const

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
      const reply = await call(path, { method, token, ...(path.includes('generateTask') ? { body: { input: { prompt: 'x' } } } : {}) })
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
  const body = JSON.stringify({ input: { prompt: 'a red cube' } })
  /** Begins to send, lets that happen, and sends the rest. */
  const submitAround = async (token: string, meanwhile: () => Promise<unknown>): Promise<string | undefined> => {
    const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json', 'content-length': body.length }
    const upload = request(`${origin}/api/v1/generateTask/nano-banana`, { method: 'POST', headers: { ...headers, expect: '100-continue' } })
    const answered = new Promise<string | undefined>((resolve, reject) => {
      upload.on('error', reject).on('response', response => {
        response.resume()
        resolve([response.statusCode, response.headers['x-gateway-error']].join(' '))
      })
    })
    upload.flushHeaders()
    await new Promise(resolve => upload.once('continue', resolve))
    upload.write(body.slice(0, 5))
    await call('/livez') // what was sent before has been read by then
    await meanwhile()
    upload.end(body.slice(5))
    return await answered
  }
  const [ended, slow] = [await mint('alice'), await mint('bob')]
  t.equal(await submitAround(ended, async () => {
    await call('/gateway/session', { method: 'DELETE', token: ended })
    time.advance(1000)
  }), '401 GW_BAD_SESSION')
  t.equal(sandbox.submits.length, 0)
  t.match(lines().at(-1), { operation: 'generateTask', stage: 'authenticate', granted: false, code: 'GW_BAD_SESSION' })
  t.equal(await submitAround(slow, async () => time.advance(60_000)), '200 ', 'a body may take its time')
})
