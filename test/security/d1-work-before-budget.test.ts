import { once } from 'node:events'
import t, { type Test } from 'tap'
import { startGateway, type TestGateway } from '../helpers/gateway.ts'
import { rawAnswer, rawSocket } from '../helpers/raw-http.ts'
import { redisServer } from '../helpers/redis-server.ts'
import { until } from '../helpers/until.ts'

const config = `
plans:
  default: { requestsPerMinute: 1000, pollsPerMinute: 1000, concurrentTasks: 1000, credits: 100 }
  busy: { requestsPerMinute: 2, pollsPerMinute: 4, concurrentTasks: 1000, credits: unlimited }
  poor: { requestsPerMinute: 1000, pollsPerMinute: 1000, concurrentTasks: 1000, credits: 1 }
  none: { requestsPerMinute: 1000, pollsPerMinute: 1000, concurrentTasks: 1000, credits: 0 }
prices: { "grok-video": 0, "flux-2": { credits: 0, per: input.count }, "claude-*": { inputPerMillion: 1, outputPerMillion: 1 }, "*": 1 }
batches: { enabled: true }
guests: { enabled: true, plan: poor }
`
const path = '/api/v1/generateTask/nano-banana'
const [small, large] = [65_536, 1_000_000]
/** A body of so many bytes. */
const bodyOf = (bytes: number) => {
  const frame = '{"input":{"prompt":""}}'
  return `{"input":{"prompt":"${'x'.repeat(bytes - frame.length)}"}}`
}

const stores: Readonly<Record<string, (t: Test) => Promise<Readonly<Record<string, string>>>>> = {
  SQLite: async () => ({}),
  Redis: async t => ({ GATEWAY_STORE: (await redisServer(t)).url })
}

/** Sends the head of a submit, and of its body what is given; the answer that comes to that. */
async function announce (t: Test, { origin }: TestGateway, token: string, framing: string, part = '', to = path) {
  const socket = await rawSocket(t, origin)
  let text = ''
  socket.on('data', chunk => {
    text += String(chunk)
  })
  socket.write(
    `POST ${to} HTTP/1.1\r\nhost: gateway.test\r\nauthorization: Bearer ${token}\r\ncontent-type: application/json\r\n${framing}\r\n\r\n${part}`
  )
  await until('an answer', () => /HTTP\/1\.1 [2-5].*\r\n\r\n.*\}$/s.test(text))
  socket.destroy()
  return rawAnswer(text)
}

const chunk = (text: string) => `${text.length.toString(16)}\r\n${text}\r\n`

for (const [name, open] of Object.entries(stores)) {
  const start = async (t: Test) => await startGateway(t, { config, env: await open(t) })

  t.test(
    `a subject at its rate, or without credits or uses, is refused a large body before a byte of it has come (${name})`,
    async t => {
      const it = await start(t)
      const [busy, poor] = [await it.mint('busy', { plan: 'busy' }), await it.mint('poor', { plan: 'poor' })]
      const [once, spent] = [await it.mint('once', { uses: 1 }), await it.mint('spent', { credits: 1 })]
      for (const token of [busy, busy, poor, once, spent]) t.equal((await it.submit(token)).status, 200)
      const made = it.sandbox.submits.length
      const refusals = [
        [busy, 429, 'GW_RATE_LIMITED'],
        [poor, 402, 'GW_CREDITS_EXHAUSTED'],
        [once, 402, 'GW_SESSION_SPENT'],
        [spent, 402, 'GW_CREDITS_EXHAUSTED']
      ] as const
      for (const [token, status, error] of refusals) {
        for (const to of [path, `${path}/batches`]) {
          t.match(
            await announce(t, it, token, `content-length: ${small + 1}`, '', to),
            { status, error },
            `${error}: announced`
          )
          t.match(
            await announce(t, it, token, 'transfer-encoding: chunked', chunk('x'.repeat(small + 1)), to),
            { status, error },
            `${error}: in chunks`
          )
        }
        t.match(
          await it.call(path, { token, body: bodyOf(small) }),
          { status, error },
          `${error}: a small body is read`
        )
      }
      t.match((await announce(t, it, busy, `content-length: ${large}`)).text, /retry-after: [1-5]?\d\r/)
      t.ok(
        it
          .lines()
          .filter(({ status }) => status === 429 || status === 402)
          .every(({ stage }) => stage === 'admit')
      )
      t.equal(it.sandbox.submits.length, made)
    }
  )

  t.test(`a look is not counted, and a good submit passes whatever its length (${name})`, async t => {
    const it = await start(t)
    const token = await it.mint('busy', { plan: 'busy' })
    t.equal(
      (await it.call(path, { token, body: `${' '.repeat(large)}{` })).error,
      'GW_BAD_REQUEST',
      'a wrong body costs no rate'
    )
    t.equal((await it.call(path, { token, body: bodyOf(large) })).headers.get('ratelimit-remaining'), '1')
    const chunked = await fetch(it.origin + path, {
      method: 'POST',
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
      body: new Blob([bodyOf(large)]).stream(),
      duplex: 'half'
    } as RequestInit)
    t.match([chunked.status, chunked.headers.get('ratelimit-remaining')], [200, '0'])
    t.equal((await it.call(path, { token, body: bodyOf(large) })).error, 'GW_RATE_LIMITED')
    const rich = await it.mint('rich', { uses: 5, credits: 5 })
    t.equal((await it.call(path, { token: rich, body: bodyOf(large) })).status, 200)
  })

  t.test(`whoever has no credits may ask again for what is paid for, and use what is free (${name})`, async t => {
    const it = await start(t)
    const token = await it.mint('poor', { plan: 'poor' })
    const headers = { 'idempotency-key': 'order-1' }
    const body = bodyOf(small)
    const first = await it.call(path, { token, body, headers })
    t.equal(first.status, 200)
    const again = await it.call(path, { token, body, headers })
    t.match(again, { status: 200, text: first.text })
    t.equal(again.headers.get('idempotency-replayed'), 'true')
    const none = await it.mint('none', { plan: 'none', uses: 9 })
    t.equal((await it.call('/api/v1/generateTask/grok-video', { token: none, body: bodyOf(large) })).status, 200)
    t.not(
      (await it.call('/api/v1/generateTask/flux-2', { token: none, body: bodyOf(large) })).error,
      'GW_CREDITS_EXHAUSTED'
    )
    t.equal(
      (await it.call('/api/v1/generateTask/claude-x', { token: none, body: bodyOf(large) })).error,
      'GW_CREDITS_EXHAUSTED'
    )
  })

  t.test(`an answer given again costs a poll, and no rate, use or credit (${name})`, async t => {
    const it = await start(t)
    const token = await it.mint('busy', { plan: 'busy', uses: 2, credits: 2 })
    const submit = () => it.submit(token, 'a cube', 'nano-banana', { headers: { 'idempotency-key': 'order-1' } })
    t.equal((await submit()).headers.get('ratelimit-remaining'), '1')
    for (let round = 0; round < 3; round++) {
      const reply = await submit()
      t.equal(reply.status, 200)
      t.equal(reply.headers.get('ratelimit-remaining'), null, 'what is left of submits is not told by a poll')
    }
    const { credits, uses } = (await it.call('/gateway/session', { token })).json // a poll as well
    t.match([credits.session.left, uses.left], [1, 1])
    const refused = await submit()
    t.match(refused, { status: 429, error: 'GW_RATE_LIMITED' })
    t.equal(refused.headers.get('ratelimit-limit'), '4', 'pollsPerMinute')
    t.equal((await it.submit(token, 'another')).headers.get('ratelimit-remaining'), '0')
    t.equal(it.sandbox.submits.length, 2)
  })
}

