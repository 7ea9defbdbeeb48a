import t from 'tap'
import { outcomeOf, type SdkName, sdkNames, sdks } from '../helpers/llm-ai-sdks.ts'
import { type LlmSandbox, startLlmSandbox } from '../helpers/llm-sandbox.ts'
import { until } from '../helpers/until.ts'

const operations = new Set(['chatCompletions', 'responses', 'messages', 'generateContent'])

/** The LLM calls that the gateway has answered somebody. */
function linesOf ({ lines }: LlmSandbox, subject: string) {
  return lines().filter(line => line.subject === `app:${subject}` && operations.has(line.operation))
}

/** A call that the upstream holds back, and what is set aside for it. */
async function held (gateway: LlmSandbox, token: string): Promise<number> {
  await until('a call that waits', () => gateway.sandbox.waiting > 0)
  return await gateway.spent(token)
}

for (const name of sdkNames) {
  t.test(`${name}: an abort by signal ends the call upstream, and is charged within what was set aside`, async t => {
    const gateway = await startLlmSandbox(t)
    const { sandbox, spent, costOf } = gateway
    const token = await gateway.mint('alice')
    const sdk = sdks[name]({ origin: gateway.origin, key: token })
    let before = 0
    for (const [form, word] of [['plain', 'slow-start'], ['streamed', 'slow-start'], ['streamed', 'hold-middle']] as const) {
      const leaving = new AbortController()
      const said = outcomeOf(sdk[form]({ prompt: `sandbox:${word}`, signal: leaving.signal }))
      const reserve = await held(gateway, token) - before
      leaving.abort()
      await said
      const call = sandbox.llmCalls.at(-1)!
      await until('the end upstream', () => call.outcome === 'aborted')
      await until('the charge', async () => (await spent(token)) - before >= costOf(call.tokens))
      const charged = (await spent(token)) - before
      t.ok(charged >= costOf(call.tokens) && charged <= reserve, `${form} ${word}: ${costOf(call.tokens)} <= ${charged} <= ${reserve}`)
      before += charged
      sandbox.release()
    }
    t.equal(sandbox.llmCalls.length, 3, 'nobody buys it again')
  })
}

/** Those that hang up when their loop is left; the others let the stream run to its end. */
const hangsUp: ReadonlySet<SdkName> = new Set(['openai chat', 'openai responses', 'anthropic'])

t.test('what `break` does is the SDK\'s own affair: some hang up, the others let the stream run to its end', async t => {
  const gateway = await startLlmSandbox(t)
  const { sandbox } = gateway
  for (const name of sdkNames) {
    const sdk = sdks[name]({ origin: gateway.origin, key: await gateway.mint(name.replaceAll(' ', '-')) })
    const { text } = await sdk.streamed({ prompt: 'sandbox:pieces-100 sandbox:pause-3', onText: () => false })
    t.equal(text, 'Hello')
    const call = sandbox.llmCalls.at(-1)!
    await until('its end', () => call.outcome !== 'running')
    t.equal(call.outcome, hangsUp.has(name) ? 'aborted' : 'complete', name)
  }
})

const lost = ['drop-after', 'html-502', 'html-200', 'json-504'] as const
const turned = ['cut', 'end'].flatMap(then => ['head', 'opening', 'middle', 'last'].map(at => `${then}-${at}`))

/** answer: it is whole to all · unknown: told before anything of an answer · event: told in the stream. */
function told (name: SdkName, form: 'plain' | 'streamed', word: string): 'answer' | 'unknown' | 'event' {
  if (lost.some(it => it === word)) return 'unknown'
  if (form === 'plain') return word.startsWith('end-') ? 'answer' : 'unknown'
  const hasNoOpening = name === 'genai' || name === 'ai google'
  return word.endsWith('-head') || (hasNoOpening && word.endsWith('-opening')) ? 'unknown' : 'event'
}

t.test('whatever is lost on the way, no SDK buys a call twice, nor takes a part for the whole', { timeout: 120_000 }, async t => {
  const gateway = await startLlmSandbox(t)
  const { sandbox, spent, costOf } = gateway
  const run = async (name: SdkName, form: 'plain' | 'streamed', word: string): Promise<[seen: string, wanted: string]> => {
    const subject = `${name}-${form}-${word}`.replaceAll(' ', '-')
    const token = await gateway.mint(subject)
    const prompt = `${subject} sandbox:${word}`
    const outcome = await outcomeOf(sdks[name]({ origin: gateway.origin, key: token })[form]({ prompt }))
    await until('its line', () => linesOf(gateway, subject).length > 0)
    const charged = await spent(token)
    const calls = sandbox.llmCalls.filter(call => call.prompt === prompt)
    const count = calls.reduce((sum, { tokens }) => sum + costOf(tokens), 0)
    const how = told(name, form, word)
    const says = 'text' in outcome
      ? outcome.text
      // An error that it can not read is none of its own.
      : outcome.className === 'TypeValidationError' ? outcome.className : /GW_\w+/.exec(outcome.told)?.[0] ?? outcome.told
    const wantedWord = { answer: /^Hello.*\.$/, unknown: /^GW_OUTCOME_UNKNOWN$/, event: /^GW_(?:OUTCOME_UNKNOWN|UPSTREAM_INVALID)$/ }[how]
    const isCharged = how === 'answer' ? charged === count : charged >= count
    return [
      `${subject}: bought ${calls.length}, asked ${linesOf(gateway, subject).length}, ${isCharged ? 'charged' : charged}, ` +
        (wantedWord.test(says) ? how : says),
      // Without looking at `x-should-retry`, but it gets the same answer again, and nothing is sent.
      `${subject}: bought 1, asked ${how === 'unknown' && name.startsWith('ai ') ? 3 : 1}, charged, ${how}`
    ]
  }
  const rows = await Promise.all(sdkNames.flatMap(name => (['plain', 'streamed'] as const).flatMap(form =>
    [...lost, ...turned].map(word => run(name, form, word)))))
  t.same(rows.map(([seen]) => seen), rows.map(([, wanted]) => wanted))
})
