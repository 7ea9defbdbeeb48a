import { randomBytes } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import t, { type Test } from 'tap'
import { type SandboxCase, sandboxCases } from '../../src/sandbox/cases.ts'
import { type Sandbox, startSandbox } from '../../src/sandbox/sandbox.ts'
import { type Program, root, startProgram } from '../helpers/program.ts'
import { type RawAnswer, rawHttp, rawRequest } from '../helpers/raw-http.ts'

const random = () => randomBytes(24).toString('base64url')

/** Secrets that nothing may show. The signs in them look different in a URL, and in base64. */
const canaries = {
  key: `canary-key/${random()}+/~=`,
  otherKey: `canary-other-key/${random()}==`,
  issuerToken: `canary-issuer/${random()}~+=`,
  sessionSecret: `canary-session-secret/${random()}${random()}`
}
/** In every prompt. */
const marker = `marigold${randomBytes(6).toString('hex')}`
/** The time of the sandbox alone: the processes under test live in ours. */
const taskMs = 3000

const main = join(root, 'src/main.ts')
/** A way for a test to make an error that nobody catches. */
const bomb = `data:text/javascript,${encodeURIComponent("process.on('SIGUSR2', () => { throw new Error('nobody catches this') })")}`

/** `patienceMs`: how long an answer of the upstream is waited for. */
const configWith = (patienceMs: number) => JSON.stringify({
  plans: {
    default: { requestsPerMinute: 100_000, pollsPerMinute: 100_000, concurrentTasks: 1000, credits: 'unlimited' },
    rated: { requestsPerMinute: 1, pollsPerMinute: 1 },
    narrow: { concurrentTasks: 1 },
    poor: { credits: 0 },
    choosy: { models: ['flux-*'] }
  },
  caps: { 'sora-2': { 'input.duration': { max: 12 } } },
  limits: { addressFailuresPerMinute: 200, bodyBytes: 65_536 },
  polling: { '*': 1 }, // each status call is to reach the upstream
  upstream: { connectMs: 500, headersMs: patienceMs, bodyIdleMs: patienceMs, drainMs: 1000 }
})

interface Request {
  readonly method?: string
  readonly token?: string | undefined
  readonly headers?: ReadonlyArray<readonly [name: string, value: string]>
  readonly body?: string
}

/** A request as text: no client library mends it, and no browser's rules keep a header out. */
function requestText (path: string, { method, token, headers = [], body }: Request): string {
  const lines = [...(token === undefined ? [] : [['authorization', `Bearer ${token}`] as const]), ...headers]
  return rawRequest(
    `${method ?? (body === undefined ? 'GET' : 'POST')} ${path}`,
    lines.map(([name, value]) => `${name}: ${value}`),
    body
  )
}

interface Watched {
  readonly program: Program
  readonly origin: string
  readonly folder: string
  /** Every answer so far. */
  readonly answers: readonly RawAnswer[]
  raw (bytes: string): Promise<RawAnswer>
  ask (path: string, request?: Request): Promise<RawAnswer>
  mint (more?: object): Promise<string>
  submit (token: string, model: string, words?: string, input?: object): Promise<RawAnswer>
  status (token: string, model: string, taskId: string): Promise<RawAnswer>
}

interface Outside {
  readonly baseUrl: string
  readonly patienceMs?: number
  readonly env?: Readonly<Record<string, string>>
}

function environment ({ baseUrl, env = {} }: Pick<Outside, 'baseUrl' | 'env'>): Record<string, string> {
  return {
    APIXO_API_KEY: `${canaries.key},${canaries.otherKey}`,
    APIXO_BASE_URL: baseUrl,
    GATEWAY_SESSION_SECRET: canaries.sessionSecret,
    GATEWAY_ISSUER_TOKEN: canaries.issuerToken,
    GATEWAY_STORE: 'sqlite:gateway.db',
    GATEWAY_CONFIG: 'gateway.yaml',
    GATEWAY_ALLOWED_ORIGINS: 'https://app.test',
    PORT: '0',
    LOG_LEVEL: 'trace',
    ...env
  }
}

