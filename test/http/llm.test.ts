import t from 'tap'
import { cutStream, events, json, llmConfig, startLlmGateway, stream } from '../helpers/llm-gateway.ts'
import { until } from '../helpers/until.ts'

const chatPath = '/v1/chat/completions'
const hello = { id: 'c1', choices: [{ index: 0, delta: { role: 'assistant', content: 'Hello' }, finish_reason: null }] }
const whole = { id: 'c1', choices: [{ index: 0, delta: {}, finish_reason: 'stop' }] }
const usage = { id: 'c1', choices: [], usage: { prompt_tokens: 10, completion_tokens: 5 } }
const chatAnswer = {
  id: 'c1',
  choices: [{ index: 0, message: { role: 'assistant', content: 'Hello' }, finish_reason: 'stop' }],
  usage: { prompt_tokens: 10, completion_tokens: 5 }
}
const messages = [{ role: 'user', content: 'hi' }]
const chat = { model: 'plain-1', max_tokens: 50, messages }
const streamed = { ...chat, stream: true, stream_options: { include_usage: true } }

/** The most that a call of `chat` may cost in credits, and what was set aside for it. */
function boundOf (body: object, output = 50): number {
  return (JSON.stringify(body).length + 1024) / 1000 + output * 2 / 1000
}

function inPieces (text: string, length: number): string[] {
  return Array.from({ length: Math.ceil(text.length / length) }, (_, at) => text.slice(at * length, (at + 1) * length))
}

t.test('an answer passes as it is, and costs what it used', async t => {
  const { call, mint, left, calls, lines } = await startLlmGateway(t, json(chatAnswer))
  const token = await mint('alice')
  const body =
    '{ "model":"plain-1", "seed": 12345678901234567890, "max_tokens": 50, "messages":[{"role":"user","content":"hi"}] }'
  const { status, text, headers } = await call(chatPath, { token, body, headers: { 'x-stainless-lang': 'js', cookie: 'a=b' } })
  t.equal(status, 200)
  t.equal(text, JSON.stringify(chatAnswer))
  t.equal(calls[0]!.text, body, 'the request as well, byte for byte')
  t.match(headers.get('content-type'), /^application\/json/)
  t.ok(headers.get('request-id'))
  t.equal(headers.get('request-id'), headers.get('x-request-id'))
  t.equal(await left(token), 1000 - 0.02)
  const { headers: sent } = calls[0]!
  t.strictSame(Object.keys(sent).sort(), [
    'accept', 'accept-encoding', 'authorization', 'connection', 'content-length', 'content-type', 'host', 'user-agent'
  ], 'no header of the caller\'s')
  t.equal(sent.authorization, 'Bearer apixo-key-of-the-operator-0001')
  t.match(lines().find(line => line.operation === 'chatCompletions'), {
    stage: 'reply', granted: true, code: 'OK', subject: 'app:alice', model: 'plain-1', status: 200
  })
})

