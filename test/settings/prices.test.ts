import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { parse } from 'yaml'
import { pricing } from '../helpers/prices.ts'
import { configPath, load, problemsOf } from './fixture.ts'

const file = (prices: string) => `plans: { default: {} }\nprices:\n${prices}`

t.test('a list of prices that can not mean what it says is refused at start, with its line', t => {
  const rows: ReadonlyArray<readonly [prices: string, setting: string, line: number, problem: RegExp]> = [
    ['  a: []', 'prices.a', 3, /^is an empty list$/],
    ['  a:\n    - { when: { input.n: 1 }, credits: 1 }', 'prices.a[0]', 4, /^is the last rule, and has a when$/],
    ['  a: { when: { input.n: 1 }, credits: 1 }', 'prices.a.when', 3, /^there is no such key$/],
    ['  a: [1]', 'prices.a[0]', 3, /^is 1$/],
    ['  a: [{ credits: -1 }]', 'prices.a[0].credits', 3, /^is -1$/],
    ['  a: [{ credits: 0.1234567 }]', 'prices.a[0].credits', 3, /^is 0.1234567$/],
    ['  a: [{ credits: 1, inputPerMillion: 1 }]', 'prices.a[0].inputPerMillion', 3, /^there is no such key$/],
    ['  a: [{ credits: 1, min: -1 }]', 'prices.a[0].min', 3, /^is -1$/],
    ['  a: [{ credits: 1, onFailed: keep }]', 'prices.a[0].onFailed', 3, /^is "keep"$/],
    ['  a: [{ when: {}, credits: 1 }, { credits: 1 }]', 'prices.a[0].when', 3, /^is an empty mapping$/],
    ...['duration', 'input', 'input.', 'input..n', 'model', 'provider.x', 'input.n[0]', 'request_type', 'Provider'].map(
      name =>
        [
          `  a:\n    - when: { "${name}": 1 }\n      credits: 1\n    - { credits: 1 }`,
          `prices.a[0].when${/^\w+$/.test(name) ? `.${name}` : `["${name}"]`}`,
          4,
          /^can not be a name here$/
        ] as const
    ),
    ['  a: [{ when: { input.n: [] }, credits: 1 }, { credits: 1 }]', 'prices.a[0].when["input.n"]', 3, /^is an empty list$/],
    ['  a: [{ when: { input.n: }, credits: 1 }, { credits: 1 }]', 'prices.a[0].when["input.n"]', 3, /^is empty$/],
    ['  a: [{ when: { input.n: [[1]] }, credits: 1 }, { credits: 1 }]', 'prices.a[0].when["input.n"][0]', 3, /^is a list$/],
    ['  a: [{ credits: 1, per: duration }]', 'prices.a[0].per', 3, /^is duration$/],
    ['  a: { credits: 1, per: [] }', 'prices.a.per', 3, /^is an empty list$/],
    ['  a: { credits: 1, per: [duration] }', 'prices.a.per[0]', 3, /^is "duration"$/],
    ['  a: { credits: 1, per: [input.n, input.n] }', 'prices.a.per', 3, /^names input.n twice$/],
    ['  a: { credits: 1, per: [input.n, input.m], default: 1 }', 'prices.a.default', 3, /^is one number for several fields$/],
    ['  a: { credits: 1, per: input.n, default: { input.m: 1 } }', 'prices.a.default["input.m"]', 3, /^is no field of per$/],
    ['  a: { credits: 1, per: input.n, default: { input.n: 0 } }', 'prices.a.default["input.n"]', 3, /^is 0$/],
    ['  a: { credits: 1, per: input.n, default: {} }', 'prices.a.default', 3, /^is an empty mapping$/],
    ['  a: { credits: 1, per: input.n, default: { n: 1 } }', 'prices.a.default.n', 3, /^can not be a name here$/],
    ['  a: [{ credits: 1, default: 8 }]', 'prices.a[0].default', 3, /^stands without per$/],
    [
      '  a:\n    - { credits: 1 }\n    - { credits: 2 }',
      'prices.a[1]', 5, /^never counts, as prices.a\[0\] comes first$/
    ],
    [
      '  a:\n    - { when: { input.n: [1, 2] }, credits: 1 }\n    - { when: { input.n: 2, input.m: 1 }, credits: 1 }\n    - { credits: 2 }',
      'prices.a[1]', 5, /^never counts, as prices.a\[0\] comes first$/
    ],
    [
      '  a:\n    - { when: { input.n: 1k }, credits: 1 }\n    - { when: { input.n: 1K }, credits: 1 }\n    - { credits: 2 }',
      'prices.a[1]', 5, /^never counts, as prices.a\[0\] comes first$/
    ],
    [
      '  a:\n    - { when: { input.n: [1, 2] }, credits: 1 }\n    - { when: { input.n: [2, 3] }, credits: 1 }\n    - { credits: 2 }',
      'prices.a[1].when["input.n"]', 5, /^"2" never counts, as prices.a\[0\] comes first$/
    ],
    ['  "a*": 1\n  a-2: [{ credits: 2 }]', 'prices.a-2', 4, /^never counts, as prices\["a\*"\] comes first$/],
    ['  "*": 1\n  "a*": { credits: 2, min: 1 }', 'prices["a*"]', 4, /^never counts, as prices\["\*"\] comes first$/],
    ['  A: 1\n  a: { credits: 2, per: [input.n] }', 'prices.a', 4, /^never counts, as prices.A comes first$/],
    ['  "*": 1\n  a: { credits: 2, per: input.n, default: { input.n: 1 } }', 'prices.a', 4, /^never counts, as/]
  ]
  for (const [prices, setting, line, problem] of rows) {
    t.match(problemsOf(t, { yaml: file(prices) }), [{ setting, source: `${configPath(t)}:${line}`, problem }], prices)
    t.equal(problemsOf(t, { yaml: file(prices) }).length, 1, 'and nothing else is wrong')
  }
  t.end()
})

