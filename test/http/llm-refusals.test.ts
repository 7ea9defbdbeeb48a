import t from 'tap'
import { apiKey } from '../helpers/gateway.ts'
import { events, json, llmConfig, startLlmGateway, stream } from '../helpers/llm-gateway.ts'

const messages = [{ role: 'user', content: 'hi' }]
const chat = { model: 'plain-1', max_tokens: 50, messages }
const chatAnswer = {
  choices: [{ index: 0, message: { content: 'Hello' }, finish_reason: 'stop' }], usage: { prompt_tokens: 10, completion_tokens: 5 }
}
const chatPath = '/v1/chat/completions'
const routes: ReadonlyArray<readonly [path: string, body: object]> = [
  [chatPath, chat],
  ['/v1/responses', { model: 'plain-1', input: 'hi', max_output_tokens: 50 }],
  ['/v1/messages', chat],
  ['/v1beta/models/plain-1:generateContent', { contents: [], generationConfig: { maxOutputTokens: 50 } }]
]

/** What each dialect makes of one error. */
function shapes (status: number, code: string, openaiType: string): readonly object[] {
  const openai = { error: { message: String, type: openaiType, code, param: null } }
  return [
    openai, openai, { type: 'error', error: { type: code, message: new RegExp(`^${code}: `) }, request_id: String },
    { error: { code: status, message: String, status: code } }
  ]
}

t.test('an error has the shape of its dialect, wherever it comes from', async t => {
  const { call, mint, calls, answerWith } = await startLlmGateway(t, json(chatAnswer), {
    config: `${llmConfig}limits: { bodyBytes: 100000 }\n`
  })
  const token = await mint('alice')
  const tasksOnly = await mint('bob', { scopes: ['tasks:write'] })
  const others = await mint('carol', { models: ['deep-*'] })
  const each = async (
    status: number, code: string, type: string, ask: (path: string, body: object) => ReturnType<typeof call>
  ) => {
    for (const [at, [path, body]] of routes.entries()) {
      const { status: got, json: told, error, headers } = await ask(path, body)
      t.equal(got, status, `${path} ${code}`)
      t.match(told, shapes(status, code, type)[at]!)
      t.equal(error, code)
      t.ok(headers.get('request-id'))
      t.equal(headers.get('request-id'), headers.get('x-request-id'))
    }
  }
  await each(401, 'GW_NO_SESSION', 'authentication_error', (path, body) => call(path, { body }))
  await each(401, 'GW_BAD_SESSION', 'authentication_error', (path, body) => call(path, { body, token: 'x' }))
  await each(403, 'GW_SCOPE_DENIED', 'permission_error', (path, body) => call(path, { body, token: tasksOnly }))
  await each(403, 'GW_MODEL_DENIED', 'permission_error', (path, body) => call(path, { body, token: others }))
  await each(400, 'GW_BAD_REQUEST', 'invalid_request_error', path => call(path, { body: '{"a":1,"a":2}', token }))
  await each(400, 'GW_BAD_REQUEST', 'invalid_request_error', path => call(path, { method: 'POST', token }))
  await each(400, 'GW_BAD_REQUEST', 'invalid_request_error', (path, body) => call(`${path}?key=x`, { body, token }))
  await each(413, 'GW_TOO_LARGE', 'invalid_request_error', path => call(path, { body: { a: 'x'.repeat(100_000) }, token }))
  t.equal(calls.length, 0, 'nothing was sent')
  answerWith(({ response }) => response.destroy())
  await each(502, 'GW_OUTCOME_UNKNOWN', 'invalid_request_error', (path, body) => call(path, { body, token }))
})

t.test('what a plan does not give is refused before anything is sent', async t => {
  const { call, mint, calls } = await startLlmGateway(t, json(chatAnswer), {
    config: 'plans: { default: { credits: 1.3, requestsPerMinute: 3 } }\n' + llmConfig.slice(llmConfig.indexOf('prices:'))
  })
  const token = await mint('alice')
  t.match(await call(chatPath, { token, body: { ...chat, max_tokens: 200 } }), { status: 402, error: 'GW_CREDITS_EXHAUSTED' })
  t.equal((await call(chatPath, { token, body: chat })).status, 200)
  t.match(await call(chatPath, { token, body: chat }), { status: 200 })
  const limited = await call(chatPath, { token, body: chat })
  t.match(limited, { status: 429, error: 'GW_RATE_LIMITED' })
  t.match(limited.headers.get('retry-after'), /^[1-5]?\d$/)
  t.equal(calls.length, 2)
  const once = await mint('bob', { uses: 1 })
  t.equal((await call(chatPath, { token: once, body: chat })).status, 200)
  t.match(await call(chatPath, { token: once, body: chat }), { status: 402, error: 'GW_SESSION_SPENT' })
})