/** A real gateway process whose every word is kept. */
async function watched (t: Test, outside: Outside): Promise<Watched> {
  const folder = t.testdir({ 'gateway.yaml': configWith(outside.patienceMs ?? 20_000) })
  const program = startProgram(t, ['node', '--import', bomb, main], { cwd: folder, env: environment(outside) })
  const [, origin] = await program.says(/listening on (http:\/\/[\d.:]+)/)
  const answers: RawAnswer[] = []

  const raw: Watched['raw'] = async bytes => {
    const answer = await rawHttp(t, origin!, bytes)
    answers.push(answer)
    return answer
  }
  const ask: Watched['ask'] = (path, request = {}) => raw(requestText(path, request))
  return {
    program,
    origin: origin!,
    folder,
    answers,
    raw,
    ask,
    async mint (more = {}) {
      // The one answer that may show a session token is not among those that are searched.
      const body = JSON.stringify({ subject: 'alice', ...more })
      const { text } = await rawHttp(
        t,
        origin!,
        requestText('/gateway/sessions', { token: canaries.issuerToken, body })
      )
      return /"token":"([^"]+)"/.exec(text)![1]!
    },
    submit: (token, model, words = '', input = {}) => ask(`/api/v1/generateTask/${model}`, {
      token, body: JSON.stringify({ request_type: 'async', input: { prompt: `${marker} ${words}`, ...input } })
    }),
    status: (token, model, taskId) => ask(`/api/v1/statusTask/${model}?taskId=${taskId}`, { token })
  }
}

/** A text as it is, in a URL, and in base64 wherever it begins there. */
function forms (text: string): string[] {
  const inBase64 = [0, 1, 2].flatMap(shift => {
    const encoded = Buffer.concat([Buffer.alloc(shift), Buffer.from(text)])
    // The first and the last characters also depend on what stands beside the text.
    const [from, to] = [shift === 0 ? 0 : 4, -4]
    return [encoded.toString('base64').slice(from, to), encoded.toString('base64url').slice(from, to)]
  })
  return [text, encodeURIComponent(text), encodeURI(text), Buffer.from(text).toString('hex'), ...inBase64]
}

/** Both ends of a secret as well: a log that cuts it still gives it away. */
function searchWords (secrets: readonly string[]): string[] {
  return [...new Set(secrets.flatMap(secret => [secret, secret.slice(0, 24), secret.slice(-16)].flatMap(forms)))]
}

function signatureOf (token: string): string {
  return token.split('.')[2]!
}

function found (words: readonly string[], place: string): string[] {
  return words.filter(word => place.includes(word))
}

/** The ledger's bytes, its log included: also what was deleted a moment ago. */
function ledgerBytes (folder: string): string {
  const names = readdirSync(folder).filter(name => name.startsWith('gateway.db'))
  if (!names.includes('gateway.db')) throw new Error('there is no ledger')
  return names.map(name => readFileSync(join(folder, name), 'latin1')).join('\n')
}

/** Result URLs without their scheme and host, and those with. */
function resultWords ({ tasks }: Sandbox): string[] {
  return [...tasks.values()].flatMap(({ resultNames }) => resultNames)
}

function checkSilence (
  t: Test,
  { program, answers }: Watched,
  tokens: readonly string[],
  ledger: string,
  results: readonly string[] = []
): void {
  const secrets = searchWords([...Object.values(canaries), ...tokens.map(signatureOf), ...tokens])
  const prompts = forms(marker)
  const said = answers.map(({ text }) => text).join('\n')
  t.strictSame(found([...secrets, ...prompts, ...results], program.output()), [], 'nothing of it in its output')
  t.strictSame(found([...secrets, ...prompts], said), [], 'nothing of it in its answers')
  t.strictSame(found([...secrets, ...prompts], ledger), [], 'nothing of it in its ledger')
}

async function sandboxFor (t: Test) {
  const time = { now: Date.now() }
  const sandbox = await startSandbox({
    keys: [canaries.key, canaries.otherKey],
    now: () => time.now,
    taskMs,
    // A model of its own for each case: some keep a key from the model for a minute.
    models: sandboxCases.map(({ name }) => name)
  })
  t.teardown(() => sandbox.close())
  return { sandbox, time }
}

t.test('the words that are searched for are found in all their forms', async t => {
  const words = searchWords([canaries.key])
  for (const lead of ['', 'x', 'xy', 'xyz']) {
    const text = `${lead}${canaries.key} and more`
    for (const place of [
      text,
      encodeURIComponent(text),
      Buffer.from(text).toString('base64'),
      Buffer.from(text).toString('base64url')
    ]) {
      t.not(found(words, place).length, 0, place)
    }
  }
  t.not(found(words, `Bearer ${canaries.key.slice(0, 24)}…`).length, 0, 'cut off')
})

