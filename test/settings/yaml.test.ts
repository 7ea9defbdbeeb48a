import { readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import t from 'tap'
import { loadSettings } from '../../src/settings.ts'
import { root } from '../helpers/program.ts'
import { configPath, install, problemsOf } from './fixture.ts'

t.test('the line is that of the key, also in lists, behind aliases and when the key is missing', t => {
  const yaml = `plans:
  default: &plan
    credits: 1
  pro: *plan
limits: &limits
  bodyBytes: 0
issuers:
  - issuer: a
    jwksUrl: https://a.example
    audience: b
  - issuer: b
    jwksUrl: https://a.example
upstream: *limits
`
  const lines = problemsOf(t, { yaml }).map(({ setting, source }) => `${setting}:${source.split(':').at(-1)}`)
  t.strictSame(lines, ['limits.bodyBytes:6', 'upstream.bodyBytes:6', 'issuers[1].audience:11'])
  t.end()
})

/** Each line holds the one before it nine times. */
const bomb = Array.from('bcdefghij', (name, index) =>
  `${name}: &${name} [${`*${'abcdefghij'[index]},`.repeat(9)}]\n`).join('')

t.test('text that is not strict YAML 1.2 is refused with its line', async t => {
  const rows: ReadonlyArray<readonly [yaml: string, line: number | undefined, problem: RegExp]> = [
    ['plans:\n\tdefault: {}\n', 2, /^Tabs are not allowed/],
    ['plans: [\n', 2, /must be sufficiently indented/],
    ['plans: !include other.yaml\n', 1, /^Unresolved tag$/],
    ['? [a]\n: 1\n', 1, /keys must be strings$/],
    ['a: 1\n---\nb: 1\n', 2, /multiple documents/],
    ['a: *b\n', undefined, /^an alias has no anchor/],
    [`a: &a [1]\n${bomb}`, undefined, /too many aliases$/]
  ]
  for (const [yaml, line, problem] of rows) {
    const problems = problemsOf(t, { yaml })
    const path = configPath(t)
    const source = line === undefined ? path : `${path}:${line}`
    t.match(problems[0], { setting: 'GATEWAY_CONFIG', source, problem, expected: 'YAML 1.2 with each key once' }, yaml)
  }
})

t.test('a key that stands there twice is named with both lines, and where they go', t => {
  const shipped = readFileSync(join(root, 'config/gateway.yaml'), 'utf8')
  const line = (text: string, start: string) => text.split('\n').findIndex(line => line.startsWith(start)) + 1
  const rows = [
    [
      `${shipped}plans:\n  pro: {}\n`,
      `"plans" stands there twice, in line ${line(shipped, 'plans:')} and in line ${shipped.split('\n').length}`
    ],
    ['plans: { default: {}, default: {} }\n', '"default" stands there twice, in line 1'],
    ['plans:\n  a: &x { credits: 1 }\n  "a": *x\n', '"a" stands there twice, in line 2 and in line 3'],
    ['prices:\n  1: 2\n  1: 3\n', '"1" stands there twice, in line 2 and in line 3'],
    [
      'issuers:\n  - { issuer: a, audience: b }\n  - audience: b\n    issuer: a\n    audience: c\n',
      '"audience" stands there twice, in line 3 and in line 5'
    ],
    [
      `${'x'.repeat(100)}: 1\n${'x'.repeat(100)}: 1\n`,
      `"${'x'.repeat(78)}… stands there twice, in line 1 and in line 2`
    ]
  ] as const
  for (const [yaml, problem] of rows) {
    const expected = 'each key once: merge the second into the first'
    const source = `${configPath(t)}:${problem.split(' ').at(-1)}`
    t.match(problemsOf(t, { yaml }), [{ setting: 'GATEWAY_CONFIG', source, problem, expected }], yaml)
  }
  t.end()
})

t.test('every second key of a file is told of, and one that is thrice there twice', t => {
  t.strictSame(
    problemsOf(t, { yaml: 'plans: {}\nplans: {}\nlimits: {}\nplans: {}\nlimits: {}\n' }).map(({ problem }) => problem),
    [
      '"plans" stands there twice, in line 1 and in line 2',
      '"plans" stands there twice, in line 1 and in line 4',
      '"limits" stands there twice, in line 3 and in line 5'
    ]
  )
  t.end()
})

t.test('a file that is no mapping is refused, and an empty one has no plans', t => {
  const rows = [
    ['- plans\n', 'GATEWAY_CONFIG', 'is a list', 'a mapping of known keys'],
    ['plans\n', 'GATEWAY_CONFIG', 'is a string', 'a mapping of known keys'],
    ['# nothing yet\n', 'plans.default', 'there is no plan "default"', 'a plan of that name under plans']
  ] as const
  for (const [yaml, setting, problem, expected] of rows) {
    const problems = problemsOf(t, { yaml })
    t.strictSame(problems, [{ setting, source: configPath(t), problem, expected }], yaml)
  }
  t.end()
})

t.test('a config file that is not there is refused with the place where it was looked for', async t => {
  const rows = [
    ['etc/gateway.yaml', 'etc/gateway.yaml', 'can not be read (ENOENT)'],
    ['../gateway.yaml', '../gateway.yaml', 'can not be read (ENOENT)'],
    ['/nowhere/gateway.yaml', '/nowhere/gateway.yaml', 'can not be read (ENOENT)'],
    ['config', 'config', 'can not be read (EISDIR)']
  ] as const
  for (const [given, path, problem] of rows) {
    const [found] = problemsOf(t, { env: { GATEWAY_CONFIG: given } })
    t.match(found, { setting: 'GATEWAY_CONFIG', source: resolve(t.testdirName, path), problem })
  }
})

t.test('files are read by the given function alone', t => {
  const readFile = (path: string) => {
    if (path === '/app/config/models.json') return '{"models":[]}'
    if (path !== '/app/config/gateway.yaml') throw new Error(`the disk is on fire: ${path}`)
    return 'plans: { default: {} }'
  }
  const { env } = install(t)
  t.equal(loadSettings({ env, cwd: '/app', readFile }).configPath, '/app/config/gateway.yaml')
  t.throws(() => loadSettings({ env, cwd: '/srv', readFile }), /can not be read \(for no known reason\)/)
  t.end()
})
