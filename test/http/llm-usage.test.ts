import t from 'tap'
import { AnswerReader, EventFinder } from '../../src/features/llm/usage.ts'
import { events, json, startLlmGateway, stream } from '../helpers/llm-gateway.ts'
import { random } from '../helpers/random.ts'

function found (pieces: readonly string[]): unknown[] {
  const finder = new EventFinder()
  return pieces.flatMap(piece => finder.take(Buffer.from(piece))).map(({ value }) => value)
}

t.test('events are found wherever a stream is cut, with every end of a line', async t => {
  for (const eol of ['\n', '\r\n', '\r']) {
    const text = [
      ': hello', '', 'event: a', 'data: {"a":', 'data:1}', 'id: 7', '', 'data: no json', '', 'data: [DONE]', '', ''
    ].join(eol)
    const values = [{ a: 1 }, undefined, '[DONE]']
    t.strictSame(found([text]), values)
    t.strictSame(found([...text]), values, 'byte by byte')
    for (let at = 0; at < text.length; at++) t.strictSame(found([text.slice(0, at), text.slice(at)]), values)
  }
})

t.test('it is told where in its bytes an event ends, and how much of one has not', async t => {
  const finder = new EventFinder()
  const first = finder.take(Buffer.from('data: 1\n\n: hb\n\ndata: 2\n\nda'))
  t.strictSame(first, [{ value: 1, start: 0, end: 9 }, { value: 2, start: 15, end: 24 }])
  t.equal(finder.unfinished, 2)
  t.strictSame(finder.take(Buffer.from('ta: 3\r\n\r\n')), [{ value: 3, start: -2, end: 9 }])
  t.equal(finder.unfinished, 0)
  t.strictSame(finder.take(Buffer.from('data: 4\r\n\r')), [{ value: 4, start: 0, end: 10 }])
  t.strictSame(finder.take(Buffer.from('\ndata: 5\n\n')), [{ value: 5, start: 1, end: 10 }], 'half an end is no event')
  t.strictSame(finder.take(Buffer.alloc(0)), [])
})

t.test('an event without an end is not kept for ever', async t => {
  const finder = new EventFinder()
  const piece = Buffer.alloc(16 * 1024 * 1024, 'a')
  t.throws(() => { for (let n = 0; n < 5; n++) finder.take(piece) }, /too long/)
})

function read (dialect: ConstructorParameters<typeof AnswerReader>[0], values: readonly unknown[], answers = 1) {
  const reader = new AnswerReader(dialect, answers)
  const isLast = values.map(value => reader.take(value)).includes(true)
  const { tokens, isWhole, hasFailed, contentBytes } = reader
  return { tokens, isWhole, hasFailed, contentBytes, isLast }
}

t.test('chat: totals include what is told of them apart', async t => {
  const usage = {
    prompt_tokens: 100,
    completion_tokens: 50,
    prompt_tokens_details: { cached_tokens: 60, audio_tokens: 5 },
    completion_tokens_details: { reasoning_tokens: 20, audio_tokens: null }
  }
  const values = [
    { choices: [{ index: 0, delta: { content: 'Grüße' }, finish_reason: null }] },
    { choices: [{ index: 0, delta: {}, finish_reason: 'stop' }], usage: null },
    { choices: [], usage }
  ]
  t.strictSame(read('chat', values), {
    tokens: {
      cacheRead: 60, cacheWrite: 0, imageInput: 0, audioInput: 5, input: 35, reasoning: 20, audioOutput: 0, output: 30
    },
    isWhole: true,
    hasFailed: false,
    contentBytes: 7,
    isLast: false
  })
  t.equal(read('chat', values, 2).isWhole, false, 'two were asked for')
  const done = new AnswerReader('chat', 2)
  done.done()
  t.equal(done.isWhole, true)
  t.same(read('chat', [{ error: { message: 'x' } }]).hasFailed, true)
})

