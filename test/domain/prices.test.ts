import t from 'tap'
import { microcredits, type Model } from '../../src/domain/policy.ts'
import {
  type ConditionalRule, freeModels, type Price, type PricedBody, priceList, type PriceRules
} from '../../src/domain/prices.ts'
import { isGatewayError } from '../../src/errors.ts'
import { pricing } from '../helpers/prices.ts'
import { random } from '../helpers/random.ts'

const models: readonly Model[] = [
  { id: 'nano-banana', category: 'image' },
  { id: 'happyHorse', category: 'video' },
  { id: 'suno', category: 'audio' },
  { id: 'gpt-5.4', category: 'text' }
]

t.test('a price is that of the first rule for such a model, else one credit', async t => {
  const tokens = { inputPerMillion: 300, outputPerMillion: 1500 }
  const seconds = { credits: 2, per: 'input.duration', default: 8, onFailed: 'charge' as const }
  const priceOf = priceList({ 'HAPPY*': seconds, 'gpt-*': tokens, 'suno*': tokens, '*': 5 })
  const [image, video, audio, text] = models as [Model, Model, Model, Model]
  t.strictSame([image, video, audio, text].map(priceOf), [{ credits: 5 }, seconds, { credits: 5 }, tokens])
  t.strictSame([image, text].map(priceList({})), [{ credits: 1 }, null])
})

t.test('the first price that matches counts, whatever the case of the model', async t => {
  const priceOf = pricing({
    'sora-2*': { credits: 2, per: 'input.duration', default: 8 },
    kept: { credits: 3, onFailed: 'charge' },
    'claude-*': { inputPerMillion: 300, outputPerMillion: 1500 },
    'flux*': 0.25
  }, {})
  t.same(priceOf('sora-2', { input: { duration: 4 } }), { microcredits: 8_000_000, refundable: true })
  t.same(priceOf('SORA-2', { input: {} }), { microcredits: 16_000_000, refundable: true }, 'the default when the field is absent')
  t.same(priceOf('kept', { input: {} }), { microcredits: 3_000_000, refundable: false })
  t.same(priceOf('flux-2', { input: {} }), { microcredits: 250_000, refundable: true })
  t.same(priceOf('suno', { input: {} }), { microcredits: 1_000_000, refundable: true })
  t.same(priceOf('claude-x', { input: {} }), { microcredits: 1_000_000, refundable: true }, 'token prices are for LLM calls')
})

t.test('a number that makes a price must be plain and above zero', async t => {
  const priceOf = pricing({ '*': { credits: 2, per: 'input.duration' } }, {})
  for (const duration of [0, -1, 1e300, Infinity, NaN, '4', null, [4], { value: 4 }, true, 2 ** 60, 1_000_001]) {
    t.throws(
      () => priceOf('sora-2', { input: { duration } }),
      { code: 'GW_BAD_REQUEST', message: /input\.duration/ },
      String(duration)
    )
  }
  t.throws(() => priceOf('sora-2', { input: {} }), { message: /input\.duration/ })
})

t.test('a count below the least unit is priced as that unit', async t => {
  const priceOf = pricing(
    { '*': { credits: 2, per: 'input.duration', default: 0.25 } },
    {
      'sora-2*': { 'input.duration': { min: 4, max: 12 }, 'input.size': { min: 100 } },
      'SORA-2-pro': { 'input.duration': { min: 6 } },
      'veo*': { 'input.duration': { min: 0.5 } },
      'kling*': { 'input.duration': { min: 0, max: 10 } }
    }
  )
  const credits = (model: string, duration?: number) =>
    priceOf(model, { input: duration === undefined ? {} : { duration } }).microcredits / 1_000_000
  for (const tiny of [1e-10, 1e-300, Number.MIN_VALUE, 0.1]) {
    t.equal(credits('suno', tiny), 2, `${tiny}: one, where nothing is said`)
    t.equal(credits('Sora-2', tiny), 8, `${tiny}: what the cap demands`)
    t.equal(credits('sora-2-pro', tiny), 12, `${tiny}: of several caps all hold`)
    t.equal(credits('veo-3', tiny), 1, `${tiny}: a cap below one`)
    t.equal(credits('kling-2', tiny), 2, `${tiny}: a cap of nothing says nothing`)
  }
  t.same([credits('suno'), credits('veo-3')], [2, 1], 'also where the default counts')
  t.same(
    [credits('suno', 1), credits('suno', 1.5), credits('sora-2', 4.5), credits('veo-3', 0.75)],
    [2, 3, 9, 1.5],
    'fractions above it are priced as they are'
  )
})

