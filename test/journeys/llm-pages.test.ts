import t, { type Test } from 'tap'
import { chromium, openPage } from '../helpers/chromium.ts'
import { clock } from '../helpers/clock.ts'
import type { SdkName } from '../helpers/llm-ai-sdks.ts'
import { type CallInPage, callInPage, llmScript } from '../helpers/llm-page.ts'
import { type LlmSandbox, startLlmSandbox } from '../helpers/llm-sandbox.ts'
import type { SdkPlace } from '../helpers/llm-sdks.ts'
import { exampleHost, exampleNginx } from '../helpers/nginx.ts'
import { pageServer } from '../helpers/page-server.ts'
import { until } from '../helpers/until.ts'

const text = 'Hello from the sandbox that stands in for APIXO.'
const html = '<!doctype html><title>A page</title><h1>A page</h1>'
const browser = await chromium(t)
const script = await llmScript()

const names: readonly SdkName[] = ['openai chat', 'openai responses', 'anthropic', 'genai', 'ai openai chat', 'ai google']
/** Those that can be told to send no key, so that the cookie counts. */
const keyless: readonly SdkName[] = ['openai chat', 'openai responses', 'anthropic', 'ai compatible']

type Call = Omit<CallInPage, 'name' | 'place'>

/** What a page gets of each SDK, wherever it stands. */
async function checkPage (
  t: Test, gateway: LlmSandbox, name: SdkName, call: (call: Call) => ReturnType<typeof callInPage>
): Promise<void> {
  const { sandbox } = gateway
  const last = () => sandbox.llmCalls.at(-1)!
  for (const form of ['plain', 'streamed'] as const) {
    t.match(await call({ form, prompt: 'hi there' }), { text, input: 2, output: 9 })
    t.match(await call({ form, prompt: 'the weather', hasTool: true }), { tool: ['weather', { city: 'Paris' }] })
    const refused = await call({ form, prompt: 'sandbox:vendor-400' })
    t.match(refused, { status: 400, told: /asked for this refusal/ })
    const before = sandbox.llmCalls.length
    t.match(await call({ form, prompt: 'sandbox:cut-head' }), { status: 502, told: /GW_OUTCOME_UNKNOWN/ })
    t.equal(sandbox.llmCalls.length, before + 1, 'bought once')
    // What is not exposed to a page would not be there; this one keeps no headers.
    if (name !== 'genai') t.match(refused, { requestId: /^[\w-]{8,}$/ })
  }
  t.match(await call({ form: 'streamed', prompt: 'sandbox:cut-middle' }), { told: /GW_UPSTREAM_INVALID/ })
  for (const leaves of ['abort', 'break'] as const) {
    await call({ form: 'streamed', prompt: 'sandbox:pieces-100 sandbox:pause-5', leaves })
    await until('its end', () => last().outcome !== 'running')
    const hangsUp = leaves === 'abort' || ['openai chat', 'openai responses', 'anthropic'].includes(name)
    t.equal(last().outcome, hangsUp ? 'aborted' : 'complete', leaves)
  }
}

t.test('a page of a listed origin calls with each SDK as it comes, and a session token for a key', async t => {
  const pageOrigin = await pageServer(t, html, 'localhost')
  const gateway = await startLlmSandbox(t, { env: { GATEWAY_ALLOWED_ORIGINS: pageOrigin } })
  const { page, complaints } = await openPage(t, browser, pageOrigin)
  await page.addScriptTag({ content: script })
  for (const name of names) {
    const place: SdkPlace = { origin: gateway.origin, key: await gateway.mint(name.replaceAll(' ', '-')) }
    await t.test(name, t => checkPage(t, gateway, name, call => callInPage(page, { name, place, ...call })))
  }
  t.notMatch(complaints.join('\n'), /CORS/)
})

/** The page's own code: from here on it has the cookie. */
async function logIn (token: string): Promise<number> {
  const headers = { authorization: `Bearer ${token}` }
  return (await fetch('/gateway/sessions/cookie', { method: 'POST', headers })).status
}

t.test('a page of the same origin calls with its cookie, and no key at all', async t => {
  const gateway = await startLlmSandbox(t, { time: clock(Date.now()) })
  const { origin } = gateway
  const context = await browser.newContext()
  t.teardown(() => context.close())
  const page = await context.newPage()
  await page.route(`${origin}/page`, route => route.fulfill({ contentType: 'text/html', body: html }))
  await page.goto(`${origin}/page`)
  await page.addScriptTag({ content: script })
  t.equal(await page.evaluate(logIn, await gateway.mint('alice')), 201)
  for (const name of keyless) {
    const place = { origin, key: null }
    await t.test(name, t => checkPage(t, gateway, name, call => callInPage(page, { name, place, ...call })))
  }
})

t.test('behind the nginx of the examples it is the same, and nothing on the way holds a stream back', async t => {
  const origin = `https://${exampleHost}`
  const env = { GATEWAY_PUBLIC_URL: origin, GATEWAY_TRUST_PROXY: '127.0.0.1' }
  const gateway = await startLlmSandbox(t, { time: clock(Date.now()), env })
  const { sandbox } = gateway
  const nginx = await exampleNginx(t, gateway.origin, { page: html })
  await nginx.start()
  const browser = await chromium(t, { hosts: { [`${exampleHost}:443`]: `127.0.0.1:${nginx.port}` } })
  const { page } = await openPage(t, browser, `${origin}/page`, { ignoreHTTPSErrors: true })
  await page.addScriptTag({ content: script })
  for (const name of ['openai responses', 'anthropic', 'genai', 'ai openai chat'] as const) {
    const place = { origin, key: await gateway.mint(name.replaceAll(' ', '-')) }
    await t.test(name, async t => {
      await checkPage(t, gateway, name, call => callInPage(page, { name, place, ...call }))
      const call = { name, place, form: 'streamed', prompt: 'sandbox:hold-middle', leaves: 'abort' } as const
      const said = await callInPage(page, call)
      t.match('text' in said ? said.text : 'Hello', /^Hello/, 'it has come while the rest is held back')
      await until('its end', () => sandbox.llmCalls.at(-1)!.outcome === 'aborted')
      sandbox.release()
    })
  }
})
