import { connect } from 'node:net'
import t from 'tap'
import { createGateway } from '../../src/gateway.ts'
import { openStore } from '../../src/stores.ts'
import { clock } from '../helpers/clock.ts'
import { events, json, llmConfig, startLlmGateway, stream } from '../helpers/llm-gateway.ts'
import { crankedTimers } from '../helpers/timers.ts'
import { until } from '../helpers/until.ts'

const chatPath = '/v1/chat/completions'
const hello = { choices: [{ index: 0, delta: { content: 'Hello' }, finish_reason: null }] }
const whole = { choices: [{ index: 0, delta: {}, finish_reason: 'stop' }] }
const usage = { choices: [], usage: { prompt_tokens: 10, completion_tokens: 5 } }
const chat = { model: 'plain-1', max_tokens: 50, messages: [] }
const streamed = { ...chat, stream: true, stream_options: { include_usage: true } }
const chatAnswer = { choices: [{ index: 0, message: { content: 'Hello' }, finish_reason: 'stop' }] }

/** With timers that the test cranks. */
async function cranked (t: Parameters<typeof startLlmGateway>[0], answer: Parameters<typeof startLlmGateway>[1]) {
  const time = clock()
  const timers = crankedTimers(time)
  const gateway = await startLlmGateway(t, answer, { time, timers })
  const pass = (ms: number): void => {
    time.advance(ms)
    timers.run()
  }
  return { ...gateway, pass }
}

t.test('an answer that takes too long as a whole ends with an error, and one that has not begun with a 502', async t => {
  const { call, mint, calls, pass, answerWith } = await cranked(t, ({ response }) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' }).write(events(hello))
  })
  const token = await mint('alice')
  const begun = call(chatPath, { token, body: streamed })
  await until('it is asked', () => calls.length === 1)
  await new Promise(resolve => setTimeout(resolve, 50))
  pass(1_800_000)
  t.match((await begun).text, /Hello[^]*GW_UPSTREAM_INVALID/)
  answerWith(() => {})
  const silent = call(chatPath, { token, body: chat })
  await until('it is asked', () => calls.length === 2)
  pass(1_800_000)
  t.match(await silent, { status: 502, error: 'GW_OUTCOME_UNKNOWN' })
})

t.test('a call that outlasts the lease of a submit is settled all the same', async t => {
  const { call, mint, left, calls, pass, gateway } = await cranked(t, () => {})
  const token = await mint('alice')
  const answer = call(chatPath, { token, body: chat })
  await until('it is asked', () => calls.length === 1)
  for (let ms = 0; ms < 600_000; ms += 5000) {
    pass(5000)
    await new Promise(resolve => setImmediate(resolve))
    if (ms % 50_000 === 0) await gateway.tidy()
  }
  json({ ...chatAnswer, usage: usage.usage })(calls[0]!)
  t.equal((await answer).status, 200)
  t.equal(await left(token), 1000 - 0.02)
})

t.test('a caller that does not read holds the upstream back', async t => {
  let written = 0
  const piece = events({ choices: [{ index: 0, delta: { content: 'x'.repeat(60_000) } }] })
  const { origin, mint, calls } = await startLlmGateway(t, ({ response }) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' })
    const more = (): void => {
      while (!response.destroyed && written < 200_000_000) {
        written += piece.length
        if (!response.write(piece)) {
          response.once('drain', more)
          return
        }
      }
      response.end()
    }
    more()
  })
  const body = JSON.stringify(streamed)
  const socket = connect(Number(new URL(origin).port), '127.0.0.1')
  t.teardown(() => socket.destroy())
  socket.write(`POST ${chatPath} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${await mint('alice')}\r\n` +
    `content-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`)
  socket.pause()
  await until('it is asked', () => calls.length === 1)
  let before = -1
  await until('nothing more is written', async () => {
    const isSame = before === written
    before = written
    await new Promise(resolve => setTimeout(resolve, 200))
    return isSame && written > 0
  })
  t.ok(written < 50_000_000, `${written} bytes`)
  socket.resume()
  await until('it goes on', () => written > before)
})