t.test('no secret and no prompt shows, whatever the upstream does', async t => {
  const { sandbox, time } = await sandboxFor(t)
  const gateway = await watched(t, { baseUrl: sandbox.origin, patienceMs: 600 })
  const token = await gateway.mint()

  const seen = new Set<string>()
  const run = async ({ name, plan }: SandboxCase): Promise<void> => {
    const before = new Set(sandbox.tasks.keys())
    const submitted = await gateway.submit(token, name, `sandbox:${name}`)
    sandbox.release()
    seen.add(`submit ${submitted.status}`)
    const taskId = /"taskId":"(\w+)"/.exec(submitted.text)?.[1] ?? [...sandbox.tasks.keys()].find(id => !before.has(id))
    if (taskId === undefined) return
    // Running and ended; where the run itself is the case, also halfway.
    for (const wait of plan === undefined ? [0, taskMs] : [0, taskMs / 2, taskMs]) {
      time.now += wait
      const { status } = await gateway.status(token, name, taskId)
      sandbox.release()
      seen.add(`status ${status}`)
    }
  }
  // Last those after which a key rests: there are two of them.
  const rests = ({ name }: SandboxCase) => /^(?:http|code)-429$/.test(name)
  for (const row of [...sandboxCases.filter(row => !rests(row)), ...sandboxCases.filter(rests)]) await run(row)

  const outcomes = [200, 400, 403, 404, 429, 500, 502, 503]
  t.strictSame(
    outcomes.filter(status => !seen.has(`submit ${status}`)),
    [],
    'submits have ended in every way'
  )
  t.strictSame(
    [200, 404, 429, 500, 502, 503, 504].filter(status => !seen.has(`status ${status}`)),
    [],
    'and status calls as well'
  )
  const words = gateway.program.output()
  for (const code of ['GW_UPSTREAM_INVALID', 'GW_UPSTREAM_REFUSED_KEY', 'GW_OUTCOME_UNKNOWN', 'GW_UPSTREAM_TIMEOUT']) {
    t.match(words, code)
  }

  const results = resultWords(sandbox)
  t.ok(results.some(name => gateway.answers.some(({ text }) => text.includes(name))), 'owners were given their results')
  const running = ledgerBytes(gateway.folder)
  gateway.program.child.kill('SIGTERM')
  t.equal(await gateway.program.ended, 0)
  checkSilence(t, gateway, [token], running + ledgerBytes(gateway.folder), results)
})

t.test('no secret and no prompt shows when the upstream refuses every key', async t => {
  const { sandbox } = await sandboxFor(t)
  const gateway = await watched(t, { baseUrl: sandbox.origin })
  const token = await gateway.mint()
  sandbox.revoke(canaries.key)
  sandbox.revoke(canaries.otherKey)
  t.match((await gateway.submit(token, 'suno')).text, 'GW_UPSTREAM_REFUSED_KEY')
  t.match((await gateway.submit(token, 'suno')).text, 'GW_NO_KEY')
  const running = ledgerBytes(gateway.folder)
  gateway.program.child.kill('SIGTERM')
  t.equal(await gateway.program.ended, 0)
  t.match(gateway.program.output(), 'key-benched')
  checkSilence(t, gateway, [token], running + ledgerBytes(gateway.folder))
})

