import Anthropic from '@anthropic-ai/sdk'
import { ApiError, GoogleGenAI } from '@google/genai'
import { connect, createServer } from 'node:net'
import OpenAI from 'openai'
import t, { type Test } from 'tap'
import { readError, type SdkName, sdkNames, sdks } from '../helpers/llm-ai-sdks.ts'
import { apiKey } from '../helpers/gateway.ts'
import { llmConfig, startLlmSandbox } from '../helpers/llm-sandbox.ts'
import { listen } from '../helpers/raw-server.ts'
import { until } from '../helpers/until.ts'

const text = 'Hello from the sandbox that stands in for APIXO.'
const forms = ['plain', 'streamed'] as const

for (const name of sdkNames) {
  t.test(`${name}: answers, streams and calls of tools come as they are, and cost what the upstream counted`, async t => {
    const gateway = await startLlmSandbox(t)
    const { sandbox, spent, costOf } = gateway
    const token = await gateway.mint('alice')
    const sdk = sdks[name]({ origin: gateway.origin, key: token })
    let [charged, seen] = [0, 0]
    const settled = async () => {
      await until('the charge', async () => {
        charged = await spent(token)
        return charged === sandbox.llmCalls.reduce((sum, { tokens }) => sum + costOf(tokens), 0)
      })
      t.match(sandbox.llmCalls.slice(seen++), [{ outcome: 'complete' }])
      t.not(charged, 0)
    }
    for (const form of forms) {
      t.match(await sdk[form]({ prompt: 'hi there' }), { text, input: 2, output: 9, tool: null }, form)
      await settled()
      const used = await sdk[form]({ prompt: 'the weather', hasTool: true })
      t.match(used, { text: '', tool: ['weather', { city: 'Paris' }] })
      await settled()
      t.match(await sdk[form]({ prompt: 'sandbox:thinking sandbox:cached' }), { text, output: 21 })
      await settled()
    }
  })
}

const classes: Readonly<Record<number, string>> = {
  400: 'BadRequestError',
  401: 'AuthenticationError',
  403: 'PermissionDeniedError',
  404: 'NotFoundError',
  429: 'RateLimitError'
}

/** Those that the other SDK has no class for. */
const anthropicClasses: Readonly<Record<number, string>> = {
  402: 'PaymentRequiredError',
  503: 'ServiceUnavailableError',
  529: 'OverloadedError'
}

/** What an SDK calls its errors, by the status. */
function classOf (name: SdkName, status: number): string {
  if (name === 'genai') return 'ApiError'
  if (name.startsWith('ai ')) return 'APICallError'
  const own = name === 'anthropic' ? anthropicClasses[status] : undefined
  return own ?? classes[status] ?? (status < 500 ? 'APIError' : 'InternalServerError')
}

for (const name of sdkNames) {
  /** The errors of a plain call, and of a streamed one after it. */
  const fails = async (sdk: ReturnType<typeof sdks[SdkName]>, prompt = 'hi') => {
    const errors = []
    for (const form of forms) {
      errors.push(await sdk[form]({ prompt }).then(said => { throw new Error(said.text) }, readError))
    }
    return errors
  }

  t.test(`${name}: our errors are of its own classes, with their code, their words and the request's id`, async t => {
    const gateway = await startLlmSandbox(t)
    const { origin, mint, sandbox } = gateway
    const sdkFor = (key: string, place: object = {}) => sdks[name]({ origin, key, retries: 0, ...place })
    const check = async (status: number, words: RegExp, sdk: ReturnType<typeof sdkFor>) => {
      for (const error of await fails(sdk)) {
        t.match(error, { status, className: classOf(name, status), told: words }, `${status} ${words}`)
        if (name !== 'genai') t.match(error.requestId, /^[\w-]{8,}$/)
      }
    }
    const token = await mint('alice')
    await check(400, /GW_BAD_REQUEST/, sdkFor(token, { headers: { 'x-api-key': 'k1', 'x-goog-api-key': 'k2' } }))
    await check(401, /GW_BAD_SESSION/, sdkFor('gws_no-such-token'))
    await check(402, /GW_CREDITS_EXHAUSTED/, sdkFor(await mint('paul', { plan: 'poor' })))
    await check(403, /GW_MODEL_DENIED/, sdkFor(await mint('carl', { plan: 'choosy' })))
    await check(404, /base URL/, sdkFor(token, { origin: `${origin}/v1` }))
    const slow = sdkFor(await mint('sam', { plan: 'slow' }))
    await slow.plain({ prompt: 'hi' })
    await check(429, /GW_RATE_LIMITED/, slow)
    t.equal(sandbox.llmCalls.length, 1, 'none of them reached the upstream')
  })

  t.test(`${name}: the upstream's errors are of its own classes too, and cost nothing`, async t => {
    const gateway = await startLlmSandbox(t)
    const token = await gateway.mint('alice')
    const sdk = sdks[name]({ origin: gateway.origin, key: token, retries: 0 })
    for (const [word, status, told = /asked for this refusal/] of [
      ['vendor-400', 400], ['vendor-404', 404], ['vendor-500', 500], ['vendor-503', 503], ['vendor-529', 529],
      ['http-404', 404, /Not Found/], ['code-404', 404, /Not Found/], ['code-500', 500, /Server Error/],
      ['http-503', 503, /Service Unavailable/], ['vendor-403', 403], ['vendor-429', 429]
    ] as ReadonlyArray<[string, number, RegExp?]>) {
      for (const error of await fails(sdk, `sandbox:${word}`)) {
        t.match(error, { status, className: classOf(name, status), told }, word)
      }
    }
    t.equal(await gateway.spent(token), 0)
  })

  t.test(`${name}: our own key's trouble is an error of ours, and no other caller's`, async t => {
    const gateway = await startLlmSandbox(t)
    const sdk = sdks[name]({ origin: gateway.origin, key: await gateway.mint('alice'), retries: 0 })
    gateway.sandbox.revoke(apiKey)
    const [error, next] = await fails(sdk)
    t.match(error, { status: 502, className: classOf(name, 502), told: /GW_UPSTREAM_REFUSED_KEY/ })
    t.match(next, { status: 503, className: classOf(name, 503), told: /GW_NO_KEY/ })
  })
}

