import t from 'tap'
import {
  categoryOf, globs, intervalBy, microcredits, type Model, periodAt, plans
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

t.test('a fraction of a millionth is rounded up, and a sum of floats is not', async t => {
  t.equal(microcredits(0.0000001), 1)
  t.equal(microcredits(0.1 + 0.2), 300_000)
  t.equal(microcredits(0), 0)
  for (const credits of [1e-10, 1e-300, Number.MIN_VALUE]) t.equal(microcredits(credits), 1, String(credits))
})