const clips: PriceRules = {
  'wan-*': [
    {
      when: { 'input.mode': 'text-to-video', 'input.resolution': ['480p', '720p'] },
      credits: 1,
      per: ['input.duration', 'input.num_images'],
      default: { 'input.duration': 5 },
      min: 3
    },
    { when: { 'input.watermark': true, provider: ['official'] }, credits: 20, onFailed: 'charge' },
    { when: { 'input.fps': [24, 30] }, credits: 2.5 },
    { credits: 7, per: 'input.duration', default: 10 }
  ]
}

t.test('of several rules the first that matches counts', async t => {
  const priceOf = pricing(clips, {})
  const credits = (input: PricedBody['input'], provider?: unknown) =>
    priceOf('WAN-2-5', { input, provider }).microcredits / 1_000_000
  const cheap = { mode: 'text-to-video', resolution: '720p' }
  t.equal(credits({ ...cheap, duration: 4, num_images: 2 }), 8, 'a product')
  t.equal(credits({ ...cheap, num_images: 1 }), 5, 'what counts when one field is absent')
  t.equal(credits({ ...cheap, duration: 2, num_images: 1 }), 3, 'the least')
  const message = 'Set input.num_images: it makes the price.'
  t.throws(() => credits({ ...cheap, duration: 5 }), { code: 'GW_BAD_REQUEST', message })
  t.equal(credits({ ...cheap, watermark: true, num_images: 1 }, 'official'), 5, 'in their order')
  t.equal(credits({ watermark: true }, 'official'), 20)
  t.equal(credits({ watermark: true, duration: 1 }), 7, 'a provider that is not named')
  t.equal(credits({ fps: 30 }), 2.5)
  t.match(priceOf('wan-2-5', { input: { watermark: true }, provider: 'official' }), { refundable: false })
})

