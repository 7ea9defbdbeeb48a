import t from 'tap'
import { type LlmBody, readLlmBody } from '../../src/features/llm/body.ts'
import { tokenPrices } from '../../src/domain/token-prices.ts'
import { type DialectName, dialects } from '../../src/features/llm/dialects.ts'
import { callPrice } from '../../src/domain/call-price.ts'

const rules = { defaultMaxOutputTokens: 4096, askForUsage: true, statefulFields: [] as readonly string[] }

function read (name: DialectName, body: unknown, more: Partial<typeof rules> = {}): LlmBody {
  const dialect = dialects.find(dialect => dialect.name === name)!
  return readLlmBody(Buffer.from(typeof body === 'string' ? body : JSON.stringify(body)), dialect, { ...rules, ...more })
}

const price = tokenPrices({ '*': { inputPerMillion: 1, outputPerMillion: 1 } })('m')!

function refusal (name: DialectName, body: unknown): string {
  try {
    callPrice(read(name, body), price)
  } catch (error) {
    t.match(error, { code: 'GW_BAD_REQUEST' })
    return String((error as Error).message)
  }
  return 'accepted'
}

t.test('the bytes stay as they came where the limit is named', async t => {
  const bodies: ReadonlyArray<readonly [DialectName, string, number]> = [
    ['chat', '{ "model":"m", "seed":12345678901234567890, "max_tokens": 7 }', 7],
    ['chat', '{"model":"m","max_tokens":7,"max_completion_tokens":9,"n":3}', 27],
    ['responses', '{"model":"m","max_output_tokens":8, "input":"x"}', 8],
    ['messages', '{"model":"m","max_tokens":1024}', 1024],
    ['gemini', '{"generationConfig":{"maxOutputTokens":5,"candidateCount":2}}', 10]
  ]
  for (const [name, text, bound] of bodies) {
    const { bytes, outputBound } = read(name, text)
    t.equal(bytes.toString(), text)
    t.equal(outputBound, bound)
  }
})

t.test('where no limit is named, the default is written into the body, and nothing else changes', async t => {
  const written: ReadonlyArray<readonly [DialectName, string, string]> = [
    ['chat', '{ "model":"m" }', '{"max_completion_tokens":4096, "model":"m" }'],
    ['responses', '{"model":"m","max_output_tokens":null}', '{"max_output_tokens":4096,"model":"m"}'],
    ['messages', '{"model":"m","x":1.0}', '{"max_tokens":4096,"model":"m","x":1.0}'],
    ['gemini', '{}', '{"generationConfig":{"maxOutputTokens":4096}}'],
    ['gemini', '{"generationConfig":null,"contents":[]}', '{"generationConfig":{"maxOutputTokens":4096},"contents":[]}'],
    ['gemini', '{"a":1,"generationConfig":{ "topK":1}}', '{"a":1,"generationConfig":{"maxOutputTokens":4096, "topK":1}}']
  ]
  for (const [name, before, after] of written) {
    const { bytes, outputBound } = read(name, before)
    t.equal(bytes.toString(), after)
    t.equal(outputBound, 4096)
  }
  t.equal(read('gemini', '{"generationConfig":{"candidateCount":3}}').outputBound, 3 * 4096)
})