t.test('responses: usage stands in whatever ends them', async t => {
  for (const type of ['response.completed', 'response.incomplete', 'response.failed']) {
    const usage = { input_tokens: 9, output_tokens: 4, input_tokens_details: { cached_tokens: 3 } }
    t.strictSame(read('responses', [
      { type: 'response.created', response: { status: 'in_progress', usage: null } },
      { type: 'response.output_text.delta', delta: 'abc' },
      { type: 'response.output_text.done', text: 'abc' },
      { type, response: { usage, error: { code: 'x' } } }
    ]), {
      tokens: { cacheRead: 3, cacheWrite: 0, input: 6, reasoning: 0, output: 4 },
      isWhole: true,
      hasFailed: false,
      contentBytes: 3,
      isLast: true
    })
  }
  t.match(read('responses', [{ object: 'response', status: 'failed', error: { code: 'x' }, output: [{ text: 'ab' }] }]),
    { isWhole: true, hasFailed: false, contentBytes: 2, tokens: null })
  t.match(read('responses', [{ type: 'error', message: 'x' }]), { hasFailed: true, isWhole: false })
})

t.test('messages: field by field the last number counts, and caches stand beside the input', async t => {
  const start = { input_tokens: 12, cache_read_input_tokens: 90, cache_creation_input_tokens: 5, output_tokens: 1 }
  t.strictSame(read('messages', [
    { type: 'message_start', message: { usage: start } },
    { type: 'content_block_start', content_block: { type: 'text', text: '' } },
    { type: 'content_block_delta', delta: { type: 'text_delta', text: 'hi' } },
    { type: 'message_delta', delta: { stop_reason: 'end_turn' }, usage: { output_tokens: 7, input_tokens: null } },
    { type: 'message_delta', usage: { output_tokens: 0, input_tokens: 0 } },
    { type: 'message_stop' }
  ]), {
    tokens: { input: 12, cacheRead: 90, cacheWriteHour: 0, cacheWrite: 5, reasoning: 0, output: 7 },
    isWhole: true,
    hasFailed: false,
    contentBytes: 2,
    isLast: true
  }, 'a zero after a number is none, and the words of a kind are no content')
  t.match(read('messages', [{ type: 'message', stop_reason: 'end_turn', content: [], usage: { input_tokens: 1, output_tokens: 2 } }]),
    { isWhole: true, tokens: { input: 1, cacheRead: 0, cacheWrite: 0, output: 2 } })
  t.match(read('messages', [{ type: 'error', error: { type: 'overloaded_error' } }]), { hasFailed: true, isWhole: false })
})

t.test('messages: what a cache keeps for an hour is told apart, also where the stream tells it once', async t => {
  const usage = {
    input_tokens: 12,
    cache_creation_input_tokens: 100,
    cache_creation: { ephemeral_5m_input_tokens: 30, ephemeral_1h_input_tokens: 70 },
    output_tokens: 1
  }
  const whole = { type: 'message', stop_reason: 'end_turn', content: [], usage }
  t.match(read('messages', [whole]).tokens, { cacheWrite: 30, cacheWriteHour: 70 })
  const streamed = [
    { type: 'message_start', message: { usage } },
    { type: 'message_delta', usage: { output_tokens: 7, cache_creation_input_tokens: 100 } },
    { type: 'message_stop' }
  ]
  t.match(read('messages', streamed).tokens, { cacheWrite: 30, cacheWriteHour: 70, output: 7 })
})

t.test('Gemini: thoughts stand beside the candidates, and modalities in lists', async t => {
  const usageMetadata = {
    promptTokenCount: 300,
    cachedContentTokenCount: 20,
    toolUsePromptTokenCount: 10,
    candidatesTokenCount: 40,
    thoughtsTokenCount: 12,
    promptTokensDetails: [{ modality: 'IMAGE', tokenCount: 258 }, { modality: 'TEXT', tokenCount: 42 }],
    candidatesTokensDetails: [{ modality: 'IMAGE', tokenCount: 30 }]
  }
  t.strictSame(read('gemini', [[
    { candidates: [{ content: { parts: [{ text: 'hi' }] } }], usageMetadata: { promptTokenCount: 300 } },
    { candidates: [{ content: { parts: [] }, finishReason: 'STOP' }], usageMetadata }
  ]]), {
    tokens: {
      cacheRead: 20,
      imageInput: 258,
      audioInput: 0,
      input: 32,
      imageOutput: 30,
      audioOutput: 0,
      output: 10,
      reasoning: 12
    },
    isWhole: true,
    hasFailed: false,
    contentBytes: 2,
    isLast: false
  })
  t.match(read('gemini', [{ usageMetadata: { promptTokenCount: 3, thoughtsTokenCount: 4 } }]),
    { tokens: { input: 3, output: 0, reasoning: 4 } })
})