t.test('a model without a price per token is refused by its name, and so is what has no price', async t => {
  const { call, mint, calls } = await startLlmGateway(t, json(chatAnswer))
  const token = await mint('alice')
  const said = async (body: object, path = chatPath) => {
    const { status, json: { error } } = await call(path, { token, body })
    t.equal(status, 400)
    return error.message
  }
  t.match(await said({ ...chat, model: 'sora-2' }), /"sora-2" has no price per token here/)
  t.match(await said({ ...chat, model: 'plain-1:online' }), /"plain-1:online" has no price per token here/)
  t.match(await said({ ...chat, modalities: ['audio'] }), /"plain-1" has no price for audioOutput/)
  t.match(await said({ ...chat, model: '../x' }), /A model is named with/)
  t.match(await said({ contents: [] }, '/v1beta/models/plain-1:generateContent?alt=proto'), /alt must be/)
  t.match(await said({ ...chat, max_tokens: 1e15 }), /beyond all credits/)
  t.match(await said(chat, '/v1/messages?key=1'), /never goes into the query/)
  t.equal(calls.length, 0)
  t.equal((await call(chatPath, { token, body: { ...chat, model: 'audio-1', modalities: ['audio'] } })).status, 200)
  for (const [header, value] of [
    ['anthropic-version', 'a b'], ['anthropic-beta', 'files-api-2025-04-14'], ['anthropic-beta', 'a, compact-2026-01-12'], ['anthropic-beta', 'ä']
  ] as const) {
    t.equal((await call('/v1/messages', { token, body: chat, headers: { [header]: value } })).status, 400, value)
  }
})

t.test('without a price per token there are no LLM routes', async t => {
  const { call, mint } = await startLlmGateway(t, json({}), { config: 'plans: { default: {} }\nprices: { "*": 1 }\n' })
  t.match(await call(chatPath, { token: await mint('alice'), body: chat }), { status: 404, json: { code: 404 } })
})

t.test('a base URL that is a little wrong is told what to change', async t => {
  const { call, mint } = await startLlmGateway(t, json({}))
  const token = await mint('alice')
  const said = async (path: string, method = 'POST') => {
    const { status, json: { error, message }, error: code } = await call(path, { token, method, body: method === 'POST' ? chat : undefined })
    t.strictSame([status, code], [404, 'GW_NOT_FOUND'], path)
    return error.message ?? message
  }
  t.match(await said('/v1/v1/messages'), /Leave \/v1 off the base URL, as the SDK adds \/v1\./)
  t.match(await said('/v1beta/v1/models/plain-1:generateContent'), /Leave \/v1beta off the base URL/)
  t.match(await said('/messages'), /Add \/v1 to the base URL/)
  t.match(await said('/models/plain-1:generateContent'), /Add \/v1/)
  t.match(await said('/chat/completions'), /Add \/v1 to/)
  t.match(await said('/v1?t=a%2Fv1%2Fmessages'), /without a query/)
  t.match(await said('/v1beta/models/plain-1:countTokens'), /:generateContent and :streamGenerateContent/)
  t.match(await said('/v1beta/models/plain-1'), /:generateContent/)
  t.equal((await call('/messages')).status, 404, 'a page of that name is a front end\'s own')
})