t.test('each dialect goes to its own address, with the key in its own header', async t => {
  const { call, mint, calls, answerWith } = await startLlmGateway(t, json(chatAnswer))
  const token = await mint('alice')
  const ask = async (path: string, body: object, headers = {}) => {
    const { status, text } = await call(path, { body, headers: { 'x-api-key': token, ...headers } })
    t.equal(status, 200, text)
    const { path: called, headers: { authorization, 'x-api-key': key, 'x-goog-api-key': google, accept }, headers: all } = calls.at(-1)!
    return { called, authorization, key, google, accept, version: all['anthropic-version'], beta: all['anthropic-beta'] }
  }
  const none = { authorization: undefined, key: undefined, google: undefined, version: undefined, beta: undefined, accept: 'application/json' }
  const key = 'apixo-key-of-the-operator-0001'
  t.strictSame(await ask('/v1/chat/completions?t=a', chat), { called: '/v1/chat/completions', ...none, authorization: `Bearer ${key}` })
  t.strictSame(await ask('/v1/responses', { model: 'plain-1', input: 'x' }), { called: '/v1/responses', ...none, authorization: `Bearer ${key}` })
  t.strictSame(await ask('/v1/messages', { model: 'plain-1', messages }), { called: '/v1/messages', ...none, key, version: '2023-06-01' })
  t.strictSame(await ask('/v1/messages', { model: 'plain-1', messages }, { 'anthropic-version': '2024-01-01', 'anthropic-beta': 'a-2025,b' }),
    { called: '/v1/messages', ...none, key, version: '2024-01-01', beta: 'a-2025,b' })
  for (const version of ['v1', 'v1beta']) {
    t.strictSame(await ask(`/${version}/models/plain-1:generateContent`, { contents: [] }),
      { called: '/v1beta/models/plain-1:generateContent', ...none, google: key })
    answerWith(stream(events({ candidates: [{ finishReason: 'STOP' }], usageMetadata: { promptTokenCount: 1, candidatesTokenCount: 1 } })))
    t.strictSame(await ask(`/${version}/models/google/m%3Ax:streamGenerateContent?alt=sse&x=1`, { contents: [] }),
      { called: '/v1beta/models/google/m%3Ax:streamGenerateContent?alt=sse', ...none, google: key, accept: 'text/event-stream' })
    answerWith(json(chatAnswer))
  }
})

t.test('a stream passes byte for byte, with headers that no proxy holds it up for', async t => {
  const text = events(hello, whole, usage, '[DONE]')
  const { call, mint, left, answerWith } = await startLlmGateway(t, stream(text))
  const token = await mint('alice')
  const reply = await call(chatPath, { token, body: streamed })
  t.equal(reply.text, text)
  t.match(Object.fromEntries(reply.headers), {
    'content-type': 'text/event-stream',
    'cache-control': 'no-store, no-transform',
    'content-encoding': 'identity',
    'x-accel-buffering': 'no',
    'x-content-type-options': 'nosniff'
  })
  t.equal(reply.headers.get('request-id'), reply.headers.get('x-request-id'))
  t.equal(await left(token), 1000 - 0.02)
  for (const cut of [1, 7, 60]) {
    answerWith(stream(...inPieces(text, cut)))
    t.equal((await call(chatPath, { token, body: streamed })).text, text)
  }
  t.equal(await left(token), 1000 - 4 * 0.02)
})

t.test('usage that the gateway has asked for is not shown to a caller that has not', async t => {
  const text = events(hello, whole, usage, '[DONE]')
  const { call, mint, left, calls, answerWith } = await startLlmGateway(t, stream(text))
  const token = await mint('alice')
  const body = { ...chat, stream: true }
  const shown = events(hello, whole, '[DONE]')
  t.equal((await call(chatPath, { token, body })).text, shown)
  t.match(calls[0]!.text, /"stream_options":\{"include_usage":true\}/)
  t.equal(await left(token), 1000 - 0.02)
  const withComments = `: one\n\n${events(hello)}: two\n\n${events(whole, usage)}: three\n\n${events('[DONE]')}`
  for (const cut of [1, 3, 50]) {
    answerWith(stream(...inPieces(withComments, cut)))
    t.equal((await call(chatPath, { token, body })).text, `: one\n\n${events(hello)}: two\n\n${events(whole)}: three\n\n${events('[DONE]')}`)
  }
  const long = { ...usage, id: 'x'.repeat(20_000) }
  answerWith(stream(events(long).slice(0, 18_000), events(long).slice(18_000)))
  t.equal((await call(chatPath, { token, body: { ...body, n: 1 } })).text.includes('x'.repeat(20_000)), true, 'no usage is as long')
  answerWith(stream(events(hello, whole) + 'data: {"id":'))
  t.equal((await call(chatPath, { token, body })).text, events(hello, whole) + 'data: {"id":', 'what was held comes at the end')
})

