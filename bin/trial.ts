import { execFileSync, spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/**
 * `npm run trial`: packs the package, installs it in empty projects from the registry, and runs in each what
 * config/examples/within.md has. Not a part of `npm test`, which needs no network.
 */
const root = join(import.meta.dirname, '..')
const folder = mkdtempSync(join(tmpdir(), 'gateway-trial-'))

const settings = `{
  env: {
    APIXO_API_KEY: 'a-key-of-nobody-in-this-trial', GATEWAY_SESSION_SECRET: 'a-session-secret-of-32-bytes-and-more',
    GATEWAY_ISSUER_TOKEN: 'issuer-token-of-the-trial-0001', GATEWAY_STORE: 'sqlite::memory:', LOG_LEVEL: 'silent'
  },
  config: { plans: { default: { credits: 5 } }, prices: { '*': 1 } }
}`

/** Each says the origin that it listens on by `ready(port)`. */
const projects: ReadonlyArray<{ name: string, packages: readonly string[], program: string }> = [
  {
    name: 'Fastify',
    packages: ['fastify'],
    program: `import Fastify from 'fastify'
      import { gateway } from 'apixo-gateway'
      const app = Fastify()
      await app.register(gateway, ${settings})
      await app.listen({ port: 0 })
      await ready(app.server.address().port)
      await app.close()`
  },
  {
    name: 'Express',
    packages: ['express'],
    program: `import express from 'express'
      import { createHandler, expressMiddleware } from 'apixo-gateway'
      const app = express()
      app.use(expressMiddleware(createHandler(${settings})))
      const server = app.listen(0, () => ready(server.address().port).then(() => process.exit(0)))`
  },
  {
    name: 'Hono',
    packages: ['hono', '@hono/node-server'],
    program: `import { Hono } from 'hono'
      import { serve } from '@hono/node-server'
      import { getConnInfo } from '@hono/node-server/conninfo'
      import { createHandler, honoMiddleware } from 'apixo-gateway'
      const app = new Hono()
      app.use(honoMiddleware(createHandler(${settings}), context => getConnInfo(context).remote.address))
      serve({ fetch: app.fetch, port: 0 }, ({ port }) => ready(port).then(() => process.exit(0)))`
  }
]

/** Mints a session over HTTP, and asks as a page would, by the package's client. */
const ready = `import { createClient } from 'apixo-gateway/client'
  async function ready (port) {
    const baseUrl = 'http://localhost:' + port
    const minted = await fetch(baseUrl + '/gateway/sessions', {
      method: 'POST',
      headers: { authorization: 'Bearer issuer-token-of-the-trial-0001', 'content-type': 'application/json' },
      body: '{"subject":"alice"}'
    })
    const { token } = await minted.json()
    const session = await createClient({ baseUrl, token }).session()
    if (!JSON.stringify(session).includes('alice')) throw new Error(JSON.stringify(session))
    console.log('  a session was minted, and its client knows it')
  }`

function run (command: string, args: readonly string[], cwd: string): void {
  execFileSync(command, args, { cwd, stdio: ['ignore', 'inherit', 'inherit'] })
}

/** The demo from the package, until it has said where it is. */
async function demo (cwd: string): Promise<void> {
  const child = spawn(join(cwd, 'node_modules/.bin/apixo-gateway'), ['demo'], { cwd, env: { ...process.env, PORT: '0' } })
  const said = await new Promise<string>((resolve, reject) => {
    child.stdout.once('data', data => resolve(String(data)))
    child.once('exit', code => reject(new Error(`the demo ended by ${code}`)))
  })
  child.removeAllListeners('exit').kill()
  console.log(`  the demo says: ${said.split('\n').find(line => line.trim() !== '')}`)
}

try {
  execFileSync('npm', ['ping'], { stdio: 'ignore', timeout: 20_000 })
} catch {
  console.log('no registry answers `npm ping`: the trial of the package was not made')
  process.exit(0)
}
run(process.execPath, [join(root, 'bin/package.ts'), join(folder, 'package')], root)
const [packed] = JSON.parse(execFileSync('npm', ['pack', '--json'], { cwd: join(folder, 'package') }).toString())
console.log(`${packed.filename}: ${packed.size} bytes, ${packed.entryCount} files`)
for (const { name, packages, program } of projects) {
  const began = Date.now()
  const cwd = join(folder, name)
  mkdirSync(cwd)
  writeFileSync(join(cwd, 'package.json'), '{ "private": true, "type": "module" }')
  const wanted = [join(folder, 'package', packed.filename), ...packages]
  console.log(`${name}: npm install apixo-gateway ${packages.join(' ')}`)
  run('npm', ['install', '--ignore-scripts', '--no-audit', '--no-fund', '--silent', ...wanted], cwd)
  writeFileSync(join(cwd, 'program.js'), `${ready}\n${program}`)
  run(process.execPath, ['program.js'], cwd)
  if (name === 'Fastify') await demo(cwd)
  console.log(`  ${Math.round((Date.now() - began) / 100) / 10} s`)
}
rmSync(folder, { recursive: true })