/** Another way to the gateway, on which the bytes of its answers are seen. */
async function observed (t: Test, origin: string, saw: (piece: string) => void): Promise<string> {
  const server = createServer(near => {
    const far = connect(Number(new URL(origin).port), '127.0.0.1')
    far.on('data', piece => saw(piece.toString('latin1')))
    near.pipe(far).pipe(near)
    for (const [one, other] of [[near, far], [far, near]] as const) {
      one.on('error', () => {}).on('close', () => other.destroy())
    }
  })
  const port = await listen(server)
  t.teardown(() => server.close())
  return `http://127.0.0.1:${port}`
}

for (const name of sdkNames) {
  t.test(`${name}: a heartbeat between two events is passed over`, async t => {
    const gateway = await startLlmSandbox(t, { config: `${llmConfig}llm: { heartbeatMs: 20 }\n` })
    const { sandbox, origin } = gateway
    const key = await gateway.mint('alice')
    let raw = ''
    const tapped = await observed(t, origin, piece => { raw += piece })
    const said = sdks[name]({ origin: tapped, key }).streamed({ prompt: 'sandbox:hold-middle' })
    await until('three of them', () => raw.split(/^: hb\n\n|^event: ping\n/m).length > 3)
    sandbox.release()
    t.match(await said, { text: /^Hello.*\.$/, input: /\d/, output: /\d/ })
    const [call] = sandbox.llmCalls
    await until('the charge', async () => await gateway.spent(key) === gateway.costOf(call!.tokens))
  })
}

t.test('each SDK lists the models of its session, and has its own class of what there is not', async t => {
  const gateway = await startLlmSandbox(t, {
    models: [{ id: 'gpt-5.4', category: 'text' }, { id: 'claude-sonnet-4-6', category: 'text' }, { id: 'nano-banana', category: 'image' }]
  })
  const { origin } = gateway
  const apiKey = await gateway.mint('alice')
  const ids = ['gpt-5.4', 'claude-sonnet-4-6']
  const openai = new OpenAI({ apiKey, baseURL: `${origin}/v1`, maxRetries: 0 })
  const anthropic = new Anthropic({ apiKey, baseURL: origin, maxRetries: 0 })
  const google = new GoogleGenAI({ apiKey, httpOptions: { baseUrl: origin } })

  t.same((await openai.models.list()).data.map(({ id }) => id), ids)
  t.match(await openai.models.retrieve('gpt-5.4'), { id: 'gpt-5.4', object: 'model' })
  t.same((await anthropic.models.list()).data.map(({ id }) => id), ids)
  t.match(await anthropic.models.retrieve('claude-sonnet-4-6'), { id: 'claude-sonnet-4-6', type: 'model' })
  t.same((await google.models.list()).page.map(({ name }) => name), ids.map(id => `models/${id}`))
  t.match(await google.models.get({ model: 'gpt-5.4' }), { name: 'models/gpt-5.4' })

  const errorOf = (call: () => Promise<unknown>) => call().then(() => null, (error: unknown) => error)
  const requestID = /^[\w-]{8,}$/
  for (const call of [
    () => openai.embeddings.create({ model: 'gpt-5.4', input: 'hi' }), () => openai.files.list(),
    () => openai.models.retrieve('no such'), () => openai.chat.completions.retrieve('id')
  ]) {
    const error = await errorOf(call)
    t.ok(error instanceof OpenAI.NotFoundError)
    t.match(error, { status: 404, code: 'GW_NOT_FOUND', requestID, message: /There is no such/ })
  }
  const messages = [{ role: 'user' as const, content: 'hi' }]
  for (const call of [
    () => anthropic.messages.countTokens({ model: 'claude-sonnet-4-6', messages }),
    () => anthropic.messages.batches.list(), () => anthropic.models.retrieve('no such')
  ]) {
    const error = await errorOf(call)
    t.ok(error instanceof Anthropic.NotFoundError)
    t.match(error, { status: 404, type: 'GW_NOT_FOUND', requestID, message: /There is no such/ })
  }
  for (const call of [
    () => google.models.countTokens({ model: 'gpt-5.4', contents: 'hi' }),
    () => google.models.embedContent({ model: 'gpt-5.4', contents: 'hi' })
  ]) {
    const error = await errorOf(call)
    t.ok(error instanceof ApiError)
    t.match(error, { status: 404, message: /GW_NOT_FOUND|no such/ })
  }
  t.equal(await gateway.spent(apiKey), 0)
  t.equal(gateway.sandbox.llmCalls.length, 0)
})
