import t from 'tap'
import {
  caps, categoryOf, globs, intervalBy, microcredits, type Model, periodAt, plans, priceList, pricing
} from '../../src/domain/policy.ts'

const models: readonly Model[] = [
  { id: 'nano-banana', category: 'image' },
  { id: 'happyHorse', category: 'video' },
  { id: 'suno', category: 'audio' },
  { id: 'gpt-5.4', category: 'text' }
]

t.test('a model is asked about as often as its category allows, whatever the case of its name', async t => {
  const intervalOf = intervalBy({ image: 1, video: 2, audio: 3, '*': 4 }, models)
  t.strictSame(['nano-banana', 'HAPPYHORSE', 'suno', 'gpt-5.4', 'unknown'].map(intervalOf), [1, 2, 3, 4, 4])
  t.equal(categoryOf(models)('Suno'), 'audio')
  t.equal(categoryOf([])('suno'), null)
})

t.test('a price is that of the first rule for such a model, else one credit', async t => {
  const tokens = { inputPerMillion: 300, outputPerMillion: 1500 }
  const seconds = { credits: 2, per: 'input.duration', default: 8, onFailed: 'charge' as const }
  const priceOf = priceList({ 'HAPPY*': seconds, 'gpt-*': tokens, 'suno*': tokens, '*': 5 })
  const [image, video, audio, text] = models as [Model, Model, Model, Model]
  t.strictSame([image, video, audio, text].map(priceOf), [{ credits: 5 }, seconds, { credits: 5 }, tokens])
  t.strictSame([image, text].map(priceList({})), [{ credits: 1 }, null])
})

t.test('a glob knows one wildcard, and an empty list matches nothing', async t => {
  const permits = globs(['sora-2*', 'nano.banana'])
  t.ok(permits('sora-2'))
  t.ok(permits('sora-2-pro'))
  t.notOk(permits('nano-banana'), 'a dot is a dot')
  t.notOk(permits('Sora-2'), 'permission minds the case')
  t.notOk(permits('xsora-2'))
  t.notOk(globs([])('anything'))
  t.ok(globs(['*'])('anything'))
  const middle = globs(['a*bc*d'])
  for (const name of ['abcd', 'axbcxd', 'abcbcd', 'a-b-bc-d']) t.ok(middle(name), name)
  for (const name of ['abd', 'abc', 'acbd', 'xabcd', 'ad', 'abbcx']) t.notOk(middle(name), name)
  t.notOk(globs(['ab*ba'])('aba'), 'a letter is not used twice')
  t.ok(globs(['sora-2*'], { ignoreCase: true })('SORA-2'))
})

t.test('a glob of many stars is no trap for the clock', async t => {
  const start = performance.now()
  globs(['*a'.repeat(32) + '**b'])('a'.repeat(64))
  t.ok(performance.now() - start < 1000)
})

t.test('periods are those of UTC', async t => {
  const now = Date.UTC(2026, 1, 28, 23, 59, 30)
  t.same(periodAt('minute', now), { start: Date.UTC(2026, 1, 28, 23, 59), end: Date.UTC(2026, 2, 1) })
  t.same(periodAt('hour', now), { start: Date.UTC(2026, 1, 28, 23), end: Date.UTC(2026, 2, 1) })
  t.same(periodAt('day', now), { start: Date.UTC(2026, 1, 28), end: Date.UTC(2026, 2, 1) })
  t.same(periodAt('month', now), { start: Date.UTC(2026, 1, 1), end: Date.UTC(2026, 2, 1) })
})

t.test('unlimited credits are written out; all others are counted in millionths', async t => {
  const rule = { models: ['*'], requestsPerMinute: 1, pollsPerMinute: 1, concurrentTasks: 1, period: 'day' } as const
  const compiled = plans({ default: { ...rule, credits: 1.5 }, free: { ...rule, credits: 'unlimited' } })
  t.equal(compiled.get('default')?.credits, 1_500_000)
  t.equal(compiled.get('free')?.credits, null)
  t.ok(compiled.get('default')?.permits('sora-2'))
})

t.test('the first price that matches counts, whatever the case of the model', async t => {
  const priceOf = pricing({
    'sora-2*': { credits: 2, per: 'input.duration', default: 8 },
    kept: { credits: 3, onFailed: 'charge' },
    'claude-*': { inputPerMillion: 300, outputPerMillion: 1500 },
    'flux*': 0.25
  }, {})
  t.same(priceOf('sora-2', { duration: 4 }), { microcredits: 8_000_000, refundable: true })
  t.same(priceOf('SORA-2', {}), { microcredits: 16_000_000, refundable: true }, 'the default when the field is absent')
  t.same(priceOf('kept', {}), { microcredits: 3_000_000, refundable: false })
  t.same(priceOf('flux-2', {}), { microcredits: 250_000, refundable: true })
  t.same(priceOf('suno', {}), { microcredits: 1_000_000, refundable: true })
  t.same(priceOf('claude-x', {}), { microcredits: 1_000_000, refundable: true }, 'token prices are for LLM calls')
})

t.test('a number that makes a price must be plain and above zero', async t => {
  const priceOf = pricing({ '*': { credits: 2, per: 'input.duration' } }, {})
  for (const duration of [0, -1, 1e300, Infinity, NaN, '4', null, [4], { value: 4 }, true, 2 ** 60, 1_000_001]) {
    t.throws(
      () => priceOf('sora-2', { duration }),
      { code: 'GW_BAD_REQUEST', message: /input\.duration/ },
      String(duration)
    )
  }
  t.throws(() => priceOf('sora-2', {}), { message: /input\.duration/ })
})

t.test('a fraction of a millionth is rounded up, and a sum of floats is not', async t => {
  t.equal(microcredits(0.0000001), 1)
  t.equal(microcredits(0.1 + 0.2), 300_000)
  t.equal(microcredits(0), 0)
  for (const credits of [1e-10, 1e-300, Number.MIN_VALUE]) t.equal(microcredits(credits), 1, String(credits))
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
    priceOf(model, duration === undefined ? {} : { duration }).microcredits / 1_000_000
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

t.test('caps hold before anything is spent, whatever the case of the model', async t => {
  const hold = caps({
    'sora-2*': { 'input.duration': { min: 4, max: 12 }, 'input.size.kind': { oneOf: ['720p', 1080] } }
  })
  t.doesNotThrow(() => hold('sora-2', { duration: 4, size: { kind: '720p' } }))
  t.doesNotThrow(() => hold('sora-2', {}), 'what is absent is the model\'s own default')
  t.doesNotThrow(() => hold('sora-2', { size: 'big' }))
  t.doesNotThrow(() => hold('veo-3-1', { duration: 99 }))
  for (const input of [
    { duration: 3 },
    { duration: 13 },
    { duration: '8' },
    { duration: Infinity },
    { size: { kind: '1080' } }
  ]) {
    t.throws(() => hold('Sora-2', input), { code: 'GW_BAD_REQUEST', message: /input\./ }, JSON.stringify(input))
  }
})