t.test('no secret and no prompt shows, whatever the caller does', async t => {
  const { sandbox } = await sandboxFor(t)
  const gateway = await watched(t, { baseUrl: sandbox.origin })
  const { ask, raw, submit, mint } = gateway
  const [token, poor, rated, narrow, choosy, reader, ended] = await Promise.all([
    mint(),
    mint({ plan: 'poor', subject: 'bob' }),
    mint({ plan: 'rated', subject: 'carol' }),
    mint({ plan: 'narrow', subject: 'dave' }),
    mint({ plan: 'choosy', subject: 'erin' }),
    mint({ scopes: ['tasks:read'] }),
    mint()
  ])
  const tokens = [token!, poor!, rated!, narrow!, choosy!, reader!, ended!]
  const codes: string[] = []
  const expect = async (code: string, asked: Promise<RawAnswer>): Promise<void> => {
    const { text } = await asked
    t.match(text, `x-gateway-error: ${code}\r\n`)
    codes.push(code)
  }
  const prompt = { prompt: marker }
  const body = JSON.stringify({ input: prompt })
  const path = '/api/v1/generateTask/nano-banana'
  const { key, issuerToken, sessionSecret } = canaries
  const [head, payload, signature] = token!.split('.')

  // Tokens that are none.
  await expect('GW_NO_SESSION', ask(path, { body }))
  for (const bad of [
    key,
    issuerToken,
    sessionSecret,
    `${token}x`,
    `${head}.${payload}.`,
    `${head}..${signature}`,
    `x${token}`
  ]) {
    await expect('GW_BAD_SESSION', ask(path, { token: bad, body }))
  }
  await expect('GW_BAD_SESSION', ask(path, { headers: [['authorization', `Basic ${key}`]], body }))
  await expect('GW_BAD_REQUEST', ask(path, { token: token!, headers: [['x-api-key', key]], body }))
  await expect('GW_BAD_REQUEST', ask(path, { token: token!, headers: [['Authorization', `Bearer ${key}`]], body }))
  t.equal((await ask('/gateway/session', { method: 'DELETE', token: ended! })).status, 204)
  await expect('GW_BAD_SESSION', ask('/gateway/session', { token: ended! }))

  // Secrets in the wrong place.
  for (const secret of [key, token!, issuerToken]) {
    const encoded = encodeURIComponent(secret)
    await expect('GW_BAD_REQUEST', ask(`${path}?key=${encoded}`, { token: token!, body }))
    await expect('GW_BAD_REQUEST', ask(`${path}?access_token=${secret}`, { token: token!, body }))
    await expect('GW_BAD_REQUEST', ask(`${path}?token=${secret}`, { token: token!, body }))
    await expect('GW_TASK_NOT_FOUND', ask(`/api/v1/statusTask/nano-banana?taskId=${encoded}`, { token: token! }))
    await expect('GW_BAD_REQUEST', ask(`/api/v1/generateTask/${encoded}`, { token: token!, body }))
    await expect('GW_NOT_FOUND', ask(`/${secret}`, { token: token! }))
    await expect('GW_NOT_FOUND', ask(`/api/v1/${encoded}/%20`, { body }))
    await expect('GW_BAD_REQUEST', ask(`/%zz/${encoded}`))
    await expect('GW_BAD_REQUEST', ask(`/gateway/session#${secret}`))
    await expect(
      'GW_NO_SESSION',
      ask('/gateway/session', {
        headers: [
          ['x-request-id', secret],
          ['origin', `https://${secret}`],
          ['user-agent', secret],
          ['cookie', secret],
          [`x-${encoded}`.replaceAll('%', ''), secret]
        ]
      })
    )
    await expect('GW_BAD_REQUEST', ask(path, { token: token!, body: `{"input":{"prompt":"${secret}" ${marker}` }))
    await expect('GW_BAD_REQUEST', ask(path, { token: token!, body: JSON.stringify({ input: `${marker} ${secret}` }) }))
    await expect(
      'GW_UNSUPPORTED_MEDIA_TYPE',
      ask(path, { token: token!, headers: [['content-type', `text/plain; x=${marker}`]], body: secret })
    )
    await expect(
      'GW_UNSUPPORTED_MEDIA_TYPE',
      ask(path, { token: token!, headers: [['content-encoding', 'gzip']], body: secret })
    )
    await expect('GW_TOO_LARGE', ask(path, { token: token!, body: `${secret}${marker}`.repeat(2000) }))
    await expect('GW_METHOD_NOT_ALLOWED', ask(`${path}?key=${encoded}`, { method: 'TRACE', token: token! }))
    await expect('GW_BAD_REQUEST', raw(`${secret} / HTTP/1.1\r\n\r\n`))
    await expect('GW_BAD_REQUEST', raw(`GET / HTTP/1.1\r\nhost: x\r\n${secret}\r\n\r\n`))
    await expect(
      'GW_BAD_REQUEST',
      raw(`GET / HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${secret}${'x'.repeat(20_000)}\r\n\r\n`)
    )
    await expect(
      'GW_BAD_REQUEST',
      raw(
        `POST ${path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${token}\r\ncontent-type: application/json\r\n` +
          `content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n${secret}`
      )
    )
  }

  // Minting that fails.
  const minted = (value: string, more: Request = {}) =>
    ask('/gateway/sessions', { token: issuerToken, body: value, ...more })
  await expect('GW_BAD_REQUEST', minted(`{"subject":"${issuerToken}`))
  await expect('GW_BAD_REQUEST', minted(JSON.stringify({ subject: '', ttlSeconds: sessionSecret })))
  await expect('GW_BAD_REQUEST', minted(JSON.stringify({ subject: 'alice', ttlSeconds: -1 })))
  await expect('GW_SCOPE_DENIED', ask('/gateway/sessions', { token: token!, body: '{"subject":"alice"}' }))
  await expect('GW_ORIGIN_DENIED', minted('{"subject":"alice"}', { headers: [['origin', 'https://app.test']] }))

  // All that a session may lack.
  await expect('GW_SCOPE_DENIED', submit(reader!, 'nano-banana'))
  await expect('GW_MODEL_DENIED', submit(choosy!, 'nano-banana'))
  await expect('GW_CREDITS_EXHAUSTED', submit(poor!, 'nano-banana'))
  await submit(rated!, 'nano-banana')
  await expect('GW_RATE_LIMITED', submit(rated!, 'nano-banana'))
  await submit(narrow!, 'nano-banana')
  await expect('GW_TOO_MANY_TASKS', submit(narrow!, 'nano-banana'))
  await expect('GW_BAD_REQUEST', submit(token!, 'sora-2', '', { duration: 13 }))
  await expect('GW_TASK_NOT_FOUND', submit(token!, 'grok-video', '', { task_id: key }))
  await expect(
    'GW_CALLBACK_DENIED',
    ask(path, { token: token!, body: JSON.stringify({ input: prompt, callback_url: `https://app.test/${token}` }) })
  )

  // A ledger that somebody else holds.
  const holder = new DatabaseSync(join(gateway.folder, 'gateway.db'))
  holder.exec('BEGIN IMMEDIATE')
  await expect('GW_STORE_DOWN', submit(token!, 'nano-banana'))
  holder.exec('ROLLBACK')
  holder.close()

  // An address that fails too often.
  for (let failures = 0; failures < 200 && !codes.includes('GW_THROTTLED'); failures++) {
    const { text } = await ask('/gateway/session', { token: `${token}x` })
    if (text.includes('GW_THROTTLED')) codes.push('GW_THROTTLED')
  }
  t.ok(codes.includes('GW_THROTTLED'))

  // And an end that nobody planned.
  const running = ledgerBytes(gateway.folder)
  gateway.program.child.kill('SIGUSR2')
  t.equal(await gateway.program.ended, 1)
  t.match(gateway.program.output(), 'nobody catches this')
  checkSilence(t, gateway, tokens, running + ledgerBytes(gateway.folder), resultWords(sandbox))
})

