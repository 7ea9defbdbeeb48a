import t from 'tap'
import { fold, insertMembers, maxDepth, maxNames, type Member, quoted, readJson } from '../../src/domain/json.ts'
import { random } from '../helpers/random.ts'

const read = (text: string) => readJson(Buffer.from(text))
const badRequest = { code: 'GW_BAD_REQUEST' }

t.test('each top-level value keeps its own text, digit for digit', async t => {
  const { value, texts } = read(
    ' {"a" : 12345678901234567890 , "b":{"c":[1,{"d":"}"}]},"e":"\\"x\\\\", "f":[], "g":null}\n'
  )
  t.same(
    [...texts],
    [
      ['a', '12345678901234567890'],
      ['b', '{"c":[1,{"d":"}"}]}'],
      ['e', '"\\"x\\\\"'],
      ['f', '[]'],
      ['g', 'null']
    ]
  )
  t.same(Object.keys(value), ['a', 'b', 'e', 'f', 'g'])
})

t.test('an empty object has no names', async t => t.same([...read('{}').texts], []))

t.test('what is no JSON object in UTF-8 is refused', async t => {
  const broken = [
    '',
    '[]',
    '1',
    '"a"',
    'null',
    '{',
    '{"a"}',
    '{"a":1',
    '{"a":1}{"b":2}',
    '{"a":1}}',
    '{"a',
    '{"a\\',
    ',',
    '{"a":1,}',
    "{'a':1}",
    '﻿{}',
    '{"\\x":1}',
    'NaN',
    ']',
    '{"a":NaN}'
  ]
  for (const text of broken) t.throws(() => read(text), badRequest, JSON.stringify(text))
  t.throws(() => readJson(Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d])), badRequest, 'a lone byte')
  t.throws(() => readJson(Buffer.from('{"a":1}', 'utf16le')), badRequest, 'UTF-16')
})

t.test('a byte order mark is named, for no editor shows it', async t => {
  t.throws(() => read('\uFEFF{"a":1}'), { ...badRequest, message: /byte order mark/ })
  for (const mark of [[0xff, 0xfe], [0xfe, 0xff]]) {
    t.throws(() => readJson(Buffer.from([...mark, 0x7b, 0, 0x7d, 0])), { ...badRequest, message: /UTF-16/ })
  }
  for (const bytes of [[0xff], [0xfe, 0], [0x7b, 0xff, 0xfe], [0xff, 0xff]]) {
    t.throws(() => readJson(Buffer.from(bytes)), { message: /not valid UTF-8/ })
  }
})

t.test('a name given twice, or twice but for case, is refused at every depth', async t => {
  const twins = [
    '{"model":"a","model":"b"}', '{"model":"a","Model":"b"}', '{"a":{"x":1,"X":2}}', '{"a":[{"x":1,"x":2}]}',
    '{"a":1,"\\u0061":2}', '{"task_id":"a","taſk_id":"b"}', '{"kind":1,"\u212Aind":2}', '{"a":{},"b":{},"A":{}}'
  ]
  for (const text of twins) t.throws(() => read(text), badRequest, text)
  t.doesNotThrow(() => read('{"a":{"x":1},"b":{"x":2},"c":[{"x":3},{"x":4}]}'), 'the same name in two objects is fine')
})

t.test('names that change what an object is are refused, and named', async t => {
  t.throws(() => read('{"a":{"__proto__":{}}}'), { message: /"__proto__"/ })
  t.throws(() => read('{"\\u005f_proto__":{}}'), badRequest)
  t.throws(() => read('{"constructor":{"prototype":{}}}'), badRequest)
  t.throws(() => read('{"":1}'), badRequest, 'an empty name')
  t.doesNotThrow(() => read('{"prototype":"a car","constructor":"a person"}'))
})

t.test('depth and names have bounds', async t => {
  const nested = (depth: number) => `{"a":${'['.repeat(depth - 1)}${']'.repeat(depth - 1)}}`
  t.doesNotThrow(() => read(nested(maxDepth)))
  t.throws(() => read(nested(maxDepth + 1)), badRequest)
  t.throws(() => read(nested(100_000)), badRequest)
  const names = (count: number) => `{${Array.from({ length: count }, (_, index) => `"${index}":1`).join()}}`
  t.doesNotThrow(() => read(names(maxNames)))
  t.throws(() => read(names(maxNames + 1)), badRequest)
})

