import OpenAI from 'openai'
import t from 'tap'
import type { DialectName } from '../../src/features/llm/dialects.ts'
import { AnswerReader } from '../../src/features/llm/usage.ts'
import { createGateway } from '../../src/gateway.ts'
import { openStore } from '../../src/stores.ts'
import { clock } from '../helpers/clock.ts'
import { events, json, startLlmGateway, stream, type UpstreamCall } from '../helpers/llm-gateway.ts'

const config = `
plans: { default: { credits: 1000 } }
prices: { "*": { inputPerMillion: 1000, outputPerMillion: 2000 } }
llm: { statefulFields: [previous_response_id, conversation, container, item_reference] }`
const path = '/v1/responses'
const usage = { input_tokens: 100, output_tokens: 50 }
const response = (id: string) => ({
  id,
  object: 'response',
  status: 'completed',
  output: [{ id: `${id}_msg`, type: 'message', role: 'assistant', content: [{ type: 'output_text', text: 'Hello', annotations: [] }] }],
  conversation: { id: `${id}_conv` },
  usage
})
const streamed = (id: string) => stream(events(
  { type: 'response.created', sequence_number: 0, response: { ...response(id), status: 'in_progress', output: [], usage: null } },
  { type: 'response.output_item.added', sequence_number: 1, output_index: 0, item: { id: `${id}_msg`, type: 'message', content: [] } },
  {
    type: 'response.content_part.added',
    sequence_number: 2,
    output_index: 0,
    item_id: `${id}_msg`,
    content_index: 0,
    part: { type: 'output_text', text: '', annotations: [] }
  },
  { type: 'response.output_text.delta', sequence_number: 3, output_index: 0, item_id: `${id}_msg`, content_index: 0, delta: 'Hello' },
  { type: 'response.completed', sequence_number: 4, response: response(id) }
))
const keysOf = (calls: readonly UpstreamCall[]) => calls.map(({ headers }) => headers.authorization)

