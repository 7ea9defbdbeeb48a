import { once } from 'node:events'
import { connect } from 'node:net'
import { gunzipSync } from 'node:zlib'
import t from 'tap'
import { sandboxCases } from '../../src/sandbox/cases.ts'
import { llmCases } from '../../src/sandbox/llm-cases.ts'
import { key, otherKey, sandboxFor, until } from './client.ts'
import { ask, blocksIn, dialects, keyHeader, readAll, saidIn } from './llm-client.ts'

const text = 'Hello from the sandbox that stands in for APIXO.'

t.test('every case of an LLM call has a name of its own and a line of meaning', async t => {
  t.equal(new Set(llmCases.map(({ name }) => name)).size, llmCases.length)
  t.same(llmCases.filter(({ name }) => !/^[a-z0-9]+(-[a-z0-9]+)*$/.test(name)), [])
  t.same(llmCases.filter(({ meaning }) => !/^[^\n]{10,90}$/.test(meaning)), [])
  const meant = new Map(sandboxCases.map(({ name, makes }) => [name, makes]))
  t.same(llmCases.filter(({ name, makes }) => makes === 'nothing' && meant.get(name) === 'task'), [],
    'a refusal of the one API is none of the other')
})

for (const dialect of dialects) {
  t.test(`${dialect}: every case leaves what it says it leaves, streamed or not, and the sandbox fit`, async t => {
    const wrong: string[] = []
    const { sandbox } = await sandboxFor(t)
    for (const { name, makes, plan } of llmCases) {
      for (const form of ['json', 'sse'] as const) {
        const before = sandbox.llmCalls.length
        const done = ask(sandbox, { dialect, form, prompt: `a word sandbox:${name}, please` }).then(async response => {
          if (name === 'endless') await response.body?.cancel()
          else await readAll(response)
        }, () => {})
        await until(() => sandbox.llmCalls.length > before)
        const call = sandbox.llmCalls.at(-1)!
        await until(() => { sandbox.release(); return call.outcome !== 'running' })
        await done
        const isBroken = plan?.turn && plan.turn.then !== 'hold' && !(form === 'json' && plan.turn.then === 'end')
        const broken = name === 'endless' ? 'aborted' : 'cut'
        const expected = { answer: isBroken ? broken : 'complete', lost: 'cut', nothing: 'refused' }[makes]
        if (call.outcome !== expected || (call.tokens.input > 0) !== (makes !== 'nothing')) {
          wrong.push(`${name} ${form}: ${call.outcome}, not ${expected}; ${JSON.stringify(call.tokens)}`)
        }
      }
    }
    t.same(wrong, [])
    t.match(await (await ask(sandbox, { dialect })).json(), {})
  })

  t.test(`${dialect}: only the credential of the vendor counts, and its errors have the vendor's shape`, async t => {
    const { sandbox } = await sandboxFor(t)
    const shapes = {
      chat: { error: { message: /key/, type: 'invalid_request_error', code: 'invalid_api_key' } },
      responses: { error: { message: /key/, type: 'invalid_request_error', code: 'invalid_api_key' } },
      messages: { type: 'error', error: { type: 'authentication_error', message: /key/ } },
      gemini: { error: { code: 401, message: /key/, status: 'UNAUTHENTICATED' } }
    }
    const others = Object.assign({}, ...dialects.map(name => keyHeader(name)), keyHeader(dialect, 'wrong'))
    for (const headers of [keyHeader(dialect, 'wrong'), keyHeader(dialect, ''), others]) {
      const response = await ask(sandbox, { dialect, headers })
      t.equal(response.status, 401)
      t.match(await response.json(), shapes[dialect])
    }
    t.equal((await ask(sandbox, { dialect, headers: keyHeader(dialect, otherKey) })).status, 200)
  })

  t.test(`${dialect}: a key can be refused from now on, and let in again`, async t => {
    const { sandbox } = await sandboxFor(t)
    const status = async () => (await ask(sandbox, { dialect })).status
    for (const code of [402, 429]) {
      sandbox.refuse(key, code)
      t.equal(await status(), code)
    }
    sandbox.restore(key)
    t.equal(await status(), 200)
    sandbox.revoke(key)
    t.equal(await status(), 401)
  })

  t.test(`${dialect}: a turn comes where it says, and the tokens are those of what went before`, async t => {
    const { sandbox } = await sandboxFor(t)
    const seen = async (name: string) => {
      const response = await ask(sandbox, { dialect, form: 'sse', prompt: `sandbox:pieces-8 sandbox:${name}` })
      t.equal(response.status, 200)
      const { text, isCut } = await readAll(response)
      const blocks = blocksIn(text)
      return { isCut, blocks, said: blocks.map(({ data }) => saidIn(dialect, data)).join(''), call: sandbox.llmCalls.at(-1)! }
    }
    const whole = await seen('pause-0')
    const opening = { chat: 1, responses: 2, messages: 1, gemini: 0 }[dialect]
    for (const then of ['cut', 'end', 'error']) {
      const extra = then === 'error' ? 1 : 0
      const head = await seen(`${then}-head`)
      t.same([head.isCut, head.blocks.length, head.call.tokens.output], [then === 'cut', extra, 0], `${then}-head`)
      const open = await seen(`${then}-opening`)
      t.same([open.isCut, open.blocks.length, open.call.tokens.output], [then === 'cut', opening + extra, 0])
      const middle = await seen(`${then}-middle`)
      t.same([middle.isCut, middle.said, middle.call.tokens.output], [then === 'cut', 'Hello from the sandbox', 4])
      const last = await seen(`${then}-last`)
      t.same([last.isCut, last.said, last.call.tokens.output], [then === 'cut', whole.said, 8])
      if (then === 'error') {
        t.match([head, open, middle, last].map(({ blocks }) => blocks.at(-1)!.data), Array(4).fill({
          ...dialect === 'responses' ? { type: 'error', message: String, code: 'server_error' } : { error: { message: String } }
        }))
      }
      t.same(new Set([head, open, middle, last].map(({ call }) => call.outcome)), new Set(['cut']))
    }
    t.match(whole, { isCut: false, call: { outcome: 'complete', tokens: { output: 8 } } })
  })

  t.test(`${dialect}: a hold waits for its release`, async t => {
    const { sandbox } = await sandboxFor(t)
    for (const form of ['json', 'sse'] as const) {
      const slow = ask(sandbox, { dialect, form, prompt: 'sandbox:slow-start' })
      await until(() => sandbox.waiting === 1)
      sandbox.release()
      t.equal((await slow).status, 200)
      const held = await ask(sandbox, { dialect, form, prompt: 'sandbox:hold-middle' })
      await until(() => sandbox.waiting === 1)
      sandbox.release()
      t.match(await readAll(held), { isCut: false, text: 'APIXO' })
    }
  })

  t.test(`${dialect}: a call whose reader goes away counts what was made until then`, async t => {
    const { sandbox } = await sandboxFor(t)
    for (const form of ['json', 'sse'] as const) {
      const leaving = new AbortController()
      const held = await ask(sandbox, { dialect, form, prompt: 'sandbox:hold-middle', signal: leaving.signal })
      await until(() => sandbox.waiting === 1)
      leaving.abort()
      await t.rejects(held.text())
      const call = sandbox.llmCalls.at(-1)!
      await until(() => call.outcome === 'aborted')
      t.equal(call.tokens.output, form === 'json' ? 9 : 4)
      sandbox.release()
    }
  })

  t.test(`${dialect}: usage is told as the word says`, async t => {
    const { sandbox } = await sandboxFor(t)
    const usages = async (word: string, form: 'json' | 'sse') => {
      const options = dialect === 'chat' && form === 'sse' ? { stream_options: { include_usage: true } } : {}
      const response = await ask(sandbox, { dialect, form, prompt: `sandbox:${word}`, body: options })
      const { text } = await readAll(response)
      const all = form === 'json' ? [JSON.parse(text)] : blocksIn(text).map(({ data }) => data)
      return all.map(data => usageIn(data)).filter(usage => usage !== undefined)
    }
    const outputOf = (usage: any) =>
      usage?.completion_tokens ?? usage?.output_tokens ?? usage?.candidatesTokenCount
    for (const form of ['json', 'sse'] as const) {
      t.same(await usages('usage-absent', form), dialect === 'responses' && form === 'sse' ? [null, null] : [])
      t.equal((await usages('usage-null', form)).at(-1), null)
      t.equal(outputOf((await usages('usage-zero', form)).at(-1)), 0)
      t.equal(outputOf((await usages('usage-each', form)).at(-1)), 9)
    }
    const before = (await usages('usage-zero', 'sse')).map(outputOf).filter(count => count > 0)
    t.ok(before.length >= 9 && before.includes(9), 'good numbers come first')
    t.same(before, before.toSorted((one, other) => one - other), 'and they rise')
  })

  t.test(`${dialect}: the bytes can come in other ways`, async t => {
    const { sandbox } = await sandboxFor(t)
    const streamed = async (words: string, headers = {}) =>
      await (await ask(sandbox, { dialect, form: 'sse', prompt: words, headers })).text()
    const said = (text: string) => blocksIn(text).map(({ data }) => saidIn(dialect, data)).join('')
    const crlf = await streamed('sandbox:crlf')
    t.notMatch(crlf, /[^\r]\n/)
    const lines = await streamed('sandbox:data-lines')
    t.match(lines, /^data: \{\ndata: {2}"/m)
    t.same([said(crlf), said(lines)], [text, text])
    t.match(await (await ask(sandbox, { dialect, prompt: 'sandbox:echo-key' })).text(), key)
    const headed = await ask(sandbox, { dialect, form: 'sse', prompt: 'sandbox:bad-headers' })
    t.equal(headed.headers.get('set-cookie'), 'upstream=1; Path=/')
    t.equal(said(await headed.text()), text)
    const large = await streamed('sandbox:large')
    t.ok(large.length > 1_000_000)
    t.match(sandbox.llmCalls.at(-1), { outcome: 'complete', tokens: { output: 16 } })
  })
}

function usageIn (data: any): unknown {
  if (data === '[DONE]') return undefined
  for (const place of [data.response, data.message, data]) {
    const found = place && ['usage', 'usageMetadata'].find(name => name in place)
    if (found) return place[found]
  }
  return undefined
}

t.test('a stream or a JSON can be compressed, unasked or where it is accepted', async t => {
  const { sandbox } = await sandboxFor(t)
  const raw = async (word: string, accept: string, stream: boolean) => {
    const body = JSON.stringify({ model: 'gpt-5.4', input: `sandbox:${word}`, stream })
    const socket = connect(Number(new URL(sandbox.origin).port), '127.0.0.1')
    socket.end(`POST /v1/responses HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${key}\r\n${accept}connection: close\r\n` +
      `content-length: ${body.length}\r\n\r\n${body}`)
    const bytes = Buffer.concat(await socket.toArray())
    const end = bytes.indexOf('\r\n\r\n')
    return { head: bytes.subarray(0, end).toString(), body: bytes.subarray(end + 4) }
  }
  const accept = 'accept-encoding: gzip, br\r\n'
  for (const [word, header, isGzipped] of [
    ['gzip', '', true], ['gzip', accept, true], ['gzip-offered', '', false], ['gzip-offered', accept, true]
  ] as const) {
    const plain = await raw(word, header, false)
    t.equal(/^content-encoding: gzip/m.test(plain.head), isGzipped, word)
    t.match((isGzipped ? gunzipSync(plain.body) : plain.body).toString(), /Hello/)
    const streamed = await raw(word, header, true)
    t.equal(/^content-encoding: gzip/m.test(streamed.head), isGzipped, word)
  }
  for (const word of ['gzip', 'gzip-offered']) {
    const response = await ask(sandbox, { dialect: 'chat', form: 'sse', prompt: `sandbox:${word} sandbox:pieces-3` })
    t.equal(blocksIn(await response.text()).at(-1)!.data, '[DONE]')
  }
})

t.test('an endless stream goes no faster than it is read, and ends with its reader', async t => {
  const { sandbox } = await sandboxFor(t)
  const body = JSON.stringify({ model: 'gpt-5.4', input: 'sandbox:endless sandbox:large', stream: true })
  const socket = connect(Number(new URL(sandbox.origin).port), '127.0.0.1')
  socket.write(`POST /v1/responses HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${key}\r\n` +
    `content-length: ${body.length}\r\n\r\n${body}`)
  await once(socket, 'data')
  socket.pause()
  const [call] = sandbox.llmCalls
  let before = -1
  // Twenty requests come and go and not a token more is made: the pipe is full.
  while (before !== call!.tokens.output) {
    before = call!.tokens.output
    for (let n = 0; n < 20; n++) await ask(sandbox, { dialect: 'chat' })
  }
  t.ok(before < 1000, `stopped after ${before} events of 64 kB`)
  socket.destroy()
  await until(() => call!.outcome === 'aborted')
})

t.test('events come one by one, with a pause by the timers', async t => {
  const waiting: Array<{ ms: number, run: () => void }> = []
  const { sandbox } = await sandboxFor(t, {
    timers: { after: (ms, run) => { waiting.push({ ms, run }); return () => {} } }
  })
  const response = await ask(sandbox, { dialect: 'gemini', form: 'sse', prompt: 'sandbox:pieces-3 sandbox:pause-40' })
  const reader = response.body!.getReader()
  const pieces: string[] = []
  for (let n = 0; n < 4; n++) {
    pieces.push(Buffer.from((await reader.read()).value!).toString())
    if (n === 3) break
    await until(() => waiting.length > 0)
    const [{ ms, run }] = waiting.splice(0) as [{ ms: number, run: () => void }]
    t.equal(ms, 40)
    run()
  }
  t.same(pieces.map(piece => saidIn('gemini', blocksIn(piece)[0]!.data)), ['Hello', ' from', ' the', ''])
  t.ok((await reader.read()).done)
})

t.test('what is wrong with a call is said in the vendor\'s shape, and costs nothing', async t => {
  const { sandbox } = await sandboxFor(t)
  const refused = async (status: number, request: Parameters<typeof ask>[1], message: RegExp) => {
    const response = await ask(sandbox, request)
    t.equal(response.status, status)
    t.match((await response.json()).error.message, message)
  }
  for (const dialect of dialects) {
    await refused(400, { dialect, body: '[]' }, /not a JSON object/)
    await refused(404, { dialect, model: 'gpt-0' }, /gpt-0/)
    await refused(400, { dialect, prompt: 'sandbox:vendor-999' }, /No such sandbox case: vendor-999/)
    await refused(400, { dialect, body: { messages: 1, input: undefined, contents: [] } }, /messages|input|contents/)
  }
  await refused(400, { dialect: 'messages', headers: { 'anthropic-version': '' } }, /anthropic-version/)
  await refused(400, { dialect: 'messages', body: { max_tokens: 0 } }, /max_tokens/)
  t.match(sandbox.llmTotals(), { refused: { calls: 18, input: 0 }, complete: { calls: 0 } })
  for (const path of ['/v1/v1/messages', '/messages', '/v1/models', '/v1/messages/count_tokens']) {
    t.equal((await fetch(sandbox.origin + path, { method: 'POST', body: '{}' })).status, 404, path)
  }
  t.equal((await fetch(`${sandbox.origin}/v1/messages`)).status, 404)
})

t.test('the dialect\'s own limit ends an answer, and several answers are paid for', async t => {
  const { sandbox } = await sandboxFor(t)
  const json = async (request: Parameters<typeof ask>[1]) => await (await ask(sandbox, request)).json()
  const limits = {
    chat: { max_completion_tokens: 3 },
    responses: { max_output_tokens: 3 },
    messages: { max_tokens: 3 },
    gemini: { generationConfig: { maxOutputTokens: 3 } }
  }
  const ends = {
    chat: { choices: [{ finish_reason: 'length' }] },
    responses: { status: 'incomplete', incomplete_details: { reason: 'max_output_tokens' } },
    messages: { stop_reason: 'max_tokens' },
    gemini: { candidates: [{ finishReason: 'MAX_TOKENS' }] }
  }
  for (const dialect of dialects) {
    const answer = await json({ dialect, body: limits[dialect] })
    t.match(answer, ends[dialect])
    t.equal(saidIn(dialect, answer), 'Hello from the')
    t.equal(sandbox.llmCalls.at(-1)!.tokens.output, 3)
    await (await ask(sandbox, { dialect, form: 'sse', body: limits[dialect] })).text()
    t.match(sandbox.llmCalls.at(-1), { outcome: 'complete', tokens: { output: 3 } })
    await json({ dialect, prompt: 'sandbox:thinking', body: limits[dialect] })
    t.match(sandbox.llmCalls.at(-1), { tokens: { output: 3, reasoning: 3 } }, 'what is thought counts')
  }
  await json({ dialect: 'chat', body: { max_tokens: 3 } })
  t.equal(sandbox.llmCalls.at(-1)!.tokens.output, 3)
  for (const form of ['json', 'sse'] as const) {
    for (const [dialect, body] of [['chat', { n: 2 }], ['gemini', { generationConfig: { candidateCount: 2 } }]] as const) {
      await (await ask(sandbox, { dialect, form, body })).text()
      t.match(sandbox.llmCalls.at(-1), { outcome: 'complete', tokens: { output: 18 } })
    }
  }
})

t.test('a tool is called when the prompt names it, with what its schema demands, and once', async t => {
  const { sandbox } = await sandboxFor(t)
  const parameters = {
    type: 'object',
    properties: { city: { type: 'string' }, days: { type: 'INTEGER' }, wind: { type: 'boolean' }, odd: 1 },
    required: ['city', 'days', 'wind', 'odd']
  }
  const tools = [{ type: 'function', function: { name: 'weather', parameters } }]
  const called = async (messages: object[], given: object[] = tools) => {
    const response = await ask(sandbox, { dialect: 'chat', body: { messages, tools: given } })
    return (await response.json() as any).choices[0].message
  }
  const question = { role: 'user', content: [{ type: 'text', text: 'the weather' }, { type: 'text', text: 'please' }] }
  const { tool_calls: [{ function: used }] } = await called([question])
  t.same(JSON.parse(used.arguments), { city: 'Paris', days: 1, wind: true, odd: 'Paris' })
  t.equal((await called([question, { role: 'tool', content: '12 degrees' }])).content, text)
  t.equal((await called([{ role: 'user', content: 'hi' }])).content, text)
  t.equal((await called([question], [{ type: 'web_search' }])).content, text)
  const [bare] = (await called([question], [{ type: 'function', function: { name: 'weather' } }])).tool_calls
  t.equal(bare.function.arguments, '{}')
  t.equal((await called([{ role: 'assistant', content: 'weather' }])).content, text, 'only the user asks')
  const declared = [{ functionDeclarations: [{ name: 'hi', parameters: { type: 'OBJECT', required: ['there'] } }] }]
  const gemini = await (await ask(sandbox, { dialect: 'gemini', body: { tools: declared } })).json() as any
  t.same(gemini.candidates[0].content.parts, [{ functionCall: { name: 'hi', args: { there: 'Paris' } } }])
})

t.test('Gemini streams a JSON array without alt=sse, and may ask to be continued', async t => {
  const { sandbox } = await sandboxFor(t, { models: ['google/m'] })
  const array = async (prompt: string) => await (await ask(sandbox, { dialect: 'gemini', form: 'array', prompt })).json() as any[]
  const chunks = await array('hi')
  t.equal(chunks.map(chunk => saidIn('gemini', chunk)).join(''), text)
  t.match(chunks.at(-1), { candidates: [{ finishReason: 'STOP' }], usageMetadata: { candidatesTokenCount: 9 } })
  t.same(await array('sandbox:end-head'), [])
  t.equal((await array('sandbox:end-middle')).length, 4)
  t.match((await array('sandbox:error-middle')).at(-1), { error: { code: 503, status: 'UNAVAILABLE' } })
  t.equal((await ask(sandbox, { dialect: 'gemini', model: 'google/m' })).status, 200, 'a model may hold a slash')

  const first = await (await ask(sandbox, { dialect: 'gemini', prompt: 'sandbox:continued' })).json() as any
  t.match(first.candidates[0], { finishReason: 'CONTINUATION', continuationToken: /^more-/ })
  const body = { continuationToken: first.candidates[0].continuationToken }
  const second = await ask(sandbox, { dialect: 'gemini', prompt: 'sandbox:continued', body })
  t.match(await second.json(), { candidates: [{ finishReason: 'STOP' }] })
})

t.test('a response can fail with all of it made', async t => {
  const { sandbox } = await sandboxFor(t)
  const prompt = 'sandbox:failed'
  const failed = { status: 'failed', error: { code: 'server_error' }, usage: { output_tokens: 9 } }
  t.match(await (await ask(sandbox, { dialect: 'responses', prompt })).json(), failed)
  const blocks = blocksIn(await (await ask(sandbox, { dialect: 'responses', form: 'sse', prompt })).text())
  t.match(blocks.at(-1), { event: 'response.failed', data: { response: failed } })
})

t.test('anybody may ask how many calls came to which end, also of those that are kept no longer', async t => {
  const { sandbox, get } = await sandboxFor(t, { recordCalls: 2 })
  for (const prompt of ['hi', 'sandbox:cached', 'sandbox:cut-middle', 'sandbox:http-500', 'hi']) {
    await readAll(await ask(sandbox, { dialect: 'chat', form: 'sse', prompt }))
  }
  t.equal(sandbox.llmCalls.length, 2)
  const totals = await (await get('/sandbox/llm')).json()
  t.same(totals, sandbox.llmTotals())
  t.match(totals, {
    running: { calls: 0 },
    complete: { calls: 3, input: 6, cacheRead: 90, cacheWrite: 5, output: 27, reasoning: 0 },
    cut: { calls: 1, output: 4 },
    aborted: { calls: 0, input: 0 },
    refused: { calls: 1, input: 0 }
  })
})
