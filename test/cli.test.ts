import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { type Column, paragraph, table } from '../src/cli/command.ts'
import { first } from '../src/cli/operator.ts'
import { gatewayEnvironment, runScript, startProcess } from './helpers/gateway-process.ts'
import { apiKey, sessionSecret } from './helpers/gateway.ts'
import { root } from './helpers/program.ts'
import { closedPort, listen } from './helpers/raw-server.ts'

const nowhere = 'http://127.0.0.1:1'
const config = 'plans: { default: { credits: 100 } }\nprices: { "*": 1 }\n'
const script = 'src/cli.ts'

async function run (t: Test, cwd: string, args: readonly string[], env: Readonly<Record<string, string>> = {}) {
  const program = runScript(t, { cwd, script, args, env })
  return { code: await program.ended, stdout: program.stdout, stderr: program.stderr }
}

const commands = ['start', 'demo', 'check', 'health', 'credits', 'usage', 'unknown', 'audit']

t.test('who asks for help gets it on standard output', async t => {
  const cwd = t.testdir({})
  for (const args of [['--help'], ['-h'], ['nonsense', '-h']]) {
    const { code, stdout, stderr } = await run(t, cwd, args)
    t.equal(code, 0)
    t.equal(stderr, '')
    t.match(stdout, /^Usage: apixo-gateway <command>\n/)
    for (const command of commands) t.match(stdout, new RegExp(`^ {2}${command} `, 'm'))
    t.ok(stdout.split('\n').every(line => line.length <= 80), '80 columns')
  }
})

t.test('the version is that of the package, and nothing else', async t => {
  const cwd = t.testdir({})
  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
  t.strictSame(await run(t, cwd, ['--version']), { code: 0, stdout: `${version}\n`, stderr: '' })
  t.equal((await run(t, cwd, ['--version', 'more'])).code, 64)
})

t.test('every command has help of its own, and does nothing else then', async t => {
  const cwd = t.testdir({})
  await Promise.all(commands.map(async command => {
    const { code, stdout, stderr } = await run(t, cwd, [command, '--help', '--nonsense'])
    t.equal(code, 0, command)
    t.equal(stderr, '')
    t.match(stdout, new RegExp(`^Usage: apixo-gateway ${command}\\b`))
    t.ok(stdout.split('\n').every(line => line.length <= 80), `${command}: 80 columns`)
  }))
})

t.test('who gives no command, or one that is none, gets help on standard error and exit code 64', async t => {
  const cwd = t.testdir({})
  for (const args of [[], ['nonsense'], ['toString'], ['constructor'], ['--nonsense']]) {
    const { code, stdout, stderr } = await run(t, cwd, args)
    t.equal(code, 64, args.join(' '))
    t.equal(stdout, '')
    t.match(stderr, /^Usage: apixo-gateway <command>\n/)
  }
})

t.test('words that a command does not know end in its own help and exit code 64', async t => {
  const cwd = t.testdir({})
  for (const args of [
    ['check', 'more'],
    ['check', '--nonsense'],
    ['usage', '--from'],
    ['credits'],
    ['unknown', 'release']
  ]) {
    const { code, stdout, stderr } = await run(t, cwd, args)
    t.equal(code, 64, args.join(' '))
    t.equal(stdout, '')
    t.match(stderr, new RegExp(`^apixo-gateway: .+\n\nUsage: apixo-gateway ${args[0]}\\b`))
  }
})

t.test('check prints each setting and where it came from, and secrets as fingerprints', async t => {
  const cwd = t.testdir({ 'gateway.yaml': config, 'models.json': '{"models":[]}', '.env': 'LOG_LEVEL=warn\n' })
  const { code, stdout, stderr } = await run(t, cwd, ['check'], gatewayEnvironment(nowhere))
  t.equal(code, 0)
  t.equal(stderr, '')
  t.match(stdout, /^APIXO_API_KEY +sha256:[0-9a-f]{8} +\(from environment\)$/m)
  t.match(stdout, /^APIXO_BASE_URL +http:\/\/127\.0\.0\.1:1 +\(from environment\)$/m)
  t.match(stdout, /^LOG_LEVEL +warn +\(from environment\)$/m)
  t.match(stdout, /^HOST +127\.0\.0\.1 +\(from default\)$/m)
  t.match(stdout, /^plans\.default\.credits +100 +\(from .*gateway\.yaml\)$/m)
  for (const secret of [apiKey, sessionSecret]) t.notMatch(stdout, secret)
})