t.test('the models of a session are those it may use that have a price, in the shape of whoever asks', async t => {
  const { call, mint, left } = await startLlmGateway(t, json({}), {
    config: `${llmConfig.replace('  "*": 1', '  "exact-1": { inputPerMillion: 1, outputPerMillion: 1 }\n  "*": 1')}`,
    models: [
      { id: 'plain-1', category: 'text' }, { id: 'plain-2', category: 'text' }, { id: 'unpriced-1', category: 'text' },
      { id: 'plain-picture', category: 'image' }
    ]
  })
  const token = await mint('alice', { models: ['plain-1', 'exact-*', 'unpriced-1'] })
  const said = async (path: string, headers: Record<string, string> = {}) => {
    const reply = await call(path, { token, headers })
    t.ok(reply.headers.get('request-id'), path)
    return [reply.status, reply.json] as const
  }
  const model = (id: string) => ({ id, object: 'model', created: 0, owned_by: 'apixo' })
  t.strictSame(await said('/v1/models?limit=20'), [200, { object: 'list', data: [model('plain-1'), model('exact-1')] }])
  t.strictSame(await said('/v1/models/exact-1'), [200, model('exact-1')])
  t.match(await said('/v1/models', { 'anthropic-version': '2023-06-01' }), [200, {
    data: [{ type: 'model', id: 'plain-1' }, { id: 'exact-1' }], has_more: false, first_id: 'plain-1', last_id: 'exact-1'
  }])
  for (const [path, headers] of [['/v1beta/models', {}], ['/v1/models', { 'x-goog-api-client': 'genai' }]] as const) {
    t.match(await said(path, headers), [200, { models: [{ name: 'models/plain-1' }, { name: 'models/exact-1' }] }])
  }
  for (const name of ['plain-2', 'unpriced-1', 'no%20such', 'none']) {
    t.match(await said(`/v1/models/${name}`), [404, { error: { code: 'GW_NOT_FOUND', message: /no such model/ } }], name)
  }
  t.match(await call('/v1/models'), { status: 401, json: { error: { code: 'GW_NO_SESSION', type: 'authentication_error' } } })
  t.match(await call('/v1/models', { token: await mint('bob', { scopes: ['tasks:read'] }) }), { status: 403, error: 'GW_SCOPE_DENIED' })
  t.match(await call('/v1/models', { token: await mint('carl', { models: ['none'] }), headers: { 'anthropic-version': '1' } }),
    { json: { data: [], first_id: null, last_id: null } })
  t.equal(await left(token), 1000)
})

t.test('an address that is no route says in its dialect what there is', async t => {
  const { call } = await startLlmGateway(t, json({}))
  for (const [path, method, shape] of [
    ['/v1/embeddings', 'POST', { error: { code: 'GW_NOT_FOUND', message: /chat\/completions/ } }],
    ['/v1/chat/completions/', 'POST', { error: { code: 'GW_NOT_FOUND' } }],
    ['/v1/responses/resp_1', 'GET', { error: { code: 'GW_NOT_FOUND', message: /responses/ } }],
    ['/v1/messages/count_tokens?beta=true', 'POST', { type: 'error', error: { type: 'GW_NOT_FOUND', message: /Anthropic/ } }],
    ['/v1beta/files', 'DELETE', { error: { code: 404, status: 'GW_NOT_FOUND', message: /Gemini/ } }],
    ['/v1/tunedModels/m:generateContent', 'POST', { error: { code: 404, status: 'GW_NOT_FOUND' } }]
  ] as const) {
    t.match(await call(path, { method }), { status: 404, error: 'GW_NOT_FOUND', json: shape }, path)
  }
})

t.test('another method on an LLM route is a 405 in the shape of its dialect', async t => {
  const { call } = await startLlmGateway(t, json({}))
  for (const [path, shape] of [
    [chatPath, { error: { code: 'GW_METHOD_NOT_ALLOWED', type: 'invalid_request_error' } }],
    ['/v1/responses', { error: { code: 'GW_METHOD_NOT_ALLOWED' } }],
    ['/v1/messages', { type: 'error', error: { type: 'GW_METHOD_NOT_ALLOWED' } }],
    ['/v1beta/models/plain-1:generateContent', { error: { code: 405, status: 'GW_METHOD_NOT_ALLOWED' } }]
  ] as const) {
    const reply = await call(path)
    t.match(reply, { status: 405, error: 'GW_METHOD_NOT_ALLOWED', json: shape }, path)
    t.equal(reply.headers.get('allow'), 'POST', path)
  }
})