t.test('the same holds for a batch that is asked for again', async t => {
  const it = await startGateway(t, { config })
  const token = await it.mint('busy', { plan: 'busy' })
  const body = { items: [{ client_item_id: 'a', idempotency_key: 'k', input: { prompt: 'x' } }] }
  const submit = () => it.call(`${path}/batches`, { token, body, headers: { 'idempotency-key': 'order-1' } })
  for (let round = 0; round < 5; round++) t.equal((await submit()).status, 200)
  t.equal((await submit()).error, 'GW_RATE_LIMITED')
  t.equal(it.sandbox.submits.length, 1)
})

t.test('a repeat without a key that is one too many leaves its answer to the next', async t => {
  const it = await startGateway(t, { config })
  const token = await it.mint('busy', { plan: 'busy' })
  const submit = () => it.submit(token, 'sandbox:drop-after')
  t.equal((await submit()).error, 'GW_OUTCOME_UNKNOWN')
  for (let round = 0; round < 4; round++) t.equal((await submit()).headers.get('idempotency-replayed'), 'true')
  t.equal((await submit()).error, 'GW_RATE_LIMITED', 'a fifth poll')
  it.time.advance(60_000)
  const again = await submit()
  t.match([again.error, again.headers.get('idempotency-replayed')], ['GW_OUTCOME_UNKNOWN', 'true'])
  t.equal(it.sandbox.submits.length, 1)
})

t.test('a body in chunks whose sender hangs up is forgotten', async t => {
  const it = await startGateway(t, { config })
  const token = await it.mint('none', { plan: 'none' })
  const socket = await rawSocket(t, it.origin)
  const arrived = once(it.gateway.app.server, 'request')
  socket.write(
    `POST ${path} HTTP/1.1\r\nhost: gateway.test\r\nauthorization: Bearer ${token}\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n${chunk('{"input"')}`
  )
  await arrived
  await it.call('/livez')
  socket.destroy()
  await until('its access line', () => it.lines().some(({ operation }) => operation === 'generateTask'))
  t.equal(
    (await it.call(path, { token, body: { input: { prompt: 'x' } } })).error,
    'GW_CREDITS_EXHAUSTED',
    'and the next is answered'
  )
})

t.test('while the store is down a large body is not read', async t => {
  const server = await redisServer(t)
  const it = await startGateway(t, { config, env: { GATEWAY_STORE: server.url } })
  const token = await it.mint('alice')
  t.equal((await it.submit(token)).status, 200)
  await server.kill()
  const { status, error } = await announce(t, it, token, `content-length: ${large}`)
  t.match([status, error], [503, 'GW_STORE_DOWN'])
})
