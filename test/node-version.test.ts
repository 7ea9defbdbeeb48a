import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import t, { type Test } from 'tap'
import { root, startProgram } from './helpers/program.ts'

const { engines, scripts } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
const sentence = (version: string): string => `apixo-gateway: Node 24 or newer is needed, and this is ${version}. ` +
  'On Linux x64 `npm ci` brings it, for `npm run` and `npx`; elsewhere get it from https://nodejs.org.\n'
/** Of a Node that is not there: what it says of itself. */
const pretence = `
  Object.defineProperty(process, 'versions', { value: { ...process.versions, node: '20.20.2' } })
  Object.defineProperty(process, 'version', { value: 'v20.20.2' })`

async function saidBy (t: Test, command: readonly [string, ...string[]], env: Readonly<Record<string, string>> = {}) {
  const program = startProgram(t, command, { cwd: root, env })
  return { code: await program.ended, output: program.output() }
}

t.test('a Node that is too old is told so in one sentence, whatever is run', async t => {
  t.equal(engines.node, '>=24')
  const folder = t.testdir({ 'old.mjs': pretence })
  const env = {
    NODE_OPTIONS: `--import ${join(folder, 'old.mjs')}`,
    PATH: `${join(process.execPath, '..')}${delimiter}${process.env.PATH}`
  }
  const needing = Object.values<string>(scripts).filter(script => /\bnode\b/.test(script))
  t.ok(needing.length >= 6)
  const lines = [
    ...needing,
    'bin/apixo-gateway.mjs --help',
    'node src/main.ts',
    'node src/cli.ts check',
    'node src/sandbox/main.ts'
  ]
  for (const line of lines) {
    t.same(await saidBy(t, ['sh', '-c', line], env), { code: 1, output: sentence('v20.20.2') }, line)
  }
})

t.test('one that is new enough is told nothing', async t => {
  t.match(await saidBy(t, ['node', 'bin/apixo-gateway.mjs', '--version']), { code: 0, output: /^\d+\.\d+\.\d+\n$/ })
})

t.test('a real old one, where the system has one, reads that sentence too', async t => {
  const nodes = [...new Set((process.env.PATH ?? '').split(delimiter).map(folder => join(folder, 'node')))].filter(
    path => existsSync(path)
  )
  const versions = new Map(nodes.map(path => [path, execFileSync(path, ['--version'], { encoding: 'utf8' }).trim()]))
  t.ok(versions.size > 0)
  for (const [path, version] of versions) {
    if (Number(version.slice(1).split('.')[0]) >= 24) continue
    t.same(await saidBy(t, [path, 'bin/apixo-gateway.mjs', 'check'], { NODE_OPTIONS: '' }), {
      code: 1,
      output: sentence(version)
    })
  }
})