t.test('check warns of what a start warns of, and is content', async t => {
  const cwd = t.testdir({ 'gateway.yaml': config })
  const { code, stdout, stderr } = await run(t, cwd, ['check'], gatewayEnvironment(nowhere))
  t.equal(code, 0)
  t.match(stdout, /^APIXO_API_KEY/)
  t.match(
    stderr,
    /^warning: There is no models\.json beside \S+gateway\.yaml: the shipped \S+config\/models\.json counts\.\n$/
  )
})

t.test('check says what is wrong, and exits as a start would', async t => {
  const cwd = t.testdir({ 'gateway.yaml': config })
  const { code, stdout, stderr } = await run(t, cwd, ['check'], { ...gatewayEnvironment(nowhere), PORT: 'eighty' })
  t.equal(code, 78)
  t.equal(stdout, '')
  t.match(stderr, /^apixo-gateway: One setting is wrong:\n- PORT \(environment\): /)
})

t.test('start is the gateway, which health finds ready, and no more when it has stopped', async t => {
  const cwd = t.testdir({ 'gateway.yaml': config })
  const gateway = await startProcess(t, { cwd, script, args: ['start'], env: gatewayEnvironment(nowhere) })
  const { port } = new URL(gateway.origin)
  for (const HOST of ['127.0.0.1', '0.0.0.0', '::', 'localhost']) {
    const { code, stdout } = await run(t, cwd, ['health'], { HOST, PORT: port })
    t.equal(code, 0, HOST)
    t.match(JSON.parse(stdout), { status: 'ok' })
  }
  gateway.child.kill('SIGTERM')
  t.equal(await gateway.ended, 0)
  const { code, stdout, stderr } = await run(t, cwd, ['health'], { HOST: '127.0.0.1', PORT: port })
  t.equal(code, 1)
  t.equal(stdout, '')
  t.match(stderr, new RegExp(`^no gateway answers on port ${port}: `))
})

t.test('start says what is wrong with the settings', async t => {
  const { code, stderr } = await run(t, t.testdir({}), ['start'])
  t.equal(code, 78)
  t.match(stderr, /^apixo-gateway: 3 settings are wrong:\n/)
})

t.test('a gateway that is not ready is not healthy', async t => {
  const server = createServer((_request, response) => response.writeHead(503).end('{"status":"unavailable"}'))
  const port = await listen(server)
  t.teardown(() => { server.close() })
  const { code, stdout } = await run(t, t.testdir({}), ['health'], { HOST: '127.0.0.1', PORT: String(port) })
  t.equal(code, 1)
  t.equal(stdout, '{"status":"unavailable"}\n')
})

t.test('health asks where the settings say, in .env as well, and empty means unset', async t => {
  const [port, other] = [await closedPort(), await closedPort()]
  const cwd = t.testdir({ '.env': `PORT=${port}\n` })
  const asked = async (env: Readonly<Record<string, string>>) => {
    const { code, stderr } = await run(t, cwd, ['health'], env)
    t.equal(code, 1)
    return /on port (\S*): /.exec(stderr)?.[1]
  }
  t.equal(await asked({}), String(port))
  t.equal(await asked({ HOST: '', PORT: String(other) }), String(other))
  t.equal(await asked({ HOST: '192.0.2.1', PORT: '' }), '8080')
  t.equal(await asked({ HOST: '::1', PORT: String(other) }), String(other), 'also at an address of version 6')
})