t.test('the head goes out with the first byte, and each event at once', async t => {
  const { origin, mint, calls } = await startLlmGateway(t, ({ response }) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' }).flushHeaders()
  })
  const token = await mint('alice')
  const answer = fetch(origin + chatPath, {
    method: 'POST', headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' }, body: JSON.stringify(streamed)
  })
  await until('it is asked', () => calls.length === 1)
  calls[0]!.response.write(': hb\n\n')
  const reader = (await answer).body!.getReader()
  t.equal(Buffer.from((await reader.read()).value!).toString(), ': hb\n\n')
  for (const one of [hello, whole]) {
    calls[0]!.response.write(events(one))
    t.equal(Buffer.from((await reader.read()).value!).toString(), events(one))
  }
  // The upstream holds its connection open; the caller's answer ends with the event that ends it.
  calls[0]!.response.write(events(usage, '[DONE]'))
  t.equal(Buffer.from((await reader.read()).value!).toString(), events(usage, '[DONE]'))
  t.equal((await reader.read()).done, true)
  await until('the upstream is let go', () => calls[0]!.response.destroyed)
})

t.test('what comes after the event that ends a stream is not passed on', async t => {
  const text = events({ type: 'response.completed', response: { usage: { input_tokens: 10, output_tokens: 5 } } })
  const { call, mint, left } = await startLlmGateway(t, stream(text + events({ type: 'late' })))
  const token = await mint('alice')
  const reply = await call('/v1/responses', { token, body: { model: 'plain-1', input: 'x', max_output_tokens: 50, stream: true } })
  t.equal(reply.text, text)
  t.equal(await left(token), 1000 - 0.02)
})

