import { Redis } from 'ioredis'
import { globSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { keyScripts, packed, preludeOf, readScripts, subjectScripts } from '../../src/adapters/redis/scripts.ts'
import { redisServer } from '../helpers/redis-server.ts'

const redis = join(import.meta.dirname, '../../src/adapters/redis')
const lua = join(redis, 'lua')
const scripts = [...subjectScripts, ...keyScripts]
const terms = {
  keepMs: 1,
  retentionMs: 2,
  supersededMs: 3,
  usageMs: 34_560_000_000,
  endsKeptMs: 5,
  idempotencyMs: 6,
  repeatMs: 7,
  deadMs: 8,
  slackMs: 9,
  maxRepeats: 10,
  refundsPerPeriod: 11
}

const textOf = (file: string) => readFileSync(file, 'utf8')
const included = (file: string) => Array.from(textOf(file).matchAll(/^-- include +(\S+)/gm), ([, name]) => name!)

t.test('every file of Lua is used', async t => {
  const files = globSync('**/*.lua', { cwd: lua })
  const includes = new Set(files.flatMap(file => included(join(lua, file))))
  const callers = globSync('*.ts', { cwd: redis, exclude: name => name === 'scripts.ts' })
    .map(file => textOf(join(redis, file))).join('')
  const unused = files.filter(file => {
    const [folder, name] = file.split('/') as [string, string]
    return folder === 'include' ? !includes.has(name) : !callers.includes(`'${name.replace('.lua', '')}'`)
  })
  t.strictSame(unused, [])
  t.equal(files.length, scripts.length + includes.size, 'and none stands where nobody looks')
})

t.test('every script is one that Redis understands, and hides no command of the client', async t => {
  const { admin } = await redisServer(t)
  for (const [name, text] of scripts) await t.resolves(admin.script('LOAD', preludeOf(terms) + text), name)
  t.strictSame(scripts.map(([name]) => name).filter(name => name in Redis.prototype), [])
  await t.rejects(admin.script('LOAD', 'local function'), /Error compiling script/, 'it would have said so')
})

t.test('lines of Lua are at most 120 characters long, and a function ends within 70 lines', async t => {
  for (const file of globSync('**/*.lua', { cwd: lua })) {
    const lines = textOf(join(lua, file)).split('\n')
    t.ok(lines.every(line => line.length <= 120), file)
    for (const [index, line] of lines.entries()) {
      if (!/^local function/.test(line) || / end$/.test(line)) continue
      const length = lines.slice(index).indexOf('end') + 1
      t.ok(length > 0 && length <= 70, `${file}:${index + 1}`)
    }
  }
})

/** The script `main` of these files; what is included stands in `include`. */
function mainOf (t: Test, main: string, include: Record<string, string>): string {
  const folder = t.testdir({ scripts: { 'main.lua': main, 'not-a-script.txt': '' }, include })
  const found = readScripts(join(folder, 'scripts'), join(folder, 'include'))
  t.strictSame([...found.keys()], ['main'])
  return found.get('main')!
}

t.test('what is included comes before what needs it, and once', async t => {
  const text = mainOf(t, '-- include a.lua\n-- include b.lua\nmain()\n', {
    'a.lua': '-- include common.lua\na()\n',
    'b.lua': '-- include common.lua\nb()\n',
    'common.lua': 'common()\n'
  })
  t.strictSame(text.match(/\w+\(\)/g), ['common()', 'a()', 'b()', 'main()'])
})

t.test('what can not be included is a sentence that names the line', async t => {
  t.throws(() => mainOf(t, 'x()\n-- include nowhere.lua\n', {}),
    { message: /^scripts\/main\.lua:2: there is no nowhere\.lua to include in .*include$/ })
  const circle = { 'a.lua': '-- include b.lua\n', 'b.lua': '\n-- include a.lua\n' }
  t.throws(() => mainOf(t, '-- include a.lua\n', circle), { message: 'include/b.lua:2: a.lua includes itself' })
  t.throws(() => mainOf(t, '-- include a.lua\n', { 'a.lua': '-- include a.lua\n' }),
    { message: 'include/a.lua:1: a.lua includes itself' })
})

t.test('a script is told every text and every number as it is, and what is absent is nil', async t => {
  const { admin } = await redisServer(t)
  const tell = (value: object, lua: string): Promise<unknown> =>
    admin.eval(`local it = cjson.decode(ARGV[1]) ${lua}`, 0, packed(value))
  for (const text of ['', '"\\/', '\0\x01\n\r\t\x7f', 'ä€😀', '\u2028', 'C:\\ud', '😀\\ud83d']) {
    t.equal(await tell({ text }, 'return it.text'), text)
  }
  t.equal(await tell({ deep: { list: ['\ud800x'] } }, 'return it.deep.list[1]'), '\ufffdx', 'as in UTF-8')
  for (const number of [0, 1, 1e8, 1e15, 2 ** 53 - 1]) {
    t.equal(await tell({ number }, "return redis.call('ECHO', it.number)"), String(number))
  }
  t.equal(await tell({ number: undefined }, 'return tostring(it.number)'), 'nil')
  t.equal(await admin.eval(`${preludeOf(terms)} return redis.call('ECHO', terms.usageMs)`, 0), '34560000000')
})
