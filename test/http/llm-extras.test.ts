import t from 'tap'
import { type TokenPrice, tokenPrices } from '../../src/domain/token-prices.ts'
import { readLlmBody } from '../../src/features/llm/body.ts'
import { type DialectName, dialects } from '../../src/features/llm/dialects.ts'
import { callPrice } from '../../src/domain/call-price.ts'
import { AnswerReader } from '../../src/features/llm/usage.ts'
import { events, json, startLlmGateway, stream } from '../helpers/llm-gateway.ts'

const price = tokenPrices({
  '*': {
    inputPerMillion: 1,
    outputPerMillion: 2,
    serverTools: {
      web_search: { perCall: 0.01, tokensPerCall: 5000, maxCalls: 5 },
      web_fetch: { perCall: 0, tokensPerCall: 100_000 }
    },
    serviceTiers: { priority: 2, flex: 0.5 }
  }
})('m')!
const plain = tokenPrices({ '*': { inputPerMillion: 1, outputPerMillion: 2 } })('m')!

function priced (name: DialectName, more: object, of: TokenPrice = price) {
  const body = { ...name === 'gemini' ? { generationConfig: { maxOutputTokens: 10 } } : { model: 'm', max_tokens: 10, max_output_tokens: 10 }, ...more }
  const read = readLlmBody(Buffer.from(JSON.stringify(body)), dialects.find(it => it.name === name)!,
    { defaultMaxOutputTokens: 10, askForUsage: true, statefulFields: [] })
  return { ...callPrice(read, of), text: read.textBound }
}

function refusal (name: DialectName, more: object, of?: TokenPrice): string {
  try {
    priced(name, more, of)
  } catch (error) {
    t.match(error, { code: 'GW_BAD_REQUEST' })
    return String((error as Error).message)
  }
  return 'accepted'
}

const search = { type: 'web_search_20250305', name: 'web_search' }

t.test('a tool that the upstream runs is accepted where its price names it and the request bounds it', async t => {
  t.match(refusal('messages', { tools: [{ ...search, max_uses: 1 }] }, plain), /the tool "web_search_20250305" is not accepted/)
  t.match(refusal('messages', { tools: [search] }), /set max_uses of the tool to 5 or less: /)
  t.match(refusal('messages', { tools: [{ ...search, max_uses: 6 }] }), /set max_uses of the tool to 5 or less: /)
  t.match(refusal('messages', { tools: [{ ...search, max_uses: 'x' }] }), /max_uses must be a whole number/)
  t.match(refusal('messages', { tools: [{ type: 'web_fetch_20250910' }] }), /set max_uses of the tool: /)
  t.equal(refusal('messages', { tools: [{ ...search, max_uses: 5 }] }), 'accepted')
  t.match(refusal('messages', { tools: [{ type: 'code_execution_20250825', max_uses: 1 }] }), /is not accepted/)
  t.match(refusal('responses', { tools: [{ type: 'web_search' }] }), /set max_tool_calls to 5 or less: /)
  for (const type of ['web_search', 'web_search_preview', 'web_search_preview_2025_03_11']) {
    t.equal(refusal('responses', { max_tool_calls: 2, tools: [{ type }] }), 'accepted')
  }
  t.match(refusal('responses', { max_tool_calls: 2, tools: [{ type: 'file_search' }] }), /"file_search" is not accepted/)
  t.match(refusal('chat', { tools: [{ type: 'web_search' }] }), /is not accepted/, 'nothing bounds it')
  t.match(refusal('gemini', { tools: [{ googleSearch: {} }] }), /is not accepted/)
})

t.test('each call of a tool is set aside with what it finds, and with all before it read once more', async t => {
  const { bound, inputBound, text, runsTools } = priced('messages', { tools: [{ ...search, max_uses: 2 }] })
  t.equal(inputBound, (text + 2 * 5000) * 3)
  t.equal(bound, (inputBound + 10 * 2) * 2 + 20_000, 'at the dearest tier that may serve it')
  t.equal(runsTools, true)
  t.equal(priced('messages', {}).runsTools, false)
  const dear = tokenPrices({ '*': { inputPerMillion: 1, outputPerMillion: 2, serviceTiers: { priority: 1e300 } } })('m')!
  t.match(refusal('chat', { service_tier: 'priority' }, dear), /beyond all credits/)
})