t.test('what the upstream refuses costs nothing, and has a real status in the shape of the dialect', async t => {
  const { call, mint, left, answerWith } = await startLlmGateway(t, json(chatAnswer))
  const token = await mint('alice')
  const ask = async (path = chatPath, body: object = chat) => await call(path, { token, body })
  const own = { error: { message: 'slow down', type: 'rate_limit_error', code: 'x', param: null } }
  answerWith(({ response }) => {
    response.writeHead(429, { 'content-type': 'text/plain', 'retry-after': '7', 'retry-after-ms': '0', 'set-cookie': 'a=b' }).end(JSON.stringify(own))
  })
  const limited = await ask()
  t.equal(limited.status, 429)
  t.strictSame(limited.json, own)
  t.match(limited.headers.get('content-type'), /^application\/json/)
  t.equal(limited.headers.get('retry-after'), '7')
  t.equal(limited.headers.get('retry-after-ms'), null)
  t.equal(limited.headers.get('set-cookie'), null)
  t.equal(limited.error, null, 'it is the upstream\'s own')
  answerWith(({ response }) => { response.writeHead(503, { 'retry-after': '120' }).end(JSON.stringify({ code: 503, message: 'busy' })) })
  const busy = await ask()
  t.strictSame([busy.status, busy.headers.get('retry-after')], [503, null])
  t.match(busy.json, { error: { message: 'busy', type: 'server_error', code: 'apixo_503' } })
  for (const [path, body] of routes) {
    answerWith(json({ code: 422, message: 'Invalid mode', data: null }))
    const { status, json: { error }, text } = await ask(path, body)
    t.equal(status, 422, path)
    t.match(error.message, /Invalid mode/)
    t.match(text, path.includes('models') ? /"code":422/ : /apixo_422/)
  }
  answerWith(json({ code: 7, message: 'odd' }))
  t.equal((await ask()).status, 500, 'a code that is no status')
  answerWith(json({ error: { message: 'no', code: 'x' } }))
  t.equal((await ask()).status, 500, 'an error with a 200')
  answerWith(json({ error: { code: 429 } }))
  t.match(await ask(), { status: 429, json: { error: { message: 'The upstream refused this call.' } } })
  answerWith(json({ type: 'error', error: { type: 'overloaded_error', message: 'Overloaded' } }, 529))
  t.match(await ask('/v1/messages'), { status: 529, json: { error: { type: 'overloaded_error' } } })
  answerWith(({ response }) => { response.writeHead(404).end('<html>') })
  t.match(await ask(), { status: 502, error: 'GW_UPSTREAM_INVALID' })
  t.equal(await left(token), 1000)
})

t.test('what may have been done is charged, whatever somebody on the way says', async t => {
  const { call, mint, left, answerWith } = await startLlmGateway(t, json(chatAnswer))
  const token = await mint('alice')
  let seed = 0
  const cost = async (more: object = {}) => {
    const before = await left(token)
    const body = { ...chat, seed: seed++, ...more }
    const { status, error } = await call(chatPath, { token, body })
    const bound = (JSON.stringify(body).length + 1024 + 100) / 1000
    t.ok(Math.abs(before - await left(token) - bound) < 1e-6)
    return [status, error]
  }
  const unknown = [502, 'GW_OUTCOME_UNKNOWN']
  for (const [status, text, type] of [
    [200, 'no JSON', 'application/json'], [200, '7', 'application/json'], [502, '{"error":{"message":"x"}}', 'application/json'],
    [504, '{}', 'application/json'], [500, '<html>', 'text/html'], [307, '{}', 'application/json'], [200, '<html>', 'text/html']
  ] as const) {
    answerWith(({ response }) => { response.writeHead(status, { 'content-type': type, location: '/x' }).end(text) })
    t.strictSame(await cost(), unknown, `${status} ${text}`)
  }
  answerWith(({ response }) => {
    response.writeHead(200, { 'content-type': 'application/json' })
    const piece = Buffer.alloc(8 * 1024 * 1024, ' ')
    for (let n = 0; n < 9; n++) response.write(piece)
    response.end('{}')
  })
  t.strictSame(await cost(), unknown, 'longer than is collected')
  answerWith(stream(events({ type: 'error', error: { type: 'overloaded_error', message: 'Overloaded' } })))
  t.strictSame(await cost({ stream: true, stream_options: { include_usage: true } }), unknown, 'an error at once')
  answerWith(stream())
  t.strictSame(await cost({ stream: true, stream_options: { include_usage: true } }), unknown, 'a stream without a byte')
  answerWith(({ response }) => { response.writeHead(200, { 'content-encoding': 'gzip' }).end('x') })
  t.strictSame(await cost(), unknown)
  answerWith(({ response }) => { response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ text: apiKey })) })
  t.strictSame(await cost(), [502, 'GW_UPSTREAM_INVALID'])
})