t.test('what costs more than was set aside is charged, and is an alarm', async t => {
  const { call, mint, left, log, answerWith } = await startLlmGateway(t, json({
    ...chatAnswer, usage: { prompt_tokens: 900_000, completion_tokens: 5 }
  }))
  const token = await mint('alice')
  t.equal((await call(chatPath, { token, body: chat })).status, 200)
  t.equal(await left(token), Number((1000 - 900.01).toFixed(6)))
  t.match(log.find(line => line.alarm === 'over-reserve'), { model: 'plain-1', charged: 900_010_000 })
  answerWith(json({ ...chatAnswer, usage: { prompt_tokens: 900_000, completion_tokens: 5 } }))
  t.equal((await call(chatPath, { token, body: { ...chat, seed: 1 } })).status, 200)
  t.equal(await left(token), 0)
  t.match(await call(chatPath, { token, body: { ...chat, seed: 2 } }), { status: 402, error: 'GW_CREDITS_EXHAUSTED' })
})

t.test('a whole answer without usage is charged by what it says, or by all that was set aside', async t => {
  const { call, mint, left, answerWith } = await startLlmGateway(t, json(chatAnswer))
  const token = await mint('alice')
  t.equal((await call(chatPath, { token, body: chat })).status, 200)
  const input = (JSON.stringify(chat).length + 1024) / 1000
  t.equal(await left(token), Number((1000 - input - 0.01).toFixed(6)), 'its bytes')
  answerWith(stream(events(hello, whole, '[DONE]')))
  const deep = { ...streamed, model: 'deep-1' }
  const before = await left(token)
  t.equal((await call(chatPath, { token, body: deep })).text, events(hello, whole, '[DONE]'))
  const bound = (JSON.stringify(deep).length + 1024 + 100) / 1000
  t.equal(await left(token), Number((before - bound).toFixed(6)), 'it may have thought')
  const shallow = { ...deep, reasoning_effort: 'none' }
  const then = await left(token)
  await call(chatPath, { token, body: shallow })
  t.equal(await left(token), Number((then - (JSON.stringify(shallow).length + 1024 + 10) / 1000).toFixed(6)), 'it may not')
})

t.test('a prompt that Gemini refuses ends its stream, and costs its input alone', async t => {
  const refused = events({ promptFeedback: { blockReason: 'SAFETY' }, usageMetadata: { promptTokenCount: 9, totalTokenCount: 9 } })
  const { call, mint, left } = await startLlmGateway(t, stream(refused))
  const token = await mint('alice')
  const path = '/v1beta/models/google-1:streamGenerateContent?alt=sse'
  t.equal((await call(path, { token, body: { contents: [] } })).text, refused)
  t.equal(await left(token), 1000 - 0.009)
})

t.test('a cut is charged by the greater of what was told and what was seen', async t => {
  const opening = { type: 'message_start', message: { usage: { input_tokens: 10, cache_read_input_tokens: 20, output_tokens: 1 } } }
  const piece = { type: 'content_block_delta', delta: { text: 'Hello' } }
  const { call, mint, left, answerWith } = await startLlmGateway(t, stream(events(opening, piece)))
  const token = await mint('alice')
  const body = { model: 'plain-1', max_tokens: 50, messages: [], stream: true }
  await call('/v1/messages', { token, body })
  t.equal(await left(token), Number((1000 - 0.01 - 0.002 - 0.01).toFixed(6)))
  answerWith(stream(events(opening, piece, { type: 'message_delta', usage: { output_tokens: 40 } })))
  await call('/v1/messages', { token, body })
  t.equal(await left(token), Number((1000 - 0.022 - 0.012 - 0.08).toFixed(6)))
})

t.test('a model that thinks without being asked to is seen to, and a cut then costs what was set aside', async t => {
  const opening = { type: 'message_start', message: { usage: { input_tokens: 10, output_tokens: 1 } } }
  const piece = { type: 'content_block_delta', delta: { text: 'Hello' } }
  const { call, mint, left, answerWith } = await startLlmGateway(t, stream(events(opening, piece)))
  const token = await mint('alice')
  const body = { model: 'deep-1', max_tokens: 50, messages: [], stream: true }
  await call('/v1/messages', { token, body })
  t.equal(await left(token), Number((1000 - 0.01 - 0.01).toFixed(6)), 'what was seen')
  for (const type of ['thinking', 'redacted_thinking']) {
    const before = await left(token)
    answerWith(stream(events(opening, { type: 'content_block_start', content_block: { type } }, piece)))
    await call('/v1/messages', { token, body })
    const bound = (JSON.stringify(body).length + 1024) / 1000 + 0.1
    t.equal(await left(token), Number((before - bound).toFixed(6)))
  }
})