t.test('what is left after a cut is told as an error that nobody repeats, and is charged by what was seen', async t => {
  const { call, mint, left, answerWith, log } = await startLlmGateway(t, cutStream(events(hello)))
  const token = await mint('alice')
  const { text } = await call(chatPath, { token, body: streamed })
  t.equal(text.slice(0, events(hello).length), events(hello))
  t.match(JSON.parse(text.slice(events(hello).length + 'data: '.length)), {
    error: { type: 'invalid_request_error', code: 'GW_UPSTREAM_INVALID', message: String }
  })
  const input = (JSON.stringify(streamed).length + 1024) / 1000
  t.equal(await left(token), Number((1000 - input - 'Hello'.length * 2 / 1000).toFixed(6)))
  t.match(log.find(line => line.msg === 'request' && line.operation === 'chatCompletions'), { code: 'GW_UPSTREAM_INVALID' })
  answerWith(cutStream(events(hello) + 'data: {"id'))
  t.match((await call(chatPath, { token, body: streamed })).text, /data: \{"id\n\ndata: \{"error"/, 'its own event, whatever was begun')
  answerWith(stream(events(hello)))
  t.match((await call(chatPath, { token, body: streamed })).text, /GW_UPSTREAM_INVALID/, 'a clean end is none')
  answerWith(cutStream(events(hello, whole)))
  t.equal((await call(chatPath, { token, body: streamed })).text, events(hello, whole), 'nobody misses what comes after a finish')
  const said = events(hello, { error: { message: 'overloaded' } })
  answerWith(stream(said))
  t.equal((await call(chatPath, { token, body: streamed })).text, said, 'what the upstream has said is not said again')
})

t.test('an outcome that nobody knows is charged, and told again for half a minute', async t => {
  const { call, mint, left, calls, answerWith, time } = await startLlmGateway(t, ({ response }) => response.destroy())
  const token = await mint('alice')
  const ask = async (body: object = chat) => await call(chatPath, { token, body })
  const first = await ask()
  t.equal(first.status, 502)
  t.equal(first.error, 'GW_OUTCOME_UNKNOWN')
  t.equal(first.headers.get('x-should-retry'), 'false')
  t.match(first.json, { error: { type: 'invalid_request_error', code: 'GW_OUTCOME_UNKNOWN', param: null } })
  const after = await left(token)
  t.equal(after, Number((1000 - boundOf(chat)).toFixed(6)))
  answerWith(json(chatAnswer))
  t.equal((await ask()).text.replace(/./g, ''), first.text.replace(/./g, ''))
  t.equal((await ask()).error, 'GW_OUTCOME_UNKNOWN')
  t.equal(calls.length, 1, 'nothing is sent')
  t.equal(await left(token), after, 'nothing is charged')
  t.equal((await ask({ ...chat, seed: 1 })).status, 200, 'another call is another call')
  time.advance(30_000)
  t.equal((await ask()).status, 200)
})

t.test('before the first content a cut is told in the stream, and told again', async t => {
  const opening = { type: 'message_start', message: { usage: { input_tokens: 10, output_tokens: 1 } } }
  const { call, mint, left, calls } = await startLlmGateway(t, cutStream(events(opening)))
  const token = await mint('alice')
  const body = { model: 'plain-1', max_tokens: 50, messages, stream: true }
  const { text } = await call('/v1/messages', { token, body })
  t.match(text, /event: error\ndata: \{"type":"error","error":\{"type":"GW_OUTCOME_UNKNOWN","message":"GW_OUTCOME_UNKNOWN: /)
  t.equal(await left(token), Number((1000 - boundOf(body)).toFixed(6)))
  const again = await call('/v1/messages', { token, body })
  t.equal(again.status, 502)
  t.match(again.json, { type: 'error', error: { type: 'GW_OUTCOME_UNKNOWN' }, request_id: again.headers.get('request-id') })
  t.equal(calls.length, 1)
})

t.test('a caller that hangs up ends the call at the upstream, pays for what it saw, and is remembered by nobody', async t => {
  const { origin, mint, left, calls, answerWith, call, lines } = await startLlmGateway(t, ({ response }) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' }).write(events(hello))
  })
  const token = await mint('alice')
  const leave = async (body: object) => {
    const caller = new AbortController()
    const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' }
    const before = calls.length
    const answer = fetch(origin + chatPath, { method: 'POST', headers, body: JSON.stringify(body), signal: caller.signal })
    const begun = answer.then(async reply => await reply.body!.getReader().read()).catch(() => {})
    await until('it is asked', () => calls.length > before)
    const start = performance.now()
    await Promise.race([begun, new Promise(resolve => setTimeout(resolve, 30))])
    caller.abort()
    await until('the upstream is let go', () => calls.at(-1)!.response.destroyed)
    t.ok(performance.now() - start < 1000)
    await until('its line is written', () => lines().filter(line => line.operation === 'chatCompletions').length === calls.length)
  }
  await leave(streamed)
  const input = (JSON.stringify(streamed).length + 1024) / 1000
  t.equal(await left(token), Number((1000 - input - 'Hello'.length * 2 / 1000).toFixed(6)))
  answerWith(() => {})
  await leave(chat)
  t.equal(await left(token), Number((1000 - input - 0.01 - boundOf(chat)).toFixed(6)), 'all of it may have been made')
  answerWith(json(chatAnswer))
  t.equal((await call(chatPath, { token, body: chat })).status, 200, 'it is a new call')
})

t.test('a call for which there is no place is refused, and nothing of it is set aside, counted or sent', async t => {
  const { call, mint, calls, left, answerWith } = await startLlmGateway(t, () => {}, {
    config: `${llmConfig}llm: { maxCalls: 2 }\n`
  })
  const [alice, bob] = [await mint('alice'), await mint('bob')]
  const running = [1, 2].map(seed => call(chatPath, { token: alice, body: { ...chat, seed } }))
  await until('both are asked', () => calls.length === 2)
  const refused = await call(chatPath, { token: bob, body: chat })
  t.match(refused, { status: 503, error: 'GW_OVERLOADED', json: { error: { type: 'server_error', message: /places/ } } })
  t.equal(refused.headers.get('retry-after'), '5')
  t.equal(await left(bob), 1000)
  t.equal(calls.length, 2)
  calls[0]!.response.destroy()
  await Promise.race(running)
  answerWith(json(chatAnswer))
  t.equal((await call(chatPath, { token: bob, body: chat })).status, 200, 'a place is free again')
  calls[1]!.response.destroy()
  await Promise.all(running)
})