t.test('usage is asked for where a chat streams and does not say', async t => {
  const asked = (body: string, askForUsage = true) => {
    const { bytes, hidesUsage } = read('chat', body, { askForUsage })
    return [bytes.toString(), hidesUsage]
  }
  t.strictSame(asked('{"model":"m","max_tokens":1,"stream":true}'),
    ['{"stream_options":{"include_usage":true},"model":"m","max_tokens":1,"stream":true}', true])
  t.strictSame(asked('{"model":"m","max_tokens":1,"stream":true,"stream_options":null}'),
    ['{"stream_options":{"include_usage":true},"model":"m","max_tokens":1,"stream":true}', true])
  t.strictSame(asked('{"model":"m","max_tokens":1,"stream":true,"stream_options":{"x":1}}'),
    ['{"model":"m","max_tokens":1,"stream":true,"stream_options":{"include_usage":true,"x":1}}', true])
  for (const left of [
    '{"model":"m","max_tokens":1,"stream":true,"stream_options":{"include_usage":true}}',
    '{"model":"m","max_tokens":1,"stream":true,"stream_options":{"include_usage":false}}',
    '{"model":"m","max_tokens":1,"stream":false}', '{"model":"m","max_tokens":1,"stream":true,"stream_options":7}'
  ]) t.strictSame(asked(left), [left, false])
  t.strictSame(asked('{"model":"m","max_tokens":1,"stream":true}', false), ['{"model":"m","max_tokens":1,"stream":true}', false])
  t.equal(read('responses', '{"model":"m","stream":true}').hidesUsage, false)
})

t.test('a limit, a number of answers and a flag are what they have to be', async t => {
  for (const value of [0, -1, 1.5, '7', 1e300, true, {}]) {
    t.match(refusal('chat', { model: 'm', max_tokens: value }), /max_tokens must be a whole number/)
    t.match(refusal('gemini', { generationConfig: { maxOutputTokens: value } }), /maxOutputTokens must be/)
  }
  t.match(refusal('chat', { model: 'm', n: 129 }), /n must be a whole number from 1 to 128/)
  t.match(refusal('chat', { model: 'm', stream: 'yes' }), /stream must be true or false/)
  t.match(refusal('gemini', { generationConfig: [] }), /generationConfig must be an object/)
  t.match(refusal('gemini', { generationConfig: { maxOutputTokens: null } }), /maxOutputTokens must be/)
  t.match(refusal('chat', { model: 7 }), /model must name a model/)
  t.match(refusal('chat', {}), /model must name a model/)
})

t.test('other spellings of what counts here are refused', async t => {
  t.match(refusal('chat', { model: 'm', Max_Tokens: 7 }), /write max_tokens instead of "Max_Tokens"/)
  t.match(refusal('chat', { model: 'm', maxTokens: 7 }), /write max_tokens/)
  t.match(refusal('gemini', { generation_config: {} }), /write generationConfig/)
  t.match(refusal('gemini', { generationConfig: { max_output_tokens: 9 } }), /write maxOutputTokens/)
})

t.test('what is kept at the upstream is refused by its name, at any depth and in any case', async t => {
  t.match(refusal('responses', { model: 'm', previous_response_id: 'resp_1' }), /"previous_response_id" is not accepted/)
  t.match(refusal('responses', { model: 'm', Conversation: { id: 'c' } }), /"Conversation"/)
  t.match(refusal('responses', { model: 'm', input: [{ content: [{ type: 'input_file', FILE_ID: 'f' }] }] }), /"FILE_ID"/)
  t.match(refusal('responses', { model: 'm', input: [{ type: 'item_reference', id: 'i' }] }), /item_reference/)
  t.match(refusal('responses', { model: 'm', input: [{ type: 'reasoning', id: 'rs_1', summary: [] }] }), /encrypted_content/)
  t.match(refusal('responses', { model: 'm', prompt: { id: 'p' } }), /prompt is not accepted/)
  t.match(refusal('messages', { model: 'm', messages: [{ content: [{ source: { type: 'file', file_id: 'f' } }] }] }), /"file_id"/)
  t.match(refusal('messages', { model: 'm', container: 'c' }), /"container"/)
  t.match(refusal('gemini', { cachedContent: 'cachedContents/1' }), /"cachedContent"/)
  for (const fileUri of ['gs://a/b', 'https://generativelanguage.googleapis.com/v1beta/files/x', 'files/x']) {
    t.match(refusal('gemini', { contents: [{ parts: [{ fileData: { fileUri } }] }] }), /"fileUri"/)
  }
  t.match(refusal('responses', { model: 'm', background: true }), /background is not accepted/)
  t.equal(refusal('responses', { model: 'm', background: false, previous_response_id: null, prompt: null }), 'accepted')
})