t.test('a stop tells those that still listen', async t => {
  const { origin, mint, calls, gateway } = await startLlmGateway(t, ({ response }) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' }).write(events(hello))
  }, { config: `${llmConfig}upstream: { drainMs: 100 }\n` })
  const headers = { authorization: `Bearer ${await mint('alice')}`, 'content-type': 'application/json' }
  const answer = await fetch(origin + chatPath, { method: 'POST', headers, body: JSON.stringify(streamed) })
  t.equal(calls.length, 1)
  const text = answer.text()
  await gateway.close()
  t.match(await text, /Hello[^]*GW_UPSTREAM_INVALID/)
})

t.test('an answer reaches its caller also when it can not be settled', async t => {
  let isDown = false
  let isLost = false
  const { call, mint, log, answerWith } = await startLlmGateway(t, json(chatAnswer), {
    createGateway: async (settings, test) => {
      const store = await openStore(settings, clock())
      const { ledger } = store
      const advance: typeof ledger.advance = async (id, step) => {
        if (step.to === 'used' && isLost) return false
        if (step.to === 'used' && isDown) throw new Error('no such disk')
        return await ledger.advance(id, step)
      }
      return await createGateway(settings, { ...test, store: { ...store, ledger: { ...ledger, advance } } })
    }
  })
  const token = await mint('alice')
  isDown = true
  t.equal((await call(chatPath, { token, body: chat })).status, 200)
  t.match(log.find(line => line.msg === 'an LLM call could not be settled yet'), { err: { message: 'no such disk' } })
  isLost = true
  answerWith(stream(events(hello, whole, usage, '[DONE]')))
  t.equal((await call(chatPath, { token, body: streamed })).status, 200)
  await until('it is said', () => log.find(line => line.msg === 'an LLM call had another end already'))
})

t.test('a caller that leaves before anything is sent pays nothing', async t => {
  let leave = (): void => {}
  const { origin, mint, left, calls, lines } = await startLlmGateway(t, json(chatAnswer), {
    createGateway: async (settings, test) => {
      const store = await openStore(settings, clock())
      const { ledger } = store
      const advance: typeof ledger.advance = async (id, step) => {
        if (step.to === 'sent') {
          leave()
          await new Promise(resolve => setTimeout(resolve, 50))
        }
        return await ledger.advance(id, step)
      }
      return await createGateway(settings, { ...test, store: { ...store, ledger: { ...ledger, advance } } })
    }
  })
  const token = await mint('alice')
  const caller = new AbortController()
  leave = () => caller.abort()
  const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' }
  await t.rejects(fetch(origin + chatPath, { method: 'POST', headers, body: JSON.stringify(chat), signal: caller.signal }))
  await until('its line is written', () => lines().some(line => line.operation === 'chatCompletions'))
  t.equal(calls.length, 0)
  t.equal(await left(token), 1000)
})