t.test('demo needs no settings at all, and ends when it is told to', async t => {
  const cwd = t.testdir({})
  for (const env of [{}, { PORT: '', LOG_LEVEL: '' }, { PORT: String(await closedPort()), LOG_LEVEL: 'error' }]) {
    const demo = runScript(t, { cwd, script, args: ['demo'], env })
    await demo.says(/Ctrl-C here stops both/)
    demo.child.kill('SIGTERM')
    t.equal(await demo.ended, 0)
    if (env.PORT) t.match(demo.stdout, `http://127.0.0.1:${env.PORT}`)
    t.equal(demo.stderr, '')
  }
})

t.test('a command that can not do its work says why in one sentence', async t => {
  const { code, stdout, stderr } = await run(t, t.testdir({}), ['demo'], { PORT: '123456' })
  t.equal(code, 1)
  t.equal(stdout, '')
  t.match(stderr, /^apixo-gateway: .*123456.*\n$/)
})

interface Row { readonly id: string, readonly name: string, readonly note: string, readonly count: number }
const columns: ReadonlyArray<Column<Row>> = [
  { title: 'id', of: ({ id }) => id },
  { title: 'name', of: ({ name }) => name, shrinks: true },
  { title: 'note', of: ({ note }) => note, shrinks: true },
  { title: 'count', of: ({ count }) => count }
]
const row = (more: Partial<Row>): Row => ({ id: '1', name: 'alice', note: 'x', count: 7, ...more })

t.test('texts stand to the left, numbers to the right', t => {
  t.equal(table(columns, [row({}), row({ id: '22', count: 123456 })]), `ID  NAME   NOTE   COUNT
1   alice  x          7
22  alice  x     123456
`)
  t.end()
})

t.test('a table fits its terminal: the widest of the columns that may shrink gives way', t => {
  const rows = [row({ id: 'x'.repeat(20), name: 'n'.repeat(100), note: 'y'.repeat(30) })]
  const lines = table(columns, rows, 80).trimEnd().split('\n')
  t.ok(lines.every(line => line.length <= 80))
  t.match(lines[1], /^x{20} {2}n{23}… {2}y{24}… {6}7$/)
  t.equal(
    table(columns, rows, Infinity).split('\n')[1]!.length,
    20 + 100 + 30 + 5 + 6,
    'and is whole when nobody looks'
  )
  t.match(table(columns, rows, 10).split('\n')[1], /^x{20} {2}n{7}… {2}y{7}… {6}7$/, 'but something of each is left')
  t.match(table(columns.slice(0, 1), rows, 10), 'x'.repeat(20))
  t.intercept(process.stdout, 'columns', { value: 60 })
  t.equal(table(columns, rows).split('\n')[1]!.length, 60, 'as wide as the terminal says it is')
  t.end()
})

t.test('a name can not talk to the terminal', t => {
  const text = table(columns, [row({ name: '\x1b[2Jmallory\u202e\u2028' })])
  t.match(text, '\uFFFD[2Jmallory\uFFFD\uFFFD')
  t.notMatch(text, /[\x1b\u202e\u2028]/) // eslint-disable-line no-control-regex
  t.end()
})

t.test('words under a row fit the terminal too, but for one that is longer than it', t => {
  t.equal(paragraph(['one=1', 'two=2', 'three=3'], 15), '    one=1 two=2\n    three=3\n')
  t.equal(
    paragraph(['one=1', `two=${'2'.repeat(20)}`, '\x1b[2J'], 12),
    `    one=1\n    two=${'2'.repeat(20)}\n    \uFFFD[2J\n`
  )
  t.equal(paragraph(['one=1', 'two=2']), '    one=1 two=2\n')
  t.equal(paragraph([]), '')
  t.end()
})

t.test('a long list is read in pages until there is enough', async t => {
  const all = Array.from({ length: 1203 }, (_, index) => index)
  const asked: number[] = []
  const read = async ({ cursor = '0', limit }: { cursor?: string | undefined, limit: number }) => {
    asked.push(limit)
    const end = Number(cursor) + limit
    return { items: all.slice(Number(cursor), end), next: end < all.length ? String(end) : null }
  }
  t.same(await first(1100, read), { items: all.slice(0, 1100), hasMore: true })
  t.same(asked, [500, 500, 100])
  t.same(await first(2000, read), { items: all, hasMore: false })
  t.same(await first(1203, read), { items: all, hasMore: false })
})
