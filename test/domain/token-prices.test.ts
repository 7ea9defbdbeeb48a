import t from 'tap'
import { priceList } from '../../src/domain/prices.ts'
import { hasTokenPrices, noTokens, tokenPrices } from '../../src/domain/token-prices.ts'

t.test('the first price per token whose glob matches counts, whatever the case of the model', async t => {
  const priceOf = tokenPrices({
    'claude-*': 5,
    'claude-haiku*': { inputPerMillion: 1, outputPerMillion: 2 },
    'Claude-*': { inputPerMillion: 300, outputPerMillion: 1500 },
    '*': 1
  })
  t.equal(priceOf('CLAUDE-haiku-4')?.costOf({ ...noTokens, input: 10, output: 3 }), 16)
  t.equal(priceOf('claude-opus')?.costOf({ ...noTokens, input: 1000, output: 100 }), 450_000, '0.3 and 0.15 credits')
  t.equal(priceOf('gpt-5.4'), null, 'a price of a submit is none')
  t.equal(priceOf('gpt-5.4'), null, 'and stays none')
})

t.test('each kind costs what it is said to cost, else as much as plain tokens in its direction', async t => {
  const plain = tokenPrices({ '*': { inputPerMillion: 2, outputPerMillion: 3 } })('m')!
  const all = {
    input: 1,
    cacheRead: 10,
    cacheWrite: 100,
    cacheWriteHour: 100_000,
    imageInput: 1000,
    audioInput: 10_000,
    output: 1,
    reasoning: 10,
    imageOutput: 100,
    audioOutput: 1000
  }
  t.equal(plain.costOf(all), 111_111 * 2 + 1111 * 3)
  const apart = tokenPrices({
    '*': {
      inputPerMillion: 2,
      outputPerMillion: 3,
      cacheReadPerMillion: 0.2,
      cacheWritePerMillion: 2.5,
      cacheWriteHourPerMillion: 4.5,
      imageInputPerMillion: 4,
      audioInputPerMillion: 5,
      reasoningPerMillion: 6,
      imageOutputPerMillion: 7,
      audioOutputPerMillion: 8
    }
  })('m')!
  t.equal(apart.costOf(all), 2 + 2 + 250 + 450_000 + 4000 + 50_000 + 3 + 60 + 700 + 8000)
  t.equal(apart.boundOf(10, 10), 50 + 80, 'whatever kinds they are of')
  t.equal(plain.names('audioOutput'), false)
  t.equal(apart.names('audioOutput'), true)
})

t.test('what a cache keeps for an hour costs its own price, else that of other writes, and is set aside for', async t => {
  const rule = { inputPerMillion: 2, outputPerMillion: 3, cacheWritePerMillion: 2.5 }
  const hour = { ...noTokens, cacheWriteHour: 10 }
  const like = tokenPrices({ '*': rule })('m')!
  t.equal(like.costOf(hour), 25)
  const apart = tokenPrices({ '*': { ...rule, cacheWriteHourPerMillion: 4 } })('m')!
  t.equal(apart.costOf(hour), 40)
  t.equal(apart.boundOf(10, 0), 40)
})

t.test('nothing that costs anything is free, and noise is no price', async t => {
  const price = tokenPrices({ '*': { inputPerMillion: 0.000001, outputPerMillion: 0.1, hidesReasoning: false } })('m')!
  t.equal(price.costOf({ ...noTokens, input: 1 }), 1)
  t.equal(price.costOf(noTokens), 0)
  t.equal(price.costOf({ ...noTokens, output: 30 }), 3, '3.0000000000000004')
  t.equal(price.hidesReasoning, false)
})

t.test('a bound beyond all credits is refused', async t => {
  const price = tokenPrices({ '*': { inputPerMillion: 1, outputPerMillion: 2 } })('m')!
  t.throws(() => price.boundOf(1, Number.MAX_SAFE_INTEGER), { code: 'GW_BAD_REQUEST' })
  t.equal(price.hidesReasoning, true, 'unless it is said not to')
})

t.test('without a price per token nothing has one', async t => {
  t.equal(hasTokenPrices({ a: 1, b: { credits: 2 }, c: [{ credits: 3 }] }), false)
  t.equal(hasTokenPrices({ a: 1, b: { inputPerMillion: 0, outputPerMillion: 0 } }), true)
})

t.test('media are bounded by what vendors say of their models, or by what the operator says', async t => {
  const rule = { inputPerMillion: 1, outputPerMillion: 2 }
  const boundOf = (model: string, more: object, pictures: number, largePictures = 0, files = 0) =>
    tokenPrices({ '*': { ...rule, ...more } })(model)!.inputBound(1000, { pictures, largePictures, files })
  t.equal(boundOf('claude-opus-4-7', {}, 1), 9192)
  t.equal(boundOf('gemini-2.5-pro', {}, 2), 17_384)
  t.equal(boundOf('gpt-5.4', {}, 1, 1), 1000 + 16_384 + 32_768)
  t.equal(boundOf('gpt-4o-mini', {}, 1, 1), 1000 + 2 * 49_152)
  t.equal(boundOf('gpt-5.4', {}, 0, 0, 1), 1000 + 1_048_576)
  t.equal(boundOf('gpt-5.4', { tokensPerImage: 10, tokensPerFile: 20 }, 1, 1, 1), 1040)
  t.equal(boundOf('claude-opus-4-7', { contextTokens: 200_000 }, 0, 0, 1), 200_000, 'what is longer is refused there')
})

t.test('what stands behind a colon has no price but one that names it', async t => {
  const [cheap, dear] = [{ inputPerMillion: 1, outputPerMillion: 1 }, { inputPerMillion: 5, outputPerMillion: 5 }]
  const priceOf = tokenPrices({ 'gpt-*': cheap, 'gpt-*:online': dear, '*': cheap })
  t.equal(priceOf('gpt-5')?.costOf({ ...noTokens, input: 1 }), 1)
  t.equal(priceOf('gpt-5:online')?.costOf({ ...noTokens, input: 1 }), 5)
  t.equal(priceOf('gpt-5:free'), null)
  t.equal(priceOf('other:thinking'), null)
  const list = priceList({ 'gpt-*': cheap, 'gpt-*:online': dear })
  t.strictSame(list({ id: 'gpt-5:online', category: 'text' }), dear, 'as callers read it')
})