t.test("a schema and what a tool is called with are the caller's own", async t => {
  const properties = { file_id: { type: 'string' }, container: { type: 'string' } }
  t.equal(refusal('chat', { model: 'm', tools: [{ type: 'function', function: { name: 'f', parameters: { properties } } }] }), 'accepted')
  t.equal(refusal('messages', {
    model: 'm',
    tools: [{ name: 'f', input_schema: { properties } }],
    messages: [{ content: [{ type: 'tool_use', id: 't', name: 'f', input: { file_id: 'mine' } }] }]
  }), 'accepted')
  t.equal(refusal('gemini', {
    tools: [{ functionDeclarations: [{ name: 'f', parameters: { properties } }] }],
    contents: [{ parts: [{ functionCall: { name: 'f', args: { file_id: 'x' } } }, { fileData: { fileUri: 'https://a.example/b' } }] }]
  }), 'accepted')
  t.equal(refusal('responses', { model: 'm', input: [{ type: 'reasoning', id: 'rs_1', encrypted_content: 'x' }] }), 'accepted')
})

t.test('what costs more than tokens is refused by its name', async t => {
  t.match(refusal('chat', { model: 'm', service_tier: 'priority' }), /service_tier "priority" is not accepted/)
  t.match(refusal('gemini', { serviceTier: 'flex' }), /service_tier "flex" is not accepted/)
  t.match(refusal('chat', { model: 'm', web_search_options: {} }), /web_search_options is not accepted/)
  t.match(refusal('chat', { model: 'm', models: ['x'] }), /models is not accepted/)
  t.match(refusal('responses', { model: 'm', tools: [{ type: 'web_search' }] }), /the tool "web_search" is not accepted/)
  t.match(refusal('messages', { model: 'm', tools: [{ type: 'web_search_20250305', name: 'w' }] }), /web_search_20250305/)
  t.match(refusal('gemini', { tools: [{ functionDeclarations: [] }, { googleSearch: {} }] }), /googleSearch/)
  t.match(refusal('gemini', { model: 'x' }), /model is not accepted/)
  t.match(refusal('chat', { model: 'm', tools: {} }), /tools must be a list/)
  t.match(refusal('chat', { model: 'm', tools: ['x'] }), /tools must be a list of objects/)
  t.equal(refusal('chat', { model: 'm', service_tier: 'auto', tools: [{ type: 'function' }, {}] }), 'accepted')
  t.equal(refusal('messages', { model: 'm', tools: [{ name: 'x' }, { type: 'bash_20250124', name: 'bash' }] }), 'accepted')
  t.strictSame([...read('chat', { model: 'm', modalities: ['text', 'audio'] }).outputs], ['audioOutput'])
  t.strictSame([...read('gemini', { generationConfig: { responseModalities: ['TEXT', 'IMAGE'] } }).outputs], ['imageOutput'])
})