t.test('a tier of service is accepted where the price names it, and costs what the one costs that has served', async t => {
  t.match(refusal('chat', { service_tier: 'priority' }, plain), /service_tier "priority" is not accepted/)
  t.match(refusal('chat', { service_tier: 'scale' }), /"scale" is not accepted/)
  t.match(refusal('chat', { service_tier: 7 }), /must be a text/)
  const told = (tier: string | null) => ({ calls: new Map(), tier })
  const costs = (name: DialectName, asked: object, served: string | null) =>
    priced(name, asked).costOf({ input: 100 }, told(served))
  t.equal(costs('chat', { service_tier: 'priority' }, 'priority'), 200)
  t.equal(costs('chat', { service_tier: 'priority' }, 'default'), 100, 'it had no room there')
  t.equal(costs('chat', { service_tier: 'priority' }, null), 200)
  t.equal(costs('chat', { service_tier: 'priority' }, 'other'), 200)
  t.equal(costs('gemini', { serviceTier: 'FLEX' }, null), 50)
  t.equal(costs('chat', {}, 'priority'), 200, 'as its project is set up')
  t.equal(costs('chat', {}, 'other'), 100)
  t.equal(costs('chat', {}, null), 100)
  const [usual, fast] = [priced('chat', { service_tier: 'standard' }).bound, priced('chat', { service_tier: 'priority' }).bound]
  t.equal(fast, 2 * usual)
  t.equal(priced('chat', { service_tier: 'flex' }).bound, priced('chat', { service_tier: 'default' }).bound - 3, 'never less than the usual')
})

t.test('what an answer has done beside its tokens is read from JSON and from a stream', async t => {
  const read = (name: DialectName, ...values: readonly object[]) => {
    const reader = new AnswerReader(name, 1)
    for (const value of values) reader.take(value)
    const { calls, tier } = reader.extras
    return [calls.get('web_search'), calls.get('web_fetch'), tier]
  }
  t.strictSame(read('messages', { usage: { server_tool_use: { web_search_requests: 3, web_fetch_requests: 1 }, service_tier: 'priority' } }), [3, 1, 'priority'])
  t.strictSame(read('messages', { type: 'message_start', message: { usage: { service_tier: 'standard' } } },
    { type: 'message_delta', usage: { server_tool_use: { web_search_requests: 2 } } }), [2, 0, 'standard'])
  const output = [{ type: 'web_search_call', id: 'ws_1' }, { type: 'web_search_call', id: 'ws_2' }, { type: 'message' }]
  t.strictSame(read('responses', { object: 'response', output, service_tier: 'flex' }), [2, 0, 'flex'])
  t.strictSame(read('responses', { type: 'response.output_item.added', item: output[0] },
    { type: 'response.output_item.done', item: output[0] }, { type: 'response.completed', response: { output, service_tier: 'default' } }), [2, 0, 'default'])
  t.strictSame(read('chat', { choices: [], service_tier: 'priority' }), [0, 0, 'priority'])
  t.strictSame(read('gemini', { usageMetadata: { serviceTier: 'FLEX' } }), [0, 0, 'flex'])
})

t.test('searches are charged beside tokens, in JSON, in a stream, and as set aside where it breaks off', async t => {
  const config = `
plans: { default: { credits: 10000 } }
prices:
  "*":
    inputPerMillion: 1000
    outputPerMillion: 2000
    hidesReasoning: false
    serverTools: { web_search: { perCall: 1, tokensPerCall: 100 } }`
  const usage = { input_tokens: 100, output_tokens: 50, server_tool_use: { web_search_requests: 2 } }
  const { call, calls, mint, left, answerWith } = await startLlmGateway(t,
    json({ type: 'message', content: [], stop_reason: 'end_turn', usage }), { config })
  const token = await mint('alice')
  const ask = async (isStream: boolean): Promise<number> => {
    const before = await left(token)
    const body = { model: 'm', max_tokens: 100, messages: [], tools: [{ ...search, max_uses: 3 }], stream: isStream }
    t.equal((await call('/v1/messages', { token, body })).status, 200)
    return Number((before - await left(token)).toFixed(6))
  }
  t.equal(await ask(false), 0.1 + 0.1 + 2)
  const piece = { type: 'content_block_delta', delta: { type: 'text_delta', text: 'Hello' } }
  const last = [{ type: 'message_delta', delta: { stop_reason: 'end_turn' }, usage }, { type: 'message_stop' }]
  answerWith(stream(events(piece, ...last)))
  t.equal(await ask(true), 0.1 + 0.1 + 2)
  answerWith(stream(events(piece)))
  const sent = calls.at(-1)!.text.length
  t.equal(await ask(true), Number(((sent + 1024 + 300) * 4 / 1000 + 0.2 + 3).toFixed(6)), 'all that was set aside')
})