t.test('each dialect is told of a cut in its own words', async t => {
  const { call, mint, answerWith } = await startLlmGateway(t, stream(events({ type: 'response.output_text.delta', delta: 'a' })))
  const token = await mint('alice')
  const body = { model: 'plain-1', input: 'x', stream: true }
  t.match((await call('/v1/responses', { token, body })).text,
    /event: error\ndata: \{"type":"error","code":"invalid_request_error","message":"GW_UPSTREAM_INVALID: /)
  answerWith(stream(events({ candidates: [{ content: { parts: [{ text: 'a' }] } }] })))
  t.match((await call('/v1/models/plain-1:streamGenerateContent?alt=sse', { token, body: {} })).text,
    /\n\ndata: \{"error":\{"code":502,"message":"[^"]+","status":"GW_UPSTREAM_INVALID"\}\}\n\n$/)
  answerWith(json([{ candidates: [{ content: { parts: [] }, finishReason: 'STOP' }] }]))
  t.equal((await call('/v1/models/plain-1:streamGenerateContent', { token, body: {} })).json.length, 1, 'a list is no stream')
  answerWith(({ response }) => { response.writeHead(200, { 'content-type': 'text/plain' }).end(events({ type: 'response.completed' })) })
  t.match(await call('/v1/responses', { token, body }), {
    status: 200, text: events({ type: 'response.completed' })
  }, 'a stream under another name')
})

t.test('an error that the upstream has told itself is not told again, however its stream ends', async t => {
  const told = events(hello, { error: { message: 'The model broke down', type: 'server_error', param: null, code: null } })
  const { call, mint, answerWith } = await startLlmGateway(t, stream(told))
  const token = await mint('alice')
  t.equal((await call(chatPath, { token, body: streamed })).text, told, 'it ends')
  answerWith(({ response }) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' })
    response.write(told, () => response.destroy())
  })
  t.equal((await call(chatPath, { token, body: streamed })).text, told, 'its connection is lost')
})

t.test('the access line and the log tell what has become of a stream that was not whole', async t => {
  const { call, mint, calls, pass, answerWith, lines, log, origin } = await cranked(t, () => {})
  const token = await mint('alice')
  let seed = 0
  const body = () => ({ ...streamed, seed: seed++ })
  const error = events({ error: { message: 'The model broke down', type: 'server_error' } })
  const told = async (answer: Parameters<typeof answerWith>[0], then = () => {}) => {
    answerWith(answer)
    const said = call(chatPath, { token, body: body() })
    await until('it is asked', () => calls.length === seed)
    then()
    await said
    await until('its line', () => lines().filter(line => line.operation === 'chatCompletions').length === seed)
    const { status, code } = lines().findLast(line => line.operation === 'chatCompletions')!
    return [status, code, log.filter(line => line.msg === 'the stream of an LLM call broke off').at(seed - 1)?.reason]
  }
  const cut = (...pieces: readonly string[]) => ({ response }: typeof calls[number]) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' }).write(pieces.join(''), () => response.destroy())
  }
  const invalid = [200, 'GW_UPSTREAM_INVALID'] as const
  t.strictSame(await told(stream(events(hello), error)), [...invalid, 'the upstream told an error'])
  t.strictSame(await told(stream(events(hello), error, events('[DONE]'))), [...invalid, 'the upstream told an error'])
  t.strictSame(await told(cut(events(hello), error)), [...invalid, 'the upstream told an error'])
  t.strictSame(await told(stream(events(hello))), [...invalid, 'ended early'])
  t.strictSame(await told(cut(events(hello))), [...invalid, 'broken'])
  t.strictSame(await told(stream(events({ choices: [] }))), [200, 'GW_OUTCOME_UNKNOWN', 'ended early'])
  const waits = ({ response }: typeof calls[number]) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' }).write(events(hello))
  }
  t.strictSame(await told(waits, () => setTimeout(pass, 50, 1_800_000)), [...invalid, 'total time'])
  t.strictSame((await told(stream(events(hello, whole, '[DONE]')))).slice(0, 2), [200, 'OK'])

  const caller = new AbortController()
  answerWith(waits)
  const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' }
  const answer = await fetch(origin + chatPath, {
    method: 'POST', headers, body: JSON.stringify(body()), signal: caller.signal
  })
  caller.abort()
  await t.rejects(answer.text())
  await until('its line', () => lines().filter(line => line.operation === 'chatCompletions').length === seed)
  t.match(lines().findLast(line => line.operation === 'chatCompletions'), { status: 499, code: 'OK' }, 'as of any caller that left')
})

t.test('a silent stream has heartbeats, whole, between two events, and they cost nothing', async t => {
  const { call, mint, calls, pass, left, origin } = await cranked(t, ({ response }) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' }).flushHeaders()
  })
  const token = await mint('alice')
  const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' }
  const asked = fetch(origin + chatPath, { method: 'POST', headers, body: JSON.stringify(streamed) })
  await until('it is asked', () => calls.length === 1)
  pass(60_000)
  const [first, second] = [events(hello), events(whole, usage, '[DONE]')]
  const { response } = calls[0]!
  response.write(first)
  const reader = (await asked).body!.pipeThrough(new TextDecoderStream()).getReader()
  let text = ''
  const readTo = async (wanted: string): Promise<void> => {
    while (text !== wanted) {
      t.ok(wanted.startsWith(text), JSON.stringify(text))
      text += (await reader.read()).value!
    }
  }
  await readTo(first)
  pass(20_000)
  pass(20_000)
  await readTo(`${first}: hb\n\n`)
  response.write(second.slice(0, 30))
  await readTo(`${first}: hb\n\n${second.slice(0, 30)}`)
  for (let beat = 0; beat < 5; beat++) pass(20_000)
  response.end(second.slice(30))
  await readTo(`${first}: hb\n\n${second}`)
  t.match(await reader.read(), { done: true })
  t.equal(await left(token), 1000 - 0.02)
  pass(60_000)
  t.equal((await call('/gateway/session', { token })).status, 200, 'nothing beats on')
})

