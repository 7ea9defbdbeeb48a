import t from 'tap'
import { type CapRule, caps, maxPatternText, textPattern } from '../../src/domain/caps.ts'
import { isGatewayError } from '../../src/errors.ts'
import { pricing } from '../helpers/prices.ts'

t.test('caps hold before anything is spent, whatever the case of the model', async t => {
  const enforce = caps({
    'sora-2*': { 'input.duration': { min: 4, max: 12 }, 'input.size.kind': { oneOf: ['720p', 1080] } }
  })
  const hold = (model: string, input: Record<string, unknown>) => enforce(model, { input })
  t.doesNotThrow(() => hold('sora-2', { duration: 4, size: { kind: '720p' } }))
  t.doesNotThrow(() => hold('sora-2', {}), 'what is absent is the model\'s own default')
  for (const size of ['big', ['720p'], null, 7]) t.doesNotThrow(() => hold('sora-2', { size }))
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

type Input = Record<string, unknown>

/** What one cap says to values of `input.x`: the end of its sentence, or `null`. */
function said (rule: CapRule, values: readonly unknown[]): ReadonlyArray<string | null> {
  const hold = caps({ '*': { 'input.x': rule } })
  return values.map(x => {
    try {
      hold('m', { input: x === undefined ? {} : { x } })
      return null
    } catch (error) {
      if (isGatewayError(error) && error.code === 'GW_BAD_REQUEST') return error.message.replace(/^input\.x /, '')
      throw error
    }
  })
}

t.test('each bound says what a value may be, and a value of another kind is outside of it', async t => {
  t.strictSame(said({ required: true }, [undefined, null, '', 0, false]), ['Set input.x.', 'must not be null.', null, null, null])
  t.strictSame(said({ required: false }, [undefined, null]), [null, null])
  t.strictSame(said({ default: 1 }, [undefined, null, 2]), [null, 'must not be null.', null])
  t.strictSame(
    said({ oneOf: ['1k', '2K', 4, true] }, ['1K', '1k', '2k', 4, true, '4', 'TRUE', '1\u212A', null, ['1k']]),
    [null, null, null, null, null, ...Array(5).fill('must be one of 1k, 2K, 4, true.')]
  )
  t.strictSame(
    said({ maxItems: 2 }, [undefined, [], [1, 2], [1, 2, 3], 'ab', null, { length: 0 }]),
    [null, null, null, 'must have at most 2 items.', ...Array(3).fill('must be a list.')]
  )
  t.strictSame(said({ min: 1, max: 2 }, [1, 2, 0, 3, '1', null, [1]]), [
    null, null, 'must be at least 1.', 'must be at most 2.', ...Array(3).fill('must be a plain number.')
  ])
  const form = 'is not of the form that is asked for here.'
  t.strictSame(said({ pattern: '^a+$' }, [undefined, 'aaa', 'ab', '']), [null, null, form, form])
  t.strictSame(
    said({ not: '--(?i:rs|dur)\\b' }, ['a lighthouse -- at dusk', 'x --rs 1080p', 'x--DUR=10', '--rsx', '- -rs']),
    [null, 'has something in it that is not accepted here.', 'has something in it that is not accepted here.', null, null]
  )
  t.strictSame(said({ not: 'x' }, [null, 1, ['x'], { x: 1 }, true]), Array(5).fill('must be a text.'))
  t.strictSame(
    said({ not: 'x' }, ['a'.repeat(20_000), 'a'.repeat(20_001)]), [null, 'must have at most 20000 characters.']
  )
})

t.test('a default stands in for a field that is absent, and nowhere else', async t => {
  const hold = caps({
    'a*': { 'input.size': { default: '1k', oneOf: ['1k', '2k'] }, 'input.options.fps': { default: 24 } },
    '*': { 'input.size': { default: 'other' }, 'input.sound': { default: false } }
  })
  const input: Input = { options: {} }
  t.strictSame(hold('A-1', { input }), [
    { names: ['size'], value: '1k' },
    { names: ['options', 'fps'], value: 24 },
    { names: ['sound'], value: false }
  ], 'the first default for a field counts')
  t.strictSame(input, { options: { fps: 24 }, size: '1k', sound: false }, 'prices see them')
  t.strictSame(hold('a', { input }), [], 'what is there is not written again')
  for (const options of [undefined, null, 7, 'x', [], [{}]]) {
    t.throws(
      () => hold('a', { input: options === undefined ? {} : { options } }),
      { code: 'GW_BAD_REQUEST', message: 'Set input.options, an object.' },
      JSON.stringify(options)
    )
  }
  const deep = caps({ a: { 'input.a.b.c': { default: 1 } } })
  t.throws(() => deep('a', { input: {} }), { message: 'Set input.a.b, an object.' })
  t.throws(() => hold('a', { input: { Size: '4k', options: {} } }), { message: /^Write "size"/ }, 'nor beside its look-alike')
  t.throws(() => hold('a', { input: { size: '4k', options: {} } }), { message: 'input.size must be one of 1k, 2k.' })
})

t.test('another spelling of a field that a rule names is refused, beside the field as well', async t => {
  const hold = caps({ '*': { 'input.num_images': { max: 4 }, 'input.camera.isFixed': { oneOf: [true] } } })
  const priceOf = pricing({ '*': { credits: 1, per: 'input.num_images', default: 1 } }, {})
  for (const other of ['numImages', 'NumImages', 'num-images', 'num_images_', 'NUM IMAGES', 'ｎum_images']) {
    for (const input of [{ [other]: 12 }, { num_images: 1, [other]: 12 }]) {
      const message = `Write "num_images" of input.num_images and not ${JSON.stringify(other)}.`
      t.throws(() => hold('a', { input }), { code: 'GW_BAD_REQUEST', message })
      t.throws(() => priceOf('a', { input }), { code: 'GW_BAD_REQUEST', message })
    }
  }
  const many = Object.fromEntries(Array.from({ length: 60 }, (_, index) => [`n${index}`, index]))
  t.throws(() => hold('a', { input: { num_images: 1, ...many, numImages: 12 } }), { message: /not "numImages"/ })
  t.doesNotThrow(() => hold('a', { input: { num_images: 1, ...many } }))
  t.doesNotThrow(() => hold('a', { input: many }))
  t.throws(() => caps({ a: { 'input.größe': { max: 1 } } })('a', { input: { GRÖSSE: 2, gro: 1 } }), { message: /not "GRÖSSE"/ })
  t.throws(() => hold('a', { input: { camera: { isFixed: true, is_fixed: false } } }), { message: /not "is_fixed"/ })
  t.doesNotThrow(() => hold('a', { input: { num_images: 1, numImage: 12, image_num: 12, Camera2: {}, camera: ['isfixed'] } }))
})

t.test('a cap can hold the provider', async t => {
  const hold = caps({ '*': { provider: { oneOf: ['official'], required: true } } })
  t.doesNotThrow(() => hold('a', { input: {}, provider: 'official' }))
  t.throws(() => hold('a', { input: {}, provider: 'auto' }), { message: 'provider must be one of official.' })
  t.throws(() => hold('a', { input: {} }), { message: 'Set provider.' })
})

t.test('a pattern matches anywhere in a text, in the syntax of RE2', async t => {
  t.ok(textPattern('b+')('abbc'))
  t.notOk(textPattern('^b+')('abbc'))
  t.ok(textPattern('(?i)LIGHT\\w*')('a lighthouse'))
  t.ok(textPattern('^\\p{Greek}+$')('αβγ'))
})

t.test('what is none, what is no part of RE2 and what is too large is refused', async t => {
  for (const [source, message] of [
    ['[', /missing closing \]/],
    ['(a)\\1', /invalid escape sequence/],
    ['a(?=b)', /invalid or unsupported/],
    ['(?:a{50}){50}', /./],
    ['[ab]{1000}c{1000}', /too large/]
  ] as const) t.throws(() => textPattern(source), { name: 'RangeError', message }, source)
})

t.test('no text makes a pattern slow', async t => {
  const texts = ['a', '-', '--', 'ab', ' a', '--rs', 'é', '😀'].map(part => part.repeat(maxPatternText).slice(0, maxPatternText))
  for (const source of ['(a+)+$', '(a*)*b', '(a|a)*c', '(?:a?){30}a{30}$', '(.*)(.*)(.*)[^a]x', '--(?i:rs|dur)\\b', 'a.{1,300}b$']) {
    const matches = textPattern(source)
    for (const text of texts) {
      const { user: before } = process.threadCpuUsage()
      matches(`${text.slice(1)}!`)
      t.ok(process.threadCpuUsage().user - before < 2_000_000, `${source}: ${text.slice(0, 4)}`)
    }
  }
})
