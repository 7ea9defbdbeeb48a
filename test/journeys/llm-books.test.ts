import t from 'tap'
import type { LlmCall } from '../../src/sandbox/llm-calls.ts'
import { type LlmSandbox, llmPrices, startLlmSandbox } from '../helpers/llm-sandbox.ts'
import { random } from '../helpers/random.ts'
import { until } from '../helpers/until.ts'
import { type Ask, ask, dialects, readAll } from '../sandbox/llm-client.ts'

/** 10,000 take some minutes, and are for who has changed something here. */
const count = Number(process.env.LLM_CALLS ?? 500)
const atOnce = 40
const maxTokens = 40

const whole = ['pieces-9', 'pieces-40', 'cached', 'thinking', 'usage-each', 'crlf', 'data-lines'] as const
const untold = ['usage-absent', 'usage-null', 'usage-zero'] as const
const broken = [
  'cut-head', 'cut-opening', 'cut-middle', 'cut-last', 'end-head', 'end-opening', 'end-middle', 'end-last', 'error-middle',
  'drop-after', 'html-200', 'json-504'
] as const
/** Nothing is made, and nobody can know. */
const unknowable = ['drop-before', 'html-502'] as const
const refused = ['vendor-400', 'vendor-500', 'vendor-503', 'http-404', 'http-503', 'code-500'] as const
const left = ['slow-start', 'hold-opening', 'hold-middle'] as const
const kinds = [whole, whole, whole, untold, broken, broken, unknowable, refused, left] as const

interface Made {
  readonly prompt: string
  readonly word: string
  readonly token: string
  readonly bodyBytes: number
  /** What was set aside, where the call was held so that it could be seen. */
  readonly reserved: number | null
}

const limits = {
  chat: { max_completion_tokens: maxTokens },
  responses: { max_output_tokens: maxTokens },
  messages: { max_tokens: maxTokens },
  gemini: { generationConfig: { maxOutputTokens: maxTokens } }
}

/** A connection that is lost before an answer has begun: SDKs send the call again. */
async function insist (place: { readonly origin: string }, request: Ask): Promise<Response> {
  return await ask(place, request).catch((error: unknown) => {
    if (request.signal?.aborted) throw error
    return ask(place, request)
  })
}

/** One call as an SDK makes it: it is sent again after a 5xx, up to three times in all, in the same bytes. */
async function make (gateway: LlmSandbox, asking: Ask, word: string): Promise<Made> {
  const { origin, sandbox, spent, mint } = gateway
  const prompt = asking.prompt!
  const token = await mint(prompt.split(' ')[0]!)
  const leaving = new AbortController()
  const request = {
    ...asking, body: limits[asking.dialect], headers: { authorization: `Bearer ${token}` }, isBare: true, signal: leaving.signal
  }
  const made = { prompt, word, token, bodyBytes: JSON.stringify(request).length }
  if (left.some(name => name === word)) {
    const gone = insist({ origin }, request).then(readAll, () => {})
    const mine = () => sandbox.llmCalls.find(call => call.prompt === prompt)
    await until('the call upstream', () => mine() !== undefined, 30_000)
    const reserved = await spent(token)
    leaving.abort()
    await gone
    await until('its end', () => mine()!.outcome !== 'running')
    return { ...made, reserved }
  }
  for (let tries = 0; tries < 3; tries++) {
    const response = await insist({ origin }, request)
    await readAll(response)
    if (response.status < 500) break
  }
  return { ...made, reserved: null }
}

/** What is wrong with the charge of a call; `null`: nothing. */
function faultOf (made: Made, calls: readonly LlmCall[], charged: number, { costOf }: LlmSandbox): string | null {
  const mayComeAgain = refused.some(name => name === made.word)
  const bought = calls.filter(({ outcome }) => outcome !== 'refused' || !mayComeAgain)
  const fault = (why: string): string => `${made.prompt}: ${why}; charged ${charged}, ${JSON.stringify(calls)}`
  if (bought.length > 1) return fault('bought twice')
  const [call] = bought
  if (call === undefined) return charged === 0 ? null : fault('a refused call was charged')
  const counted = costOf(call.tokens)
  const isExact = call.outcome === 'complete' && !untold.some(name => name === made.word)
  if (isExact) return charged === counted ? null : fault(`not ${counted}`)
  // The dearest kinds of tokens, in a request that may have grown, and out up to its limit.
  const reserve = made.reserved ?? (made.bodyBytes + 1000) * llmPrices.cacheWrite + maxTokens * llmPrices.reasoning
  return charged >= counted && charged <= reserve ? null : fault(`not between ${counted} and ${reserve}`)
}

const dice = random()

t.test(`over ${count} mixed calls each costs what the upstream counted, and none is bought twice (seed ${dice.seed})`, { timeout: 900_000 }, async t => {
  const gateway = await startLlmSandbox(t)
  const { sandbox, spent } = gateway
  const made: Made[] = []
  let next = 0
  const work = async (): Promise<void> => {
    while (next < count) {
      const number = next++
      const dialect = dice.pick(dialects)
      const form = dice.pick(dialect === 'gemini' ? ['json', 'sse', 'array'] as const : ['json', 'sse'] as const)
      const word = dice.pick(dice.pick<readonly string[]>(kinds))
      made.push(await make(gateway, { dialect, form, prompt: `caller-${number} ${form} sandbox:${word}` }, word))
    }
  }
  await Promise.all(Array.from({ length: atOnce }, work))

  const byPrompt = Map.groupBy(sandbox.llmCalls, ({ prompt }) => prompt)
  const faults: string[] = []
  for (const one of made) {
    const fault = async () => faultOf(one, byPrompt.get(one.prompt) ?? [], await spent(one.token), gateway)
    // A call whose caller has left is settled soon after that.
    const isRight = await until('its charge', async () => await fault() === null, 2000).then(() => true, () => false)
    if (!isRight) faults.push((await fault())!)
  }
  t.same(faults, [])
  const { complete, cut, aborted, refused } = sandbox.llmTotals()
  t.ok(Math.min(...[complete, cut, aborted, refused].map(({ calls }) => calls)) > count / 20, 'all kinds were there')
})