t.test('input is bounded by the bytes of the body, and what may be more tokens than bytes is counted', async t => {
  const text = '{"model":"m","max_tokens":1}'
  t.equal(read('chat', text).textBound, text.length + 1024)
  const [none, picture, large, file] = [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]
  const bytes = 'A'.repeat(100_000)
  const inUrl = `data:image/png;base64,${bytes}`
  const url = 'https://a.example/b'
  const rows: ReadonlyArray<readonly [DialectName, object, readonly number[] | undefined, number]> = [
    ['chat', { type: 'image_url', image_url: { url } }, picture, 0],
    ['chat', { type: 'image_url', image_url: { url, detail: 'high' } }, picture, 0],
    ['chat', { type: 'image_url', image_url: { url, detail: 'original' } }, large, 0],
    ['responses', { type: 'input_image', image_url: url, detail: null }, picture, 0],
    ['responses', { type: 'input_image', image_url: url, detail: 'original' }, large, 0],
    ['chat', { type: 'image_url', image_url: { url: inUrl } }, picture, inUrl.length],
    ['messages', { source: { type: 'base64', media_type: 'image/png', data: bytes } }, picture, bytes.length],
    ['messages', { source: { type: 'base64', media_type: 'application/pdf', data: bytes } }, file, 0],
    ['gemini', { inlineData: { mimeType: 'video/mp4', data: bytes } }, file, 0],
    ['gemini', { fileData: { fileUri: 'https://www.youtube.com/watch?v=1' } }, file, 0],
    ['gemini', { inlineData: { mimeType: 'text/csv', data: bytes } }, none, 0],
    ['responses', { type: 'input_file', file_url: url }, file, 0],
    ['chat', { type: 'input_audio', input_audio: { data: bytes, format: 'wav' } }, none, 0]
  ]
  for (const [name, part, media, uncounted] of rows) {
    const body = { ...name === 'gemini' ? { generationConfig: { maxOutputTokens: 1 } } : { model: 'm', max_tokens: 1, max_output_tokens: 1 }, messages: [{ content: [part] }] }
    const { textBound, media: { pictures, largePictures, files } } = read(name, body)
    t.strictSame([pictures, largePictures, files], media, JSON.stringify(part).slice(0, 80))
    t.equal(textBound, JSON.stringify(body).length + 1024 - uncounted)
  }
})

t.test('whether a model may think unseen is said by the request', async t => {
  const thinks = (name: DialectName, body: object) => read(name, { model: 'm', ...body }).mayThink
  t.strictSame([thinks('chat', {}), thinks('chat', { reasoning_effort: 'none' })], [true, false])
  for (const more of [{ reasoning: { effort: 'high' } }, { enable_thinking: true }, { extra_body: {} }]) {
    t.equal(thinks('chat', { reasoning_effort: 'none', ...more }), true)
  }
  t.strictSame([thinks('responses', {}), thinks('responses', { reasoning: { effort: 'none' } })], [true, false])
  t.strictSame([
    thinks('messages', {}), thinks('messages', { thinking: { type: 'disabled' } }),
    thinks('messages', { thinking: { type: 'enabled', budget_tokens: 9 } }), thinks('messages', { model: 'claude-4-thinking' })
  ], [false, false, true, true])
  const gemini = (generationConfig: object) => read('gemini', { generationConfig }).mayThink
  t.strictSame([
    gemini({}), gemini({ thinkingConfig: { thinkingBudget: 0 } }), gemini({ thinkingConfig: { thinkingBudget: 9 } }),
    gemini({ thinkingConfig: { thinkingBudget: 0, thinkingLevel: 'high' } })
  ], [true, false, true, true])
})

t.test('a text for the model counts with all of its bytes, however it begins', async t => {
  const text = `data:image/png;base64,${'word '.repeat(50_000)}`
  const bodies: ReadonlyArray<readonly [DialectName, object]> = [
    ['chat', { messages: [{ role: 'user', content: text }] }],
    ['chat', { messages: [{ role: 'user', content: [{ type: 'text', text }] }] }],
    ['chat', { messages: [{ role: 'assistant', tool_calls: [{ id: 'c', type: 'function', function: { name: 'f', arguments: text } }] }] }],
    ['responses', { instructions: text }],
    ['responses', { input: text }],
    ['responses', { input: [{ type: 'input_file', filename: 'a.txt', file_data: text }] }],
    ['messages', { system: text }],
    ['messages', { messages: [{ content: [{ type: 'document', source: { type: 'text', media_type: 'image/png', data: text } }] }] }],
    ['gemini', { contents: [{ parts: [{ text }] }] }],
    ['gemini', { contents: [{ parts: [{ inlineData: { media_type: 'image/png', mimeType: 'application/pdf', data: text } }] }] }]
  ]
  for (const [name, body] of bodies) t.ok(read(name, name === 'gemini' ? body : { model: 'm', ...body }).textBound > text.length, name)
})