t.test('a million names and ten thousand levels are refused in less than a second', async t => {
  const names = `{${Array.from({ length: 1e6 }, (_, index) => `"k${index}":1`).join()}}`
  const start = process.threadCpuUsage() // and not the clock: a busy machine has others to serve
  t.throws(() => read(names), badRequest)
  t.throws(() => read('{"a":'.repeat(10_000)), badRequest)
  t.ok(process.threadCpuUsage(start).user < 1_000_000)
})

t.test('folding knows Unicode\'s look-alikes', async t => {
  t.equal(fold('TaſkId'), fold('TASKID'))
  t.equal(fold('ﬁeld'), fold('FIELD'))
})

t.test('a quoted word is cut and can not break its line', async t => {
  t.equal(quoted('a\nb'), '"a\\nb"')
  t.ok(quoted('x'.repeat(1000)).length < 80)
})

t.test('a member is put first into its object, and all else stays as it is', async t => {
  const rows: ReadonlyArray<readonly [text: string, names: readonly string[], result: string]> = [
    ['{}', ['a'], '{"a":1}'],
    [' \n{ \t } ', ['a'], ' \n{"a":1 \t } '],
    ['{"b":1.0}', ['a'], '{"a":1,"b":1.0}'],
    ['{ "b" : 12345678901234567890 }', ['a'], '{"a":1, "b" : 12345678901234567890 }'],
    ['{"x":{"o":{}},"o":{"b":2}}', ['o', 'a'], '{"x":{"o":{}},"o":{"a":1,"b":2}}'],
    ['{"s":"\\"o\\":{","l":[{"o":{}},["o",{}]],"o" : {} }', ['o', 'a'], '{"s":"\\"o\\":{","l":[{"o":{}},["o",{}]],"o" : {"a":1} }'],
    ['{"s":"o","\\u006f":{"p":{"q":[]}}}', ['o', 'p', 'a'], '{"s":"o","\\u006f":{"p":{"a":1,"q":[]}}}'],
    ['{"é":"😀","ü":{"ß":"\\ud83d"}}', ['ü', 'a'], '{"é":"😀","ü":{"a":1,"ß":"\\ud83d"}}']
  ]
  for (const [text, names, result] of rows) t.equal(insertMembers(text, [{ names, value: 1 }]), result)
  const members: readonly Member[] = [
    { names: ['a'], value: 'x"y' }, { names: ['o', 'b'], value: false }, { names: ['c'], value: 0.5 }
  ]
  t.equal(
    insertMembers('{"input":{"o":{}}}', members, ['input']), '{"input":{"c":0.5,"a":"x\\"y","o":{"b":false}}}', 'several'
  )
})

const dice = random()

t.test(`whatever the text, it means the same and the member beside (TEST_SEED=${dice.seed})`, async t => {
  const { int, pick } = dice
  const space = () => pick(['', '', ' ', '\n', '\t \r'])
  const value = (depth: number): string => {
    const kind = depth > 3 ? int(4) : int(6)
    if (kind === 4) return `[${space()}${Array.from({ length: int(3) }, () => value(depth + 1)).join(`${space()},${space()}`)}]`
    return kind === 5 ? object(depth + 1) : pick(['1e3', '"a,b"', '"}{\\\\"', '"\\"o\\":{"', 'null', '-0.0', '"ü"'])
  }
  const object = (depth: number): string => {
    const names = ['o', 'p', '\\u0071', 'r\\"'].filter(() => int(2) === 0)
    const members = names.map(name => `${space()}"${name}"${space()}:${space()}${value(depth)}${space()}`)
    return `{${members.join(',') || space()}}`
  }
  const wrong: unknown[] = []
  for (let round = 0; round < 5000; round++) {
    const text = `${space()}${object(0)}${space()}`
    const around: string[] = []
    const parsed = JSON.parse(text)
    let parent = parsed
    while (int(4) > 0) {
      const inner = Object.keys(parent).filter(name => Object.getPrototypeOf(parent[name] ?? 0) === Object.prototype)
      if (inner.length === 0) break
      const name = pick(inner)
      around.push(name)
      parent = parent[name]
    }
    const result = insertMembers(text, [{ names: [...around, 'new'], value: 'x' }])
    parent.new = 'x'
    try {
      const isSame = JSON.stringify(sorted(JSON.parse(result))) === JSON.stringify(sorted(parsed))
      if (!isSame) wrong.push({ text, around, result })
      if (result.replace(/"new":"x",?/, '') !== text) wrong.push({ text, around, result })
    } catch (error) {
      wrong.push({ text, around, result, error })
    }
  }
  t.strictSame(wrong, [])
})

function sorted (value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value
  if (Array.isArray(value)) return value.map(sorted)
  return Object.entries(value).map(([name, inner]) => [name, sorted(inner)]).sort()
}
