import { execFile } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { type IncomingMessage, request as httpRequest, type ServerResponse } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { Page } from 'playwright-core'
import t, { type Test } from 'tap'
import { parse, stringify } from 'yaml'
import { startSandbox } from '../../src/sandbox/sandbox.ts'
import { loadSettings, readDotEnv } from '../../src/settings.ts'
import { chromium, openPage } from '../helpers/chromium.ts'
import { clock } from '../helpers/clock.ts'
import { crankedGateway } from '../helpers/cranked-gateway.ts'
import { apiKey, startGateway, type TestGateway } from '../helpers/gateway.ts'
import { gatewayEnvironment, startProcess } from '../helpers/gateway-process.ts'
import { identityProvider } from '../helpers/identity-provider.ts'
import { pageServer } from '../helpers/page-server.ts'
import { root } from '../helpers/program.ts'
import { until } from '../helpers/until.ts'

const folder = join(root, 'config/examples')
const text = readFileSync(join(folder, 'README.md'), 'utf8')
const shippedText = readFileSync(join(root, 'config/gateway.yaml'), 'utf8')
const shipped = parse(shippedText)
/** The origins that the document names: ours, and that of the page. */
const documented = { gateway: 'https://gateway.example', page: 'https://app.example' }
/** What a section of the document has. */
interface Section {
  readonly title: string
  readonly text: string
  /** gateway.yaml: the shipped one, and at its end what the section has. */
  readonly config: string
  /** Appends to `.env`. */
  readonly dotEnv: string
  /** What is typed where the gateway runs. */
  readonly commands: string
  /** Who runs it is said in its first line. */
  code (who: 'backend' | 'page' | 'program'): string
}

