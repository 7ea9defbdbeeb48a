import t from 'tap'
import { fold, maxDepth, maxNames, quoted, readJson } from '../../src/domain/json.ts'

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