t.test('what may be meant as it stands is a warning at start, with its line', t => {
  const rows: ReadonlyArray<readonly [prices: string, setting: string, line: number, warning: RegExp]> = [
    ['  a:\n    - { when: { input.n: 1 }, credits: 2 }\n    - { credits: 1 }', 'prices.a[1]', 5, /cheaper than prices.a\[0\],/],
    ['  a: [{ when: { input.n: 1 }, credits: 2, min: 4 }, { credits: 3 }]', 'prices.a[1]', 3, /cheaper than prices.a\[0\],/],
    ['  a: [{ when: { input.n: 1 }, credits: 2, per: input.m }, { credits: 9 }]', 'prices.a[1]', 3, /cheaper than/],
    [
      '  a: [{ when: { input.n: 1 }, credits: 2, per: input.m, default: 9 }, { credits: 3, per: input.m, default: 5 }]',
      'prices.a[1]', 3, /cheaper than/
    ],
    ['  "a*": 1\n  a-2: 2', 'prices.a-2', 4, /never counts, as prices\["a\*"\] comes first\.$/],
    ['  "*": 1\n  a: { credits: 2, per: input.n, default: 1 }', 'prices.a', 4, /never counts/],
    ['  a: { credits: 2, per: duration, default: 1 }', 'prices.a.per', 3, /is duration, which no submit has: write input\.d/],
    ['  {}', 'prices', 2, /is empty: every submit costs one credit/]
  ]
  for (const [prices, setting, line, warning] of rows) {
    const { warnings } = load(t, { yaml: file(prices) })
    t.match(warnings, [warning], prices)
    t.strictSame(
      warnings.map(text => text.slice(0, text.indexOf(') ') + 1)), [`${setting} (${configPath(t)}:${line})`],
      'and nothing else is doubtful'
    )
  }
  t.match(load(t, { yaml: 'plans: { default: {} }' }).warnings, [/^prices \(\S+gateway.yaml\) is empty: every submit costs one credit/], 'nor is a file without')
  t.end()
})

t.test('prices that go together are taken without a word', t => {
  const rows = [
    '  a: 1\n  "a*": 2\n  "*": 3',
    '  a: [{ credits: 1 }]',
    '  a: [{ when: { input.n: [1k, 1K], provider: official }, credits: 1 }, { credits: 1 }]',
    '  a: [{ when: { input.n: 0.12345678 }, credits: 1 }, { credits: 1 }]',
    '  a: [{ when: { input.n: 1, input.m: 2 }, credits: 1 }, { when: { input.m: 2 }, credits: 1 }, { credits: 1 }]',
    '  a: [{ when: { input.n: true }, credits: 1 }, { when: { input.n: "true" }, credits: 1 }, { credits: 1 }]',
    '  a: [{ when: { input.n: 1 }, credits: 1, per: input.m }, { credits: 1, per: [input.m, input.k], min: 2 }]',
    '  a: [{ when: { input.n: 1 }, credits: 1, per: input.m, default: 2 }, { credits: 1, per: input.m }]',
    '  "*": { inputPerMillion: 1, outputPerMillion: 1 }\n  a: [{ credits: 1 }]',
    '  "*": { inputPerMillion: 1, outputPerMillion: 1 }\n  "*:online": { inputPerMillion: 2, outputPerMillion: 2, contextTokens: 9 }',
    '  "*": 1\n  "claude*": { inputPerMillion: 1, outputPerMillion: 1 }'
  ]
  for (const prices of rows) t.strictSame(load(t, { yaml: file(prices) }).warnings, [], prices)
  const { file: { prices }, origins } = load(t, {
    yaml: file('  a: [{ when: { input.n: [1, 2] }, credits: 1 }, { credits: 1, per: input.m, default: { input.m: 1 } }]')
  })
  t.throws(() => Object.assign(prices['a']!, { 0: 1 }), TypeError, 'frozen')
  t.equal(Object.isFrozen(Object.values(prices['a']!)[0].when['input.n']), true, 'all the way down')
  t.equal(origins.get('prices.a[0].when["input.n"]'), configPath(t))
  t.end()
})

const ofOldVersion = (name: string) => readFileSync(join(import.meta.dirname, name), 'utf8')

t.test('a file of version 0.3.0 starts, and its prices are what they were', t => {
  const shipped = load(t, { yaml: ofOldVersion('gateway-0.3.0.yaml') })
  t.match(shipped.warnings, [/^prices .*: every submit costs one credit/], 'all it had to say is a warning')
  t.equal(pricing(shipped.file.prices, {})('sora-2-pro', { input: { duration: 12 } }).microcredits, 1_000_000)

  const { warnings, file } = load(t, { yaml: ofOldVersion('gateway.example-0.3.0.yaml') })
  t.strictSame(warnings, [])
  t.same(file.prices, parse(ofOldVersion('gateway.example-0.3.0.yaml')).prices)
  const priceOf = pricing(file.prices, file.caps)
  const credits = (model: string, input: object) => priceOf(model, { input: { ...input } }).microcredits / 1_000_000
  t.strictSame([
    credits('sora-2', { duration: 4 }), credits('Sora-2-pro', {}), credits('sora-2', { duration: 0.5 }),
    credits('sora-2', { duration: 1.5, num_images: 4 }), credits('claude-x', {}), credits('nano-banana', { num_images: 4 })
  ], [8, 16, 2, 3, 1, 1])
  t.end()
})