const sections = text.split(/^## /m).slice(1).map(sectionFrom)

function sectionFrom (text: string): Section {
  const blocks = Array.from(text.matchAll(/^```(\w+)\n(.*?)^```$/gms), ([, language, code]) => ({
    language,
    code: code!
  }))
  const of = (language: string) => blocks.filter(block => block.language === language).map(({ code }) => code)
  return {
    title: text.slice(0, text.indexOf('\n')),
    text,
    config: [shippedText, ...of('yaml')].join(''),
    dotEnv: of('sh').filter(code => code.includes('>> .env')).join(''),
    commands: of('sh').filter(code => !code.includes('>> .env')).join(''),
    code (who) {
      const found = of('js').filter(code => code.startsWith(`// ${who}`))
      if (found.length !== 1) throw new Error(`${text.slice(0, 40)} has ${found.length} pieces of code for the ${who}`)
      return found[0]!
    }
  }
}

/** A folder as the reader has it, when it has gone through the section. */
async function folderFrom (t: Test, { config, dotEnv }: Section, change = (text: string) => text): Promise<string> {
  const cwd = mkdtempSync(join(tmpdir(), 'gateway-examples-'))
  t.teardown(() => rmSync(cwd, { recursive: true }))
  writeFileSync(join(cwd, 'gateway.yaml'), change(config))
  await bash(change(dotEnv), cwd)
  return cwd
}

async function bash (script: string, cwd: string, env: Readonly<Record<string, string>> = {}): Promise<string> {
  const options = { cwd, env: { PATH: process.env.PATH, ...env }, timeout: 30_000 }
  const { stdout } = await promisify(execFile)('bash', ['--norc', '-euo', 'pipefail', '-c', script], options)
  return stdout
}

/** `npx apixo-gateway` is the command line of this checkout. */
const withCli = (script: string): string =>
  `npx () { shift; '${process.execPath}' '${join(root, 'src/cli.ts')}' "$@"; }\n${script}`

/** Whoever the code says that it is for runs it. The names are what it has made. */
async function run (code: string, globals: Readonly<Record<string, unknown>>, names: readonly string[]): Promise<any> {
  const AsyncFunction = (async () => {}).constructor as new (
    ...args: string[]
  ) => (...values: unknown[]) => Promise<unknown>
  return await new AsyncFunction(...Object.keys(globals), `${code}\nreturn { ${names.join(', ')} }`)(
    ...Object.values(globals)
  )
}

/** The reader's own app: a page, and a backend behind it. */
interface App {
  readonly origin: string
  /** What it answers POST /session with. */
  backend: () => Promise<unknown>
  /** Where it leads our paths to; `''`: it does not. */
  gateway: string
  /** Which these are. */
  ours: RegExp
}

async function startApp (t: Test): Promise<App> {
  const origin = await pageServer(t, (request, response) => {
    if (app.ours.test(request.url!) && app.gateway !== '') return passOn(request, response, app.gateway)
    if (request.url !== '/session') {
      return response.writeHead(200, { 'content-type': 'text/html' }).end('<!doctype html><title>A page</title><input>')
    }
    app.backend().then(
      answer => response.end(JSON.stringify(answer)),
      error => response.writeHead(500).end(String(error))
    )
  })
  const app: App = { origin, backend: async () => ({}), gateway: '', ours: /^\/(?:gateway|api\/v1)\// }
  return app
}

function passOn (request: IncomingMessage, response: ServerResponse, to: string): void {
  const { method, headers, url } = request
  const outgoing = httpRequest(to + url, { method, headers }, answer => {
    response.writeHead(answer.statusCode!, answer.headers)
    response.flushHeaders()
    answer.pipe(response)
  })
  outgoing.on('error', () => response.destroy())
  response.on('close', () => outgoing.destroy())
  request.pipe(outgoing)
}

const browser = await chromium(t, { hosts: { 'app.lan': '127.0.0.1' } })

/** The page's code in a real browser, as it stands but for the origins. */
async function runIn (page: Page, code: string, names: readonly string[]): Promise<any> {
  return await page.evaluate(`(async () => { ${code}\nreturn { ${names.join(', ')} } })()`)
}

/** A gateway with the settings of a section, the reader's app, and a browser with its page. */
async function start (
  t: Test,
  number: number,
  change = (text: string) => text,
  env: Readonly<Record<string, string>> = {}
) {
  const section = sections[number - 1]!
  const app = await startApp(t)
  const here = (text: string): string => change(text).replaceAll(documented.page, app.origin)
  const cwd = await folderFrom(t, section, here)
  const gateway = await crankedGateway(t, {
    time: clock(Date.now()), // a browser reads Max-Age by its own
    config: readFileSync(join(cwd, 'gateway.yaml'), 'utf8'),
    env: { ...readDotEnv(cwd) as Record<string, string>, ...env }
  })
  const code = (who: 'backend' | 'page'): string =>
    here(section.code(who)).replaceAll(documented.gateway, gateway.origin)
  const globals = { process: { env: readDotEnv(cwd) }, user: { id: 'alice' } }
  const { page } = await openPage(t, browser, app.origin)
  return {
    ...gateway,
    app,
    page,
    /** The backend mints; `narrow` changes its code. */
    useBackend (narrow = (code: string) => code): void {
      app.backend = async () => await run(narrow(code('backend')), globals, ['token'])
    },
    runPage: (...names: string[]) => runIn(page, code('page'), ['data', ...names])
  }
}

const path = '/api/v1/generateTask/nano-banana'
const body = { input: { mode: 'text-to-image', prompt: 'a red cube' } }
const endSession = ({ call }: Pick<TestGateway, 'call'>, token: string) =>
  call('/gateway/session', { method: 'DELETE', token })

t.test('the ways in are read in plain English, lead somewhere, and say how they end', async t => {
  t.notMatch(text, /\b(?:just|simply|simple|easily|easy|obviously|basically)\b/i)
  const links = Array.from(text.matchAll(/\]\(([^)]+)\)/g), ([, target]) => target!)
  const anchors = links.filter(target => target.startsWith('#'))
  t.same(
    anchors,
    sections.map(({ title }) => `#${title.toLowerCase().replaceAll('.', '').replaceAll(' ', '-')}`),
    'each section has its row'
  )
  for (const target of links.filter(target => !/^(?:#|\w+:)/.test(target))) {
    t.ok(existsSync(join(folder, target)), target)
  }
  for (const { title, text } of sections) t.match(text, /^\*\*How it ends\.\*\* /m, title)
})

t.test('the settings of each way in are accepted as they stand', async t => {
  for (const section of sections) {
    const cwd = await folderFrom(t, section)
    t.doesNotThrow(
      () => loadSettings({ cwd, env: { ...gatewayEnvironment('http://127.0.0.1:1'), ...readDotEnv(cwd) } }),
      section.title
    )
  }
})

t.test('1: a backend mints, and its page makes a picture until the hour is over', async t => {
  const it = await start(t, 1)
  it.useBackend()
  const { data, token } = await it.runPage('token')
  t.match((await it.call('/gateway/session', { token })).json, { subject: 'app:alice' })
  it.pass(3600_000)
  t.equal((await it.status(token, data.taskId)).error, 'GW_BAD_SESSION')
  const next = await it.runPage('token')
  t.equal((await it.status(next.token, data.taskId)).json.data.state, 'success', 'the next session has the task')
  const other = await it.runPage('token')
  t.equal((await it.call('/gateway/session?everywhere=true', { method: 'DELETE', token: other.token })).status, 204)
  t.equal((await it.status(next.token, data.taskId)).error, 'GW_BAD_SESSION')
})

t.test('2: a narrow session does what it was minted for, and no more', async t => {
  const it = await start(t, 2)
  it.useBackend()
  const { data, token, uses, credits } = await it.runPage('token', 'uses', 'credits')
  t.match({ uses, credits: credits.session }, { uses: { limit: 3, left: 2 }, credits: { limit: 2, left: 1 } })
  const headers = { origin: it.app.origin }
  t.equal((await it.call('/api/v1/generateTask/suno', { token, body, headers })).error, 'GW_MODEL_DENIED')
  t.equal(
    (await it.call(path, { token, body, headers: { origin: 'https://other.example' } })).error,
    'GW_ORIGIN_DENIED'
  )
  t.equal((await it.call(path, { token, body, headers })).status, 200)
  t.match(await it.call(path, { token, body, headers }), { status: 402, error: 'GW_CREDITS_EXHAUSTED' })
  t.equal((await it.status(token, data.taskId, 'nano-banana', { headers })).status, 200)

  it.useBackend(code => code.replace('uses: 3', 'uses: 1'))
  const once = await it.runPage('token')
  t.match(await it.call(path, { token: once.token, body, headers }), { status: 402, error: 'GW_SESSION_SPENT' })
  t.equal((await it.status(once.token, once.data.taskId, 'nano-banana', { headers })).status, 200)
  it.pass(600_000)
  t.equal((await it.status(once.token, once.data.taskId, 'nano-banana', { headers })).error, 'GW_BAD_SESSION')
})

t.test('3: a page of the same origin works with a cookie, and hears its task end', async t => {
  const it = await start(t, 3)
  it.app.gateway = it.origin
  it.useBackend()
  const { data, token } = await it.runPage('token')
  t.equal((await it.status(token, data.taskId)).error, 'GW_BAD_SESSION', 'the token is of no use any more')
  await it.passUntil('the page hears the end', async () => await it.page.title() === 'success')
  const session = (method: string) => it.page.evaluate(async method => {
    const response = await fetch('/gateway/session', { method })
    return [response.status, response.headers.get('x-gateway-error')]
  }, method)
  t.same(await session('GET'), [200, null])
  const { name, value } = (await it.page.context().cookies())[0]!
  t.equal(
    (await it.call('/gateway/session', { headers: { cookie: `${name}=${value}`, origin: 'https://other.example' } }))
      .error,
    'GW_ORIGIN_DENIED'
  )
  t.same(await session('DELETE'), [204, null])
  t.same(await session('GET'), [401, 'GW_NO_SESSION'])
  await it.runPage()
  await it.page.reload() // or its EventSource would be the first to come back
  it.pass(7 * 86_400_000)
  t.same(await session('GET'), [401, 'GW_BAD_SESSION'], 'a week without use')
  t.same(await session('GET'), [401, 'GW_NO_SESSION'], 'and the browser has forgotten it')
})

t.test('3: an EventSource that was refused is followed by another, until the session or the task is over', async t => {
  const it = await start(t, 3)
  it.app.gateway = it.origin
  it.useBackend()
  const refusals = [503, 429]
  await it.page.clock.install()
  await it.page.route('**/events', route => {
    const status = refusals.shift()
    return status === undefined ? route.continue() : route.fulfill({ status })
  })
  await it.runPage()
  await it.passUntil('the page hears the end', async () => {
    await it.page.clock.runFor(3000)
    return await it.page.title() === 'success'
  })
  const streams = () => it.lines().filter(({ operation }) => operation === 'taskEvents').length
  await until('its way back was closed', async () => {
    await it.page.clock.runFor(3000)
    return streams() === 2
  })
  await it.page.clock.runFor(20_000)
  t.same([refusals, streams()], [[], 2])
})

t.test('3: so does a page that the gateway serves itself, with the backend behind one path of the proxy', async t => {
  const folder = mkdtempSync(join(tmpdir(), 'gateway-app-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  writeFileSync(join(folder, 'index.html'), '<!doctype html><title>Built</title>')
  const it = await start(t, 3, undefined, { GATEWAY_STATIC_DIR: folder })
  Object.assign(it.app, { gateway: it.origin, ours: /^(?!\/session$)/ })
  it.useBackend()
  await it.page.reload()
  t.equal(await it.page.title(), 'Built')
  const { data, token } = await it.runPage('token')
  t.equal((await it.status(token, data.taskId)).error, 'GW_BAD_SESSION', 'the token was swapped')
  t.equal(await it.page.evaluate(async () => (await fetch('/gateway/session')).status), 200)
})

t.test('3: where the page came without https its token stays in the tab, and it says so', async t => {
  const it = await start(t, 3)
  it.app.gateway = it.origin
  it.useBackend()
  await it.page.goto(it.app.origin.replace('127.0.0.1', 'app.lan'))
  const { data, token } = await it.runPage('token')
  t.equal((await it.status(token, data.taskId)).status, 200, 'no swap has used it up')
  t.match(await it.page.locator('body').innerText(), /no session cookie: the token stays in this tab/)
  t.same(await it.page.context().cookies(), [])
})

t.test('4: the token of an identity provider is a session until it expires', async t => {
  const provider = await identityProvider(t, 'RS256')
  provider.configuration.issuer = `${provider.origin}/`
  const it = await start(t, 4, text => text.replaceAll('https://tenant.eu.auth0.com', provider.origin))
  const print = (more: object = {}) => {
    const iat = Math.floor(it.time.now() / 1000)
    return provider.sign({
      iss: `${provider.origin}/`,
      sub: 'auth0|5f7c8ec7',
      aud: ['https://api.example'],
      iat,
      exp: iat + 600,
      ...more
    })
  }
  const token = await print()
  await it.page.evaluate(token => { Object.assign(window, { auth0: { getTokenSilently: async () => token } }) }, token)
  const { data } = await it.runPage()
  t.equal((await it.status(token, data.taskId)).status, 200)
  t.equal(
    (await it.call(path, { token: await print({ aud: 'https://another.example' }), body })).error,
    'GW_BAD_SESSION'
  )
  const second = await print({ jti: 'second' })
  t.equal((await endSession(it, second)).status, 204)
  t.equal((await it.status(second, data.taskId)).error, 'GW_BAD_SESSION')
  t.equal((await it.status(token, data.taskId)).status, 200, 'that one alone')
  it.pass(600_000)
  t.equal((await it.status(token, data.taskId)).error, 'GW_BAD_SESSION')
})

/** What tokens of each have, beside their issuer and audience, and what others of the same provider have instead. */
const providers: Readonly<Record<string, { readonly has: object, readonly others: readonly object[] }>> = {
  Clerk: {
    has: { azp: documented.page, jti: 'a1b2', sid: 'sess_2abc' },
    others: [{ azp: 'https://evil.example' }, { azp: undefined }]
  },
  Supabase: {
    has: { role: 'authenticated', is_anonymous: false },
    others: [{ is_anonymous: true }, { aud: undefined, role: 'service_role' }]
  },
  Firebase: {
    has: { firebase: { sign_in_provider: 'google.com' } },
    others: [{ firebase: { sign_in_provider: 'anonymous' } }, { aud: 'their-project' }]
  },
  Keycloak: { has: { azp: 'my-app', typ: 'Bearer' }, others: [{ azp: 'their-app' }, { typ: 'ID' }] }
}

t.test('4: the other providers of the table are settings that let in their users, and nobody else', async t => {
  const rows = sections[3]!.text
    .split('\n')
    .filter(line => line.startsWith('| '))
    .slice(1)
    .map(line => line.split('|').map(cell => cell.trim()))
  t.same(
    rows.map(([, name]) => name),
    Object.keys(providers)
  )
  for (const [, name, item] of rows) {
    await t.test(name!, async t => {
      const settings = parse(item!.slice(1, -1))
      const provider = await identityProvider(t, settings.algorithms[0])
      const config = stringify({ ...shipped, issuers: [{ ...settings, jwksUrl: provider.jwksUrl }] })
      const { call, time } = await startGateway(t, { config })
      const print = (more: object) => {
        const iat = time.now() / 1000
        const { issuer: iss, audience: aud } = settings
        return provider.sign({
          iss,
          sub: 'user-1',
          iat,
          exp: iat + 60,
          ...(aud === undefined ? {} : { aud }),
          ...providers[name!]!.has,
          ...more
        })
      }
      t.equal((await call(path, { token: await print({}), body })).status, 200)
      for (const other of providers[name!]!.others) {
        t.equal((await call(path, { token: await print(other), body })).error, 'GW_BAD_SESSION', JSON.stringify(other))
      }
    })
  }
})

t.test('5: a visitor solves what is asked, and makes a picture', async t => {
  const it = await start(t, 5)
  const { data, token, headers } = await it.runPage('token', 'headers')
  t.match((await it.call('/gateway/session', { token })).json, { plan: 'guest', credits: { left: 4 } })
  const proof = { 'x-apixo-proof': headers['x-apixo-proof'] }
  for (const more of [{}, proof]) {
    t.match(await it.call(path, { token, body, headers: more }), { status: 403, error: 'GW_SCOPE_DENIED' })
  }
  it.pass(3600_000)
  t.equal((await it.status(token, data.taskId)).error, 'GW_BAD_SESSION')
})

/** A gateway in a process of its own, and the command line beside it. */
async function startBeside (t: Test, number: number) {
  const section = sections[number - 1]!
  const [app, sandbox] = [await startApp(t), await startSandbox({ keys: [apiKey] })]
  t.teardown(() => sandbox.close())
  const cwd = await folderFrom(t, section, text => text.replaceAll(documented.page, app.origin))
  const env = gatewayEnvironment(sandbox.origin)
  const { origin } = await startProcess(t, { cwd, env })
  const here = (text: string): string =>
    text.replaceAll(documented.page, app.origin).replaceAll(documented.gateway, origin)
  return { section, app, origin, here, sandbox, shell: (script: string) => bash(withCli(script), cwd, env) }
}

t.test('6: a team shares one key by tokens of the command line, which end one by one', async t => {
  const { section, app, origin, here, shell } = await startBeside(t, 6)
  const [token, link] = (await shell(section.commands)).trim().split('\n')
  t.match(link, /^https:\/\/gateway\.example\/gateway\/invitation#apxi_/)
  const { page } = await openPage(t, browser, app.origin)
  await page.fill('input', token!)
  const { data } = await runIn(page, here(section.code('page')), ['data'])
  const status = async () =>
    await fetch(`${origin}/api/v1/statusTask/nano-banana?taskId=${data.taskId}`, {
      headers: { authorization: `Bearer ${token}` }
    })
  t.equal((await status()).status, 200)
  const rows = JSON.parse(await shell('npx apixo-gateway token list --format json'))
  t.match(rows, [
    { subject: 'token:bob', state: 'invited' },
    { subject: 'token:alice', plan: 'team', state: 'active', spent: 1 }
  ])
  await shell(`npx apixo-gateway token revoke ${rows[1].id}`)
  await until('it has ended', async () => (await status()).headers.get('x-gateway-error') === 'GW_BAD_SESSION', 2000)
})

t.test('7: a stock client takes the gateway for APIXO, and a session token for its key', async t => {
  const { section, origin, here, shell, sandbox } = await startBeside(t, 7)
  const program = `${section.code('program')}\nconsole.log(JSON.stringify(data))`
  const script = `${here(section.commands)}'${process.execPath}' --input-type=module <<'END'\n${program}\nEND\necho "$APIXO_API_KEY"`
  const [made, token] = (await shell(script)).trim().split('\n')
  t.match(JSON.parse(made!), { taskId: /./ })
  t.equal(sandbox.submits.length, 1)
  const balance = await fetch(`${origin}/api/v1/apikeys/current-balance`, {
    headers: { authorization: `Bearer ${token}` }
  })
  t.match(await balance.text(), /\b99\b/, 'its own credits')
  await shell(`npx apixo-gateway token revoke ${token!.split('_')[1]}`)
  const ended = async () =>
    (await fetch(`${origin}/gateway/session`, { headers: { authorization: `Bearer ${token}` } })).status === 401
  await until('it has ended', ended, 2000)
})