t.test("what the caller's own answers have told may be named, and nothing else", async t => {
  const { call, mint, calls, answerWith } = await startLlmGateway(t, json(response('resp_1')), { config })
  const [alice, bob] = [await mint('alice'), await mint('bob')]
  const ask = async (token: string, more: object) => {
    const { status, json: { error } } = await call(path, { token, body: { model: 'm', input: 'Hi', max_output_tokens: 10, ...more } })
    return [status, error?.message.replace(/"[^"]*"/, '"…"'), error?.type]
  }
  t.equal((await ask(alice, {}))[0], 200)
  answerWith(streamed('resp_2'))
  t.equal((await call(path, { token: alice, body: { model: 'm', input: 'Hi', stream: true } })).status, 200)
  answerWith(json(response('resp_3')))
  for (const id of ['resp_1', 'resp_2']) {
    const named = [
      { previous_response_id: id }, { conversation: `${id}_conv` }, { conversation: { id: `${id}_conv` } },
      { input: [{ type: 'item_reference', id: `${id}_msg` }] }, { input: [{ id: `${id}_msg` }] }
    ]
    for (const more of named) {
      t.strictSame(await ask(alice, more), [200, undefined, undefined], JSON.stringify(more))
      const before = calls.length
      const foreign = await ask(bob, more)
      const nobodys = await ask(bob, JSON.parse(JSON.stringify(more).replaceAll(id, 'resp_9')))
      t.match(foreign, [404, /^There is no \S+ "…"\.$/, 'invalid_request_error'])
      t.strictSame(foreign, nobodys, 'as if there were none')
      t.equal(calls.length, before, 'and nothing is sent')
    }
  }
  t.equal((await ask(alice, { previous_response_id: 'x'.repeat(1000) }))[0], 404)
  t.equal((await ask(alice, { Previous_Response_Id: 'resp_1' }))[0], 400)
  t.equal((await ask(alice, { previous_response_id: { id: 'resp_1', other: 1 } }))[0], 400)
  t.equal((await ask(alice, { previous_response_id: '' }))[0], 400)
  t.equal((await ask(alice, { input: [{ previous_response_id: 'resp_1' }] }))[0], 400, 'where it has no meaning')
  t.equal((await ask(alice, { input: Array.from({ length: 1001 }, () => ({ id: 'resp_1_msg' })) }))[0], 400)
  t.equal((await ask(alice, { input: [{ type: 'item_reference' }] }))[0], 400)
  t.equal((await ask(alice, { background: true }))[0], 400)
  t.equal((await call('/v1/chat/completions', { token: alice, body: { model: 'm', messages: [], previous_response_id: 'resp_1' } })).status, 400)
})

t.test('what the caller did not let the upstream keep is not known', async t => {
  const { call, mint } = await startLlmGateway(t, json(response('resp_1')), { config })
  const token = await mint('alice')
  const ask = async (more: object) => (await call(path, { token, body: { model: 'm', input: 'Hi', ...more } })).status
  t.equal(await ask({ store: false }), 200)
  t.equal(await ask({ previous_response_id: 'resp_1' }), 404)
})

t.test('a call goes on with the key that made what it goes on with, and has what that came to set aside', async t => {
  const env = { APIXO_API_KEY: 'key-one-1234567890,key-two-1234567890' }
  const { call, mint, calls, left, answerWith } = await startLlmGateway(t, json(response('resp_1')), { config, env })
  const token = await mint('alice')
  const ask = async (more: object) => (await call(path, { token, body: { model: 'm', input: 'Hi', max_output_tokens: 10, ...more } })).status
  for (const id of ['resp_1', 'resp_2']) {
    answerWith(json(response(id)))
    await ask({})
  }
  const [first, second] = keysOf(calls)
  t.not(first, second, 'they take turns')
  answerWith(json(response('resp_3')))
  for (let n = 0; n < 3; n++) t.equal(await ask({ previous_response_id: 'resp_2' }), 200)
  t.strictSame(keysOf(calls).slice(2), [second, second, second])
  t.equal(await ask({ previous_response_id: 'resp_1', input: [{ type: 'item_reference', id: 'resp_2_msg' }] }), 404, 'two accounts')
  const before = await left(token)
  answerWith(({ response }) => response.destroy())
  const body = { model: 'm', input: 'Hi', max_output_tokens: 10, previous_response_id: 'resp_2' }
  t.equal((await call(path, { token, body })).status, 502)
  const bound = (JSON.stringify(body).length + 1024 + 150) / 1000 + 10 * 2 / 1000
  t.equal(Number((before - await left(token)).toFixed(6)), Number(bound.toFixed(6)))
})

t.test('a stock SDK goes on with its answer, plain and streamed', async t => {
  const { mint, answerWith, origin } = await startLlmGateway(t, json(response('resp_1')), { config })
  const client = new OpenAI({ baseURL: `${origin}/v1`, apiKey: await mint('alice'), maxRetries: 0 })
  const first = await client.responses.create({ model: 'm', input: 'Hi' })
  answerWith(streamed('resp_2'))
  const second = await client.responses.stream({ model: 'm', input: 'And?', previous_response_id: first.id }).finalResponse()
  answerWith(json(response('resp_3')))
  t.match(await client.responses.create({ model: 'm', input: 'So?', previous_response_id: second.id }), { id: 'resp_3' })
  const other = new OpenAI({ baseURL: `${origin}/v1`, apiKey: await mint('bob'), maxRetries: 0 })
  const refused = other.responses.create({ model: 'm', input: 'So?', previous_response_id: second.id })
  t.match(await refused.catch(error => error), { status: 404, code: 'GW_NOT_FOUND' })
})

t.test('containers of messages are told by any of their events; and each id once', async t => {
  const told = (name: DialectName, ...values: readonly object[]) => {
    const ids: string[] = []
    const reader = new AnswerReader(name, 1, some => { ids.push(...some) })
    for (const value of values) reader.take(value)
    return ids
  }
  t.strictSame(told('messages', { type: 'message', container: { id: 'c1' } }), ['c1'])
  t.strictSame(told('messages', { type: 'message_start', message: { id: 'msg', container: null } },
    { type: 'message_delta', delta: { container: { id: 'c2' } } }, { type: 'message_delta', delta: { container: { id: 'c2' } } }), ['c2'])
  t.strictSame(told('responses', { object: 'response', id: 'x'.repeat(257) }), [], 'no id is as long')
  t.strictSame(told('responses', { output: Array.from({ length: 1001 }, (_, id) => ({ id: String(id) })) }), [])
  const { call, mint, answerWith } = await startLlmGateway(t, json({ type: 'message', content: [], stop_reason: 'end_turn', container: { id: 'c1' }, usage }), { config })
  const token = await mint('alice')
  const ask = async (container?: string) => (await call('/v1/messages', { token, body: { model: 'm', max_tokens: 5, messages: [], container } })).status
  t.equal(await ask(), 200)
  t.equal(await ask('c1'), 200)
  t.equal(await ask('c2'), 404)
  answerWith(json({ type: 'message', content: [], stop_reason: 'end_turn', container: { id: 'c3' } }))
  t.equal(await ask('c1'), 200)
  t.equal(await ask('c3'), 200, 'also without usage')
})

t.test('an answer reaches its caller also when what the upstream keeps of it can not be recorded', async t => {
  const { call, mint, log } = await startLlmGateway(t, json(response('resp_1')), {
    config,
    createGateway: async (settings, test) => {
      const store = await openStore(settings, clock())
      const remember = async (): Promise<void> => { throw new Error('no such disk') }
      const upstreamStates = { ...store.upstreamStates, remember }
      return await createGateway(settings, { ...test, store: { ...store, upstreamStates } })
    }
  })
  const token = await mint('alice')
  t.equal((await call(path, { token, body: { model: 'm', input: 'Hi' } })).status, 200)
  t.match(log.find(line => line.msg === 'what the upstream keeps of an LLM call could not be recorded'), { err: { message: 'no such disk' } })
})
