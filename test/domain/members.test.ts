import t from 'tap'
import { insertMembers, type Member } from '../../src/domain/json.ts'
import { random } from '../helpers/random.ts'

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