t.test('a stream that repeats our key ends before it', async t => {
  const text = events({ choices: [{ index: 0, delta: { content: `the key is ${apiKey}` } }] })
  for (const cut of [text.length, 40, 1]) {
    const pieces = Array.from({ length: Math.ceil(text.length / cut) }, (_, at) => text.slice(at * cut, (at + 1) * cut))
    await t.test(`in pieces of ${cut}`, async t => {
      const { call, mint } = await startLlmGateway(t, ({ response }) => {
        response.writeHead(200, { 'content-type': 'text/event-stream' }).write(events({ choices: [{ index: 0, delta: { content: 'a' } }] }))
        const next = (at: number) => {
          if (at < pieces.length) response.write(pieces[at]!, () => setImmediate(next, at + 1))
          else response.end()
        }
        setImmediate(next, 0)
      })
      const { text: told } = await call(chatPath, { token: await mint('alice'), body: { ...chat, stream: true } })
      t.notMatch(told, /apixo-key-of/)
      t.match(told, /GW_UPSTREAM_INVALID/)
    })
  }
})

t.test('a refusal of our key is not the caller\'s, and another key has one try', async t => {
  const keys = ['apixo-key-number-one-0001', 'apixo-key-number-two-0002']
  const { call, mint, left, calls, answerWith, sandbox, time } = await startLlmGateway(t, ({ headers, response }) => {
    const isFirst = headers.authorization?.endsWith('0001')
    response.writeHead(isFirst ? 401 : 200, { 'content-type': 'application/json' })
      .end(JSON.stringify(isFirst ? { error: { message: 'no such key' } } : chatAnswer))
  }, { keys })
  const token = await mint('alice')
  t.equal((await call(chatPath, { token, body: chat })).status, 200)
  t.strictSame(calls.map(({ headers }) => headers.authorization), keys.map(key => `Bearer ${key}`))
  t.equal(await left(token), 1000 - 0.02)
  answerWith(({ headers, response }) => {
    response.writeHead(402, { 'content-type': 'application/json' }).end(JSON.stringify({ message: headers.authorization }))
  })
  t.match(await call(chatPath, { token, body: chat }), { status: 502, error: 'GW_UPSTREAM_REFUSED_KEY' }, 'not one that repeats it')
  answerWith(json({ error: { message: 'not for you' } }, 403))
  t.equal((await call(chatPath, { token, body: chat })).status, 403, 'it is about the request')
  answerWith(({ headers: { authorization }, response }) => {
    response.writeHead(400).end(JSON.stringify({ message: authorization }))
  })
  t.match(await call(chatPath, { token, body: chat }), { status: 502, error: 'GW_UPSTREAM_INVALID' })
  t.equal(await left(token), 1000 - 0.02)
  time.advance(10_000) // from then on the keys may be asked for their balance again
  sandbox.balanceUsd = 0
  answerWith(json({ message: 'Insufficient credits' }, 402))
  t.match(await call(chatPath, { token, body: chat }), { status: 503, error: 'GW_NO_KEY' })
})

t.test('an upstream that can not be reached costs nothing', async t => {
  const { call, mint, left } = await startLlmGateway(t, json({}), { env: { APIXO_LLM_BASE_URL: 'http://127.0.0.1:1' } })
  const token = await mint('alice')
  t.match(await call(chatPath, { token, body: chat }), { status: 502, error: 'GW_UPSTREAM_UNREACHABLE' })
  t.equal(await left(token), 1000)
})

t.test('pages of listed origins may send what SDKs send, and read what those need', async t => {
  const { call, mint } = await startLlmGateway(t, json(chatAnswer), { env: { GATEWAY_ALLOWED_ORIGINS: 'https://app.example' } })
  const names = 'authorization, content-type, x-stainless-retry-count, anthropic-version, anthropic-dangerous-direct-browser-access, x-goog-api-client'
  const preflight = await call('/v1/messages', {
    method: 'OPTIONS',
    headers: { origin: 'https://app.example', 'access-control-request-method': 'POST', 'access-control-request-headers': names }
  })
  t.equal(preflight.status, 204)
  t.equal(preflight.headers.get('access-control-allow-headers'), names)
  const reply = await call(chatPath, { token: await mint('alice'), body: chat, headers: { origin: 'https://app.example' } })
  t.match(reply.headers.get('access-control-expose-headers'), /x-request-id, request-id.*retry-after, x-should-retry/)
})