const unreachable = {
  'a name that nobody knows': 'http://nowhere.invalid',
  'a server without TLS': 'https://127.0.0.1',
  'a port where nobody listens': 'http://127.0.0.1:1'
}

for (const [what, url] of Object.entries(unreachable)) {
  t.test(`no secret and no prompt shows when the upstream is ${what}`, async t => {
    const { sandbox } = await sandboxFor(t)
    const baseUrl = url.startsWith('https:') ? `${url}:${new URL(sandbox.origin).port}` : url
    const gateway = await watched(t, { baseUrl, env: { GATEWAY_INSECURE_UPSTREAM: 'true' } })
    const token = await gateway.mint()
    const { text } = await gateway.submit(token, 'nano-banana')
    t.match(text, 'GW_UPSTREAM_UNREACHABLE')
    t.notMatch(text, new URL(baseUrl).host, 'the answer does not name the host')
    t.strictSame(sandbox.submits, [])
    const running = ledgerBytes(gateway.folder)
    gateway.program.child.kill('SIGTERM')
    t.equal(await gateway.program.ended, 0)
    t.match(gateway.program.output(), 'request failed', 'the operator is told why')
    checkSilence(t, gateway, [token], running + ledgerBytes(gateway.folder))
  })
}

const refusals: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  'a secret that is too short': { GATEWAY_SESSION_SECRET: canaries.sessionSecret.slice(0, 24) },
  'a secret with two uses': { GATEWAY_ISSUER_TOKEN: canaries.sessionSecret },
  'a key in place of the name of its file': { APIXO_API_KEY: '', APIXO_API_KEY_FILE: canaries.key },
  'a key in the base URL': { APIXO_BASE_URL: `https://user:${canaries.key}@api.apixo.ai` },
  'a key in the query of the base URL': { APIXO_BASE_URL: `https://api.apixo.ai/?key=${canaries.key}` },
  'a key in the store': { GATEWAY_STORE: `redis://:${canaries.key}@store.example/none` },
  'a key with a line break inside': { GATEWAY_ISSUER_TOKEN: `${canaries.issuerToken}\nmore` }
}

for (const [what, env] of Object.entries(refusals)) {
  t.test(`a start that is refused for ${what} does not show it`, async t => {
    const cwd = t.testdir({ 'gateway.yaml': configWith(20_000) })
    const program = startProgram(t, ['node', main], { cwd, env: environment({ baseUrl: 'http://127.0.0.1:1', env }) })
    t.equal(await program.ended, 78)
    t.match(program.output(), /settings? (?:is|are) wrong/)
    t.strictSame(found(searchWords(Object.values(canaries)), program.output()), [])
  })
}
