import t from 'tap'
import { sdkNames, sdks } from '../helpers/llm-ai-sdks.ts'
import { key, sandboxFor } from './client.ts'

const text = 'Hello from the sandbox that stands in for APIXO.'

for (const name of sdkNames) {
  t.test(`${name} as it comes reads what the sandbox says`, async t => {
    const { sandbox } = await sandboxFor(t)
    // The sandbox looks for the header that APIXO documents; this SDK sends another one.
    const headers = name === 'anthropic' ? { headers: { 'x-api-key': key } } : {}
    const sdk = sdks[name]({ origin: sandbox.origin, key, retries: 0, ...headers })
    const plain = await sdk.plain({ prompt: 'hi there' })
    t.match(plain, { text, input: 2, output: 9, tool: null })
    t.same(await sdk.streamed({ prompt: 'hi there' }), plain)

    const used = await sdk.plain({ prompt: 'what is the weather?', hasTool: true })
    t.match(used, { text: '', tool: ['weather', { city: 'Paris' }] })
    t.same(await sdk.streamed({ prompt: 'what is the weather?', hasTool: true }), used)

    const cached = await sdk.plain({ prompt: 'sandbox:cached sandbox:thinking' })
    t.match(cached, { text, output: 21 })
    t.same(await sdk.streamed({ prompt: 'sandbox:cached sandbox:thinking' }), cached)
    t.match(sandbox.llmTotals(), { complete: { calls: 6 }, refused: { calls: 0 } })
  })
}