t.test('what is no usage is none', async t => {
  t.equal(read('chat', [{ usage: { prompt_tokens: 0, completion_tokens: 0 } }]).tokens, null, 'all zeros')
  t.equal(read('chat', [{ usage: { prompt_tokens: 5, completion_tokens: '7' } }]).tokens, null, 'a text is no number')
  t.equal(read('chat', [{ usage: { prompt_tokens: 5, completion_tokens: -1 } }]).tokens, null)
  t.equal(read('chat', [{ usage: { prompt_tokens: 5, completion_tokens: 1e300 } }]).tokens, null)
  t.equal(read('responses', [{ usage: { input_tokens: 5 } }]).tokens, null)
  t.equal(read('messages', [{ usage: { output_tokens: 5 } }]).tokens, null)
  t.equal(read('gemini', [{ usageMetadata: { promptTokenCount: 5 } }]).tokens, null)
  t.match(read('chat', [7, 'x', null, undefined]), { tokens: null, isWhole: false, contentBytes: 0 })
  t.match(read('chat', [{ usage: { prompt_tokens: 5, completion_tokens: 5, prompt_tokens_details: { cached_tokens: 9 } } }]),
    { tokens: { input: 0, cacheRead: 9 } }, 'parts that come to more than the whole')
})

t.test('usage told in each chunk is never added up', async t => {
  const { int, seed } = random()
  t.comment(`TEST_SEED=${seed}`)
  const counts = Array.from({ length: 200 }, () => 1 + int(500))
  const text = events(...counts.map(count => ({ choices: [], usage: { prompt_tokens: 7, completion_tokens: count } })))
  const reader = new AnswerReader('chat', 1)
  const finder = new EventFinder()
  for (let at = 0; at < text.length;) {
    const length = 1 + int(40)
    for (const { value } of finder.take(Buffer.from(text.slice(at, at + length)))) reader.take(value)
    at += length
  }
  t.same(reader.tokens?.output, counts.at(-1))
})

t.test('what goes into a cache, pictures and thoughts are told apart from the rest, as today\'s SDKs know them', async t => {
  const read = (dialect: 'chat' | 'responses' | 'messages', usage: object) => {
    const reader = new AnswerReader(dialect, 1)
    reader.take({ usage })
    return reader.tokens
  }
  const inputDetails = { cached_tokens: 10, cache_write_tokens: 20, image_tokens: 30 }
  t.match(read('chat', { prompt_tokens: 100, prompt_tokens_details: inputDetails, completion_tokens: 5 }),
    { input: 40, cacheRead: 10, cacheWrite: 20, imageInput: 30, output: 5 })
  t.match(read('responses', { input_tokens: 100, input_tokens_details: inputDetails, output_tokens: 5 }),
    { input: 70, cacheRead: 10, cacheWrite: 20, output: 5 })
  t.match(read('messages', { input_tokens: 9, output_tokens: 50, output_tokens_details: { thinking_tokens: 40 } }),
    { input: 9, output: 10, reasoning: 40 })
})