t.test('an absent field, and one of another type, matches no condition', async t => {
  const priceOf = pricing(clips, {})
  for (const input of [
    {},
    { mode: 'text-to-video' },
    { mode: 'text-to-video', resolution: null },
    { mode: ['text-to-video'], resolution: '480p' },
    { mode: { toString: 'text-to-video' }, resolution: '480p' },
    { mode: 'text-to-video', resolution: 480 },
    { mode: 'text-to-video ', resolution: '480p' },
    { fps: '24' },
    { fps: true },
    { watermark: 'true' },
    { watermark: 1 }
  ]) t.equal(priceOf('wan-2-5', { input }).microcredits, 70_000_000, JSON.stringify(input))
  for (const input of [{ Mode: 'text-to-video', resolution: '480p' }, { mode: 'text-to-video', reſolution: '480p' }]) {
    t.throws(() => priceOf('wan-2-5', { input }), { code: 'GW_BAD_REQUEST', message: /^Write "/ }, 'nor another spelling')
  }
})

t.test('a text that matches by its case alone costs the dearer of its rule and the last', async t => {
  const priceOf = pricing({
    a: [{ when: { 'input.size': ['1K', 'm'] }, credits: 2 }, { credits: 5, onFailed: 'charge' }],
    b: [{ when: { 'input.size': '1K' }, credits: 9, onFailed: 'charge' }, { credits: 5 }]
  }, {})
  const price = (model: string, size: string) => priceOf(model, { input: { size } })
  t.same(price('a', '1K'), { microcredits: 2_000_000, refundable: true })
  t.same(price('a', '1k'), { microcredits: 5_000_000, refundable: false })
  t.same(price('a', 'M'), { microcredits: 5_000_000, refundable: false })
  t.same(price('b', '1k'), { microcredits: 9_000_000, refundable: false }, 'and fails to the dearer of the two as well')
  t.same(price('b', '1\u212A'), { microcredits: 5_000_000, refundable: true }, 'the sign of Kelvin is no K')
  t.same(price('b', '1K'.repeat(1_000_000)), { microcredits: 5_000_000, refundable: true })
})

t.test('a product of counts is a price within all credits, or no price', async t => {
  const fields = Array.from({ length: 60 }, (_, index) => `input.n${index}`)
  const ones = Object.fromEntries(fields.map(path => [path, 1]))
  const priceOf = pricing({ a: { credits: 1, per: fields, default: ones } }, {})
  t.equal(priceOf('a', { input: { n0: 1000, n1: 1_000_000 } }).microcredits, 10 ** 15)
  for (const count of [3, 60]) {
    const input = Object.fromEntries(Array.from({ length: count }, (_, index) => [`n${index}`, 1_000_000]))
    t.throws(() => priceOf('a', { input }), { code: 'GW_BAD_REQUEST', message: /^input\.n0 × input\.n1 × .* beyond all/ })
  }
})

t.test('a model is free when nothing in a submit makes it cost anything', async t => {
  const isFree = freeModels({
    a: 0,
    b: { credits: 0, min: 0 },
    c: { credits: 0, min: 0.1 },
    d: [{ when: { 'input.n': 1 }, credits: 0 }, { credits: 0 }],
    e: [{ when: { 'input.n': 1 }, credits: 1 }, { credits: 0 }],
    'f*': { inputPerMillion: 0, outputPerMillion: 0 }
  })
  t.strictSame(['a', 'A', 'b', 'c', 'd', 'e', 'f', 'g'].filter(isFree), ['a', 'A', 'b', 'd'])
  t.equal(pricing({ c: { credits: 0, min: 0.1 } }, {})('c', { input: {} }).microcredits, 100_000)
})

t.test('several rules are listed in one form, after what counts when none of them matches', async t => {
  t.strictSame(priceList(clips)({ id: 'wan-2-5', category: 'video' }), {
    credits: 7,
    per: 'input.duration',
    default: 10,
    rules: [
      {
        when: { 'input.mode': ['text-to-video'], 'input.resolution': ['480p', '720p'] },
        credits: 1,
        per: ['input.duration', 'input.num_images'],
        default: { 'input.duration': 5 },
        min: 3,
        onFailed: 'refund'
      },
      {
        when: { 'input.watermark': [true], provider: ['official'] },
        credits: 20,
        per: [],
        default: {},
        min: 0,
        onFailed: 'charge'
      },
      { when: { 'input.fps': [24, 30] }, credits: 2.5, per: [], default: {}, min: 0, onFailed: 'refund' },
      { when: {}, credits: 7, per: ['input.duration'], default: { 'input.duration': 10 }, min: 0, onFailed: 'refund' }
    ]
  })
})

const dice = random()

t.test(`no walk through rules and bodies finds a price below the least, or none (TEST_SEED=${dice.seed})`, async t => {
  const { int, pick } = dice
  const names = ['a', 'b', 'c', 'd']
  const micro = () => pick([0, 1, 7, 250_000, 1_000_000, 1_400_000, 10 ** 15])
  const some = <T>(make: () => T): T | undefined => int(2) === 0 ? undefined : make()
  const rule = (): ConditionalRule => {
    const per = names.filter(() => int(3) === 0).map(name => `input.${name}`)
    const [min, onFailed] = [some(() => micro() / 1e6), some(() => pick(['refund', 'charge'] as const))]
    return {
      credits: micro() / 1e6,
      per,
      default: Object.fromEntries(per.filter(() => int(3) > 0).map(path => [path, pick([0.5, 1, 5, 12])])),
      ...(min === undefined ? {} : { min }),
      ...(onFailed === undefined ? {} : { onFailed })
    }
  }
  const conditional = (): ConditionalRule =>
    ({ ...rule(), when: { [`input.${pick(names)}`]: [pick([1, 4, 'x', true, 'Y'])] } })
  const counts = [0.001, 0.5, 1, 1.5, 4, 7.25, 12, 1000, 999_999, 1_000_000]
  const values = [...counts, undefined, undefined, 'x', 'X', 'y', 'Y', true, null, 0, -1, 1e-300, 1_000_001, [4], { a: 1 }]
  const wrong: unknown[] = []
  for (let walk = 0; walk < 20_000; walk++) {
    const rules = [...Array.from({ length: int(4) }, conditional), rule()]
    const priceOf = pricing({ m: rules }, {})
    const input: Record<string, unknown> = Object.fromEntries(
      names.flatMap(name => {
        const value = pick(values)
        return value === undefined ? [] : [[name, value]]
      }))
    const price = attempt(() => priceOf('m', { input }))
    if (price === null) continue
    const least = Math.min(...rules.map(({ min = 0 }) => microcredits(min)))
    const isPaid = rules.every(({ credits, min = 0 }) => credits > 0 || min > 0)
    const { microcredits: cost } = price
    if (!Number.isSafeInteger(cost) || cost < Math.max(least, isPaid ? 1 : 0)) wrong.push({ rules, input, price })
    // More of a number that is no condition's makes nothing cheaper.
    const name = pick(names.filter(name => rules.every(({ when = {} }) => !(`input.${name}` in when))))
    if (name === undefined || typeof input[name] !== 'number') continue
    const more = attempt(() => priceOf('m', { input: { ...input, [name]: (input[name] as number) * 2 } }))
    if (more !== null && more.microcredits < price.microcredits) wrong.push({ rules, input, name, price, more })
  }
  t.strictSame(wrong, [])
})

function attempt (price: () => Price): Price | null {
  try {
    return price()
  } catch (error) {
    if (isGatewayError(error) && error.code === 'GW_BAD_REQUEST') return null
    throw error
  }
}
