import { execFileSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import Fastify from 'fastify'
import t from 'tap'
import ts from 'typescript'
import { fileRoutes } from '../../src/features/pages/files.ts'
import { builtClient } from '../helpers/built-client.ts'
import { startGateway } from '../helpers/gateway.ts'
import { root } from '../helpers/program.ts'

const folder = await builtClient()
const read = (name: string): string => readFileSync(join(folder, name), 'utf8')

t.test('the client is small, is all ours, and needs nothing else', async t => {
  t.ok(gzipSync(read('client.js'), { level: 9 }).length < 6000, 'less than 6 kB, gzipped')
  t.notMatch(read('client.js'), /\bimport\b|require\(|node:/)
  const { sources } = JSON.parse(read('client.js.map')) as { sources: string[] }
  t.ok(sources.length > 4)
  t.same(sources.filter(source => !source.startsWith('../src/client/')), [])
})

t.test('the hook is smaller still, and needs React and nothing else', async t => {
  t.ok(gzipSync(read('react.js'), { level: 9 }).length < 1000, 'less than 1 kB, gzipped')
  t.same(Array.from(read('react.js').matchAll(/\bfrom\s*["'`]([^"'`]+)/g), ([, name]) => name), ['react'])
  t.same(JSON.parse(read('react.js.map')).sources, ['../src/client/react.ts'])
})

t.test('its types say what is in it, and hold without anything else', async t => {
  const cwd = t.testdir({
    'page.ts': `import { createClient, GatewayError, type FinishedTask } from './client.js'
import { useGeneration } from './react.js'
const client = createClient({ getToken: async () => 'token' })
const task: FinishedTask = await client.generate('nano-banana', { prompt: 'x' }, { onState: ({ state }) => state })
const link: string | undefined = task.results[0]
// @ts-expect-error there is no such option
createClient({ tokn: 'x' })
const isOut = (error: unknown): boolean => error instanceof GatewayError && error.code === 'GW_CREDITS_EXHAUSTED'
// @ts-expect-error there is no such code
const isNone = (error: GatewayError): boolean => error.code === 'GW_NONE'
const { generate, results } = useGeneration(client)
const made: Promise<FinishedTask | null> = generate('nano-banana', { prompt: 'x' })
export { link, isOut, isNone, made, results }`
  })
  for (const name of ['client.d.ts', 'react.d.ts']) cpSync(join(folder, name), join(cwd, name))
  const program = ts.createProgram([join(cwd, 'page.ts')], {
    strict: true,
    noEmit: true,
    types: [],
    lib: ['lib.es2022.d.ts', 'lib.dom.d.ts'],
    target: ts.ScriptTarget.ES2022,
    module: ts.ModuleKind.ES2022,
    moduleResolution: ts.ModuleResolutionKind.Bundler
  })
  t.same(ts.getPreEmitDiagnostics(program).map(({ messageText }) => ts.flattenDiagnosticMessageText(messageText, ' ')), [])
  // Not loaded here: by its map it would count as the source.
  const exported = Array.from(read('client.js').matchAll(/\w+ as (\w+)[,}]/g), ([, name]) => name!).sort()
  const declared = Array.from(read('client.d.ts').matchAll(/^export declare \w+ (\w+)/gm), ([, name]) => name!).sort()
  t.same(declared, exported)
})

t.test('the gateway serves it to everybody, and to scripts of the origins that may call it', async t => {
  const origin = 'https://app.example'
  const { call } = await startGateway(t, { env: { GATEWAY_ALLOWED_ORIGINS: origin } })
  for (const [name, type] of [
    ['client.js', 'text/javascript; charset=utf-8'],
    ['client.js.map', 'application/json; charset=utf-8'],
    ['client.d.ts', 'text/plain; charset=utf-8']
  ] as const) {
    const { status, headers, text } = await call(`/gateway/${name}`, { headers: { origin } })
    t.equal(status, 200, name)
    t.equal(text, read(name))
    t.equal(headers.get('content-type'), type)
    t.equal(headers.get('x-content-type-options'), 'nosniff')
    t.equal(headers.get('cache-control'), 'no-cache')
    t.equal(headers.get('access-control-allow-origin'), origin)
    t.match(headers.get('vary'), /origin/i)
    const etag = headers.get('etag')!
    for (const tag of [etag, `W/${etag}`, `"x", ${etag}`]) {
      t.match(await call(`/gateway/${name}`, { headers: { 'if-none-match': tag } }), { status: 304, text: '' })
    }
    t.equal((await call(`/gateway/${name}`, { headers: { 'if-none-match': '"x"' } })).status, 200)
  }
  const foreign = await call('/gateway/client.js', { headers: { origin: 'https://other.example' } })
  t.equal(foreign.headers.get('access-control-allow-origin'), null)
  t.match(await call('/gateway/client.js', { method: 'POST' }), { status: 405 })
})

t.test('where it was not built there is no such address, and the log says so once', async t => {
  const lines: string[] = []
  const app = Fastify({ logger: { stream: { write: line => lines.push(line) } } })
  t.teardown(() => app.close())
  fileRoutes(app, t.testdir({ 'client.js': '' }))
  t.equal((await app.inject('/gateway/client.js')).statusCode, 404)
  t.equal(lines.filter(line => line.includes('npm run build makes it')).length, 1)
})

t.test('an installation builds it, and one without the bundler ends quietly', async t => {
  const folder = mkdtempSync(join(tmpdir(), 'client-')) // with no packages above it
  t.teardown(() => rmSync(folder, { recursive: true }))
  mkdirSync(join(folder, 'bin'))
  for (const name of ['build.ts', 'prepare.ts']) cpSync(join(root, 'bin', name), join(folder, 'bin', name))
  const prepare = () => execFileSync(process.execPath, [join(folder, 'bin/prepare.ts')], { encoding: 'utf8' })
  t.equal(prepare(), '')
  t.notOk(existsSync(join(folder, 'dist')))
  for (const name of ['src', 'node_modules']) symlinkSync(join(root, name), join(folder, name))
  t.equal(prepare(), '')
  t.equal(readFileSync(join(folder, 'dist/client.js'), 'utf8'), read('client.js'))
})
