import t from 'tap'
import { configPath, load, problemsOf } from './fixture.ts'

const file = (caps: string) => `plans: { default: {} }\nprices: { "*": 1 }\ncaps:\n${caps}`

t.test('a cap that nothing can meet is refused at start, with its line', t => {
  const rows: ReadonlyArray<readonly [cap: string, key: string, problem: RegExp, expected?: RegExp]> = [
    ['{ required: yes }', '.required', /^is "yes"$/],
    ['{ default: [1] }', '.default', /^is a list$/],
    ['{ maxItems: -1 }', '.maxItems', /^is -1$/],
    ['{ maxItems: 1.5 }', '.maxItems', /^is 1.5$/],
    ['{ pattern: 7 }', '.pattern', /^is 7$/],
    ['{ not: "" }', '.not', /^is empty$/],
    [`{ not: "${'a'.repeat(1001)}" }`, '.not', /^is "aaa/],
    ['{ min: 3, max: 2 }', '', /^min 3 is greater than max 2$/],
    ['{ min: 3, pattern: a }', '', /^asks for a number and for a text$/],
    ['{ max: 3, maxItems: 2, not: a }', '', /^asks for a number and for a list and for a text$/],
    ['{ pattern: "(a" }', '.pattern', /^is no regular expression of RE2 \(missing closing \): /],
    ['{ not: "(?<=a)b" }', '.not', /^is no regular expression of RE2 \(/],
    ['{ not: "(a)\\\\1" }', '.not', /^is no regular expression of RE2 \(invalid escape sequence: /],
    ['{ not: "[ab]{1000}c{1000}" }', '.not', /^is no regular expression of RE2 \(it is too large\)$/],
    ['{ default: 13, max: 12 }', '.default', /^is "13", outside its own cap$/, /^what must be at most 12$/],
    ['{ default: "3", min: 2 }', '.default', /^is "3", outside its own cap$/, /^what must be a plain number$/],
    ['{ default: 8k, oneOf: [1k, 2k] }', '.default', /^is "8k", outside its own cap$/, /^what must be one of 1k, 2k$/],
    ['{ default: 1, maxItems: 2 }', '.default', /^is "1", outside its own cap$/, /^what must be a list$/],
    ['{ default: x--rs, not: --rs }', '.default', /^is "x--rs", outside its own cap$/],
    ['{ default: 1, required: true }', '.default', /^stands beside required$/]
  ]
  for (const [cap, key, problem, expected = /./] of rows) {
    const problems = problemsOf(t, { yaml: file(`  a:\n    input.n: ${cap}\n`) })
    t.match(problems, [{ setting: `caps.a["input.n"]${key}`, source: `${configPath(t)}:5`, problem, expected }], cap)
    t.equal(problems.length, 1, 'and nothing else is wrong')
  }
  t.match(problemsOf(t, { yaml: file('  a: { provider: { default: auto } }') }), [
    { setting: 'caps.a.provider.default', problem: 'is for provider', expected: 'a field of the input' }
  ])
  t.end()
})

t.test('caps that go together are taken without a word, and one for no field of a submit with one', t => {
  for (const cap of [
    '{ required: true, oneOf: [1k, 2k] }', '{ default: 2K, oneOf: [1k, 2k] }', '{ default: 12, min: 1, max: 12 }',
    '{ pattern: "^a", not: "b$", default: a }', '{ maxItems: 0, required: false }', '{ default: false }'
  ]) t.strictSame(load(t, { yaml: file(`  a: { input.n: ${cap}, provider: { required: true } }`) }).warnings, [], cap)
  t.strictSame(load(t, { yaml: file('  a:\n    duration: { max: 12 }') }).warnings, [
    `caps.a.duration (${configPath(t)}:5) is duration, which no cap sees: write input.duration.`
  ])
  t.end()
})