t.test('with llm.heartbeatMs: 0 there are none', async t => {
  const time = clock()
  const timers = crankedTimers(time)
  const { call, mint, calls } = await startLlmGateway(t, ({ response }) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' }).write(events(hello))
  }, { time, timers, config: `${llmConfig}llm: { heartbeatMs: 0 }\n` })
  const asked = call(chatPath, { token: await mint('alice'), body: streamed })
  await until('it is asked', () => calls.length === 1)
  await new Promise(resolve => setTimeout(resolve, 50))
  for (let beat = 0; beat < 5; beat++) {
    time.advance(20_000)
    timers.run()
  }
  calls[0]!.response.end(events(whole, usage, '[DONE]'))
  t.equal((await asked).text, events(hello, whole, usage, '[DONE]'))
})

t.test('a stream on which nothing comes for too long is told as idle', async t => {
  const { call, mint, log } = await startLlmGateway(t, ({ response }) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' }).write(events(hello))
  }, { config: `${llmConfig}llm: { idleMs: 500 }\n` })
  t.match((await call(chatPath, { token: await mint('alice'), body: streamed })).text, /GW_UPSTREAM_INVALID/)
  t.match(log.find(line => line.msg === 'the stream of an LLM call broke off'), { reason: 'idle' })
})

t.test('what comes late, or nobody takes, is not passed on', async t => {
  const { call, mint, left } = await startLlmGateway(t, ({ response }) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' }).write(events(hello, whole, usage, '[DONE]'))
    setTimeout(() => response.end(events({ late: 1 })), 50)
  })
  const token = await mint('alice')
  t.equal((await call(chatPath, { token, body: streamed })).text, events(hello, whole, usage, '[DONE]'))
  await new Promise(resolve => setTimeout(resolve, 100))
  t.equal(await left(token), 1000 - 0.02)
})

t.test('streams that last leave the room of their bodies to others', async t => {
  const config = `${llmConfig.replace('credits: 1000', 'credits: 100000')}limits: { bodyBytes: 1200000, bodyBytesInFlight: 4800000 }\n`
  const { call, mint, calls, answerWith } = await startLlmGateway(t, ({ response }) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' }).flushHeaders()
  }, { config })
  const content = 'x'.repeat(1_000_000)
  const bodyOf = (seed: number) => ({ ...streamed, seed, messages: [{ role: 'user', content }] })
  const token = await mint('alice')
  const open = []
  // One subject has a quarter of the room, which is one such body.
  for (let seed = 0; seed < 12; seed++) {
    open.push(call(chatPath, { token, body: bodyOf(seed) }))
    await until('it is asked', () => calls.length === seed + 1)
  }
  answerWith(stream(events(hello, whole, usage, '[DONE]')))
  t.equal((await call(chatPath, { token: await mint('bob'), body: bodyOf(12) })).status, 200)
  for (const { response } of calls.slice(0, 12)) response.end(events(hello, whole, usage, '[DONE]'))
  for (const { status, text } of await Promise.all(open)) t.match({ status, text }, { status: 200, text: /Hello[^]*DONE/ })
})

t.test('an error that a stream begins with is one wherever it is cut, and nothing else waits for its end', async t => {
  const { call, mint, calls, answerWith, left } = await startLlmGateway(t, () => {})
  const token = await mint('alice')
  let seed = 0
  const inPieces = (...pieces: readonly string[]) => {
    answerWith(async ({ response }) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' })
      for (const piece of pieces) {
        await new Promise<void>(resolve => response.write(piece, () => setTimeout(resolve, 20)))
      }
      response.end()
    })
    return call(chatPath, { token, body: { ...streamed, seed: seed++ } })
  }
  for (const error of [events({ error: { message: 'busy' } }), events({ type: 'error', error: { message: 'busy' } })]) {
    for (const at of [1, 8, 20, error.length - 1]) {
      t.match(await inPieces(error.slice(0, at), error.slice(at)), { status: 502, error: 'GW_OUTCOME_UNKNOWN' }, `${at}`)
    }
  }
  const rest = events(whole, usage, '[DONE]')
  for (const first of [events({ error: null, ...hello }), `data: {"error":"${'x'.repeat(20_000)}`]) {
    const answer = await inPieces(first.slice(0, 15), first.slice(15), `\n\n${rest}`)
    t.equal(answer.status, 200)
    t.ok(answer.text.startsWith(first))
  }
  t.equal(calls.length, 10)
  t.ok(await left(token) > 0)
})