t.test('a document by its URL is bounded as a file', async t => {
  const { media } = read('messages', {
    model: 'm',
    messages: [{ content: [{ type: 'document', source: { type: 'url', url: 'https://a.example/b.pdf' } }] }]
  })
  t.equal(media.files, 1)
  const video = { type: 'video_url', video_url: { url: 'https://a.example/b.mp4' } }
  t.equal(read('chat', { model: 'm', messages: [{ content: [video] }] }).media.files, 1)
})

t.test('what the caller predicts is charged as output where it is wrong: it is set aside', async t => {
  const content = 'x'.repeat(10_000)
  t.ok(read('chat', { model: 'm', max_tokens: 5, prediction: { type: 'content', content } }).outputBound >= 10_005)
  t.equal(read('chat', { model: 'm', max_tokens: 5, prediction: null }).outputBound, 5)
})

t.test('an item by its id alone is what is kept at the upstream, with a type and without', async t => {
  for (const item of [
    { id: 'msg_1' }, { id: 'msg_1', type: null }, { id: 'ws_1', type: 'web_search_call', status: 'completed' },
    { id: 'ig_1', type: 'image_generation_call', quality: 'high' }
  ]) t.match(refusal('responses', { model: 'm', input: [item] }), /by its id alone/)
  t.match(refusal('chat', { model: 'm', messages: [{ role: 'assistant', audio: { id: 'audio_1' } }] }), /by its id alone/)
  t.equal(refusal('responses', {
    model: 'm',
    input: [
      { id: 'msg_1', type: 'message', role: 'assistant', content: [] }, { id: 'ig_1', type: 'image_generation_call', result: 'iVBO' },
      { id: 'fc_1', type: 'function_call', call_id: 'c', name: 'f', arguments: '{}' }
    ]
  }), 'accepted')
})

t.test('what costs more than tokens is refused in any way to write it', async t => {
  for (const tool of [{ TYPE: 'web_search' }, { type: ['web_search'] }, { TYPE: null }]) {
    for (const name of ['chat', 'responses', 'messages'] as const) {
      t.match(refusal(name, { model: 'm', tools: [tool] }), /the type of a tool must be a text/)
    }
  }
  t.equal(refusal('messages', { model: 'm', tools: [{ type: null, name: 'mine' }] }), 'accepted', 'as its types permit')
  t.match(refusal('chat', { model: 'm', tools: [{ type: null }] }), /the type of a tool must be a text/)
  t.match(refusal('chat', { model: 'm', Web_Search_Options: {} }), /web_search_options is not accepted/)
  t.match(refusal('messages', { model: 'm', mcpServers: [] }), /mcp_servers is not accepted/)
  for (const name of ['search_parameters', 'enable_search', 'best_of']) {
    t.match(refusal('chat', { model: 'm', [name]: 9 }), new RegExp(`${name} is not accepted`))
  }
  t.match(refusal('messages', { model: 'm', compaction: {} }), /compaction is not accepted/)
  t.match(refusal('messages', { model: 'm', anthropic_beta: ['compact-2026-01-12'] }), /anthropic_beta is not accepted/)
})

t.test('what is no text where one belongs is refused by its name, or passes to where it is', async t => {
  const odd = { toString: 1, valueOf: 1 }
  const chat = { model: 'm', max_tokens: 5 }
  t.equal(refusal('chat', { ...chat, messages: [{ content: [{ type: odd, inner: { text: 'x' } }] }] }), 'accepted')
  for (const modalities of [odd, [odd], [['audio']], [1]]) {
    t.match(refusal('chat', { ...chat, modalities }), /modalities must be a list of texts/)
    t.match(refusal('gemini', { generationConfig: { responseModalities: modalities } }), /responseModalities must be a list of texts/)
  }
  t.equal(refusal('chat', { ...chat, modalities: null }), 'accepted')
  for (const [name, body] of [['chat', chat], ['responses', { model: 'm' }], ['messages', chat]] as const) {
    for (const type of [odd, ['web_search'], 1]) {
      t.match(refusal(name, { ...body, tools: [{ type }] }), /type of a tool must be a text/, name)
    }
  }
})