t.test('Gemini: a prompt that is refused, or an answer of nothing, costs its input alone', async t => {
  const usageMetadata = { promptTokenCount: 9, totalTokenCount: 9 }
  t.match(read('gemini', [{ promptFeedback: { blockReason: 'SAFETY' }, usageMetadata }]),
    { isLast: true, tokens: { input: 9, output: 0, reasoning: 0 } })
  t.match(read('gemini', [{ candidates: [{ finishReason: 'RECITATION', index: 0 }], usageMetadata }]),
    { isLast: false, isWhole: true, tokens: { input: 9, output: 0 } })
  const candidates = [{ content: { parts: [{ text: 'hi' }] } }]
  t.equal(read('gemini', [{ candidates, usageMetadata }]).tokens, null, 'what has come was made')
  t.equal(read('gemini', [{ usageMetadata: { promptTokenCount: 9, totalTokenCount: 12 } }]).tokens, null)
})

t.test('Gemini: a picture that a cache has read is charged once', async t => {
  const usageMetadata = {
    promptTokenCount: 1000,
    cachedContentTokenCount: 900,
    candidatesTokenCount: 1,
    promptTokensDetails: [{ modality: 'IMAGE', tokenCount: 950 }, { modality: 'TEXT', tokenCount: 50 }],
    cacheTokensDetails: [{ modality: 'IMAGE', tokenCount: 900 }]
  }
  t.match(read('gemini', [{ usageMetadata }]).tokens, { cacheRead: 900, imageInput: 50, input: 50, output: 1 })
})

t.test('usage beyond all that can be counted is charged as far as that goes, and shuts no account', async t => {
  const config = `
plans: { default: { credits: unlimited } }
prices: { "*": { inputPerMillion: 1000000, outputPerMillion: 1000000 } }`
  const choices = [{ index: 0, message: { content: 'Hello' }, finish_reason: 'stop' }]
  const usage = { prompt_tokens: 9e9, completion_tokens: 9e9 }
  const { call, mint, answerWith } = await startLlmGateway(t, json({ choices, usage }), { config })
  const token = await mint('alice', { credits: 9_000_000 })
  const ask = async () => (await call('/v1/chat/completions', { token, body: { model: 'm', max_tokens: 1, messages: [] } })).status
  t.equal(await ask(), 200)
  t.equal(await ask(), 402, 'its own credits are used up')
  answerWith(json({ choices, usage: { prompt_tokens: 1, completion_tokens: 1 } }))
  const other = await mint('alice')
  t.equal((await call('/gateway/session', { token: other })).status, 200)
  t.equal((await call('/v1/chat/completions', { token: other, body: { model: 'm', max_tokens: 1, messages: [] } })).status, 200)
})

t.test('a cache that is kept for an hour is charged at its price, in JSON and in a stream', async t => {
  const config = `
plans: { default: { credits: 1000 } }
prices: { "*": { inputPerMillion: 1000, outputPerMillion: 2000, cacheWritePerMillion: 1250, cacheWriteHourPerMillion: 4000 } }`
  const usage = {
    input_tokens: 100,
    cache_creation_input_tokens: 1000,
    cache_creation: { ephemeral_5m_input_tokens: 400, ephemeral_1h_input_tokens: 600 },
    output_tokens: 50
  }
  const cost = (100 * 1000 + 400 * 1250 + 600 * 4000 + 50 * 2000) / 1e6
  const content = [{ type: 'text', text: 'Hello' }]
  const { call, mint, left, answerWith } = await startLlmGateway(t,
    json({ type: 'message', content, stop_reason: 'end_turn', usage }), { config })
  const token = await mint('alice')
  const ask = async (isStream: boolean) => (await call('/v1/messages', {
    token, body: { model: 'm', max_tokens: 100, messages: [{ role: 'user', content: 'x'.repeat(2000) }], stream: isStream }
  })).status
  t.equal(await ask(false), 200)
  t.equal(await left(token), 1000 - cost)
  answerWith(stream(events(
    { type: 'message_start', message: { usage: { ...usage, output_tokens: 1 } } },
    { type: 'content_block_delta', delta: { type: 'text_delta', text: 'Hello' } },
    { type: 'message_delta', delta: { stop_reason: 'end_turn' }, usage: { output_tokens: 50 } },
    { type: 'message_stop' }
  )))
  t.equal(await ask(true), 200)
  t.equal(await left(token), 1000 - 2 * cost)
})
