import { truncateSync, unlinkSync, writeFileSync } from 'node:fs'
import { setTimeout as wait } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { Secret } from '../../src/domain/secret.ts'
import { startSandbox } from '../../src/sandbox/sandbox.ts'
import { openEvents, streamsAcross } from '../helpers/event-source.ts'
import { adminToken, apiKey, issuerToken, sessionSecret, startGateway, type TestGateway } from '../helpers/gateway.ts'
import { gatewayEnvironment, runScript, startProcess } from '../helpers/gateway-process.ts'
import { load } from '../helpers/load.ts'
import { secretFiles } from '../helpers/secret-files.ts'
import { until } from '../helpers/until.ts'

const print = (secret: string) => new Secret(secret).fingerprint
const [key1, key2, key3] = [apiKey, 'apixo-key-of-the-operator-0002', 'apixo-key-of-the-operator-0003'] as const
const newSecret = 'another-session-secret-of-32-bytes-and-more'
/** Longer than it takes on a machine with much else to do, ms. */
const soonMs = 5000

/** Nobody asks how the tasks are, so that each keeps its slot. */
const config = 'plans: { default: { requestsPerMinute: 1000000, concurrentTasks: 1000000, credits: unlimited } }'

/** A gateway whose secrets are in files. */
async function withFiles (t: Test) {
  const files = secretFiles(t, {
    APIXO_API_KEY: `${key1}\n`,
    GATEWAY_SESSION_SECRET: `${sessionSecret}\n`,
    GATEWAY_ISSUER_TOKEN: issuerToken,
    GATEWAY_ADMIN_TOKEN: `${adminToken}\n`
  })
  const gateway = await startGateway(t, {
    config,
    env: files.env,
    keys: [],
    sandbox: { keys: [key1, key2, key3], taskMs: 0 }
  })
  const states = async (token = adminToken) =>
    new Map((await gateway.call('/gateway/admin/keys', { token })).json.map((row: any) => [row.keyId, row.state]))
  const { length: before } = gateway.log
  /** Resolves when the log has told of a setting's file, once more than before. */
  const told = async (setting: string, what = 'a file with a secret was read again') => {
    const count = () =>
      gateway.log.slice(before).filter(line => line.setting === setting && line.msg.startsWith(what)).length
    const earlier = count()
    return () => until(`${setting}: ${what}`, () => count() > earlier, 5000)
  }
  return { ...gateway, files, states, told }
}

function lastKeys ({ sandbox }: TestGateway, count = 5): string[] {
  return [...new Set([...sandbox.tasks.values()].slice(-count).map(({ key }) => key))]
}

t.test('keys rotate under load, and not one submit fails', async t => {
  const gateway = await withFiles(t)
  const { submit, status, mint, sandbox, files, states, log } = gateway
  const token = await mint('alice')
  const callers = load(6, () => submit(token))
  await callers.more()
  const oldTask = callers.replies[0]!.json.data.taskId

  // A second key beside the first, then the second alone, then the first is revoked: as one rotates.
  files.rotate('APIXO_API_KEY', `${key1},${key2}\n`)
  await until('both serve', () => lastKeys(gateway).length === 2, soonMs)
  const start = performance.now()
  files.rotate('APIXO_API_KEY', key2)
  await until('only the second serves', () => lastKeys(gateway).join() === key2, soonMs)
  t.comment(`${Math.round(performance.now() - start)} ms from the rename to the last submit with the old key`)
  t.same([...await states()], [[print(key1), 'draining'], [print(key2), 'ready']])
  t.equal((await status(token, oldTask)).json.data.state, 'success', 'the first still answers for its tasks')
  sandbox.revoke(key1)
  await callers.more(50)

  // From one key to the next in one go, written in place.
  writeFileSync(files.path('APIXO_API_KEY'), key3)
  await until('the third serves', () => lastKeys(gateway).join() === key3, soonMs)
  sandbox.revoke(key2)
  await callers.more(50)

  // And back.
  sandbox.restore(key1)
  files.rotate('APIXO_API_KEY', key1)
  await until('the first serves', () => lastKeys(gateway).join() === key1, soonMs)
  await callers.end()
  t.same(callers.failed(), [])
  t.equal(sandbox.tasks.size, callers.replies.length, 'and none was made twice')
  t.same(log.filter(line => line.level >= 50), [])
  t.comment(`${callers.replies.length} submits`)
})

t.test(
  'a key that is revoked before it is taken out fails nobody while another serves, and comes back as it was',
  async t => {
    const gateway = await withFiles(t)
    const { submit, mint, sandbox, files, states, time } = gateway
    files.rotate('APIXO_API_KEY', `${key1}\n${key2}`)
    const token = await mint('alice')
    const callers = load(6, () => submit(token))
    await until('both serve', () => lastKeys(gateway).length === 2, soonMs)
    sandbox.revoke(key1)
    await callers.more()
    files.rotate('APIXO_API_KEY', key2)
    await until('the first drains', async () => (await states()).get(print(key1)) === 'draining', soonMs)
    sandbox.restore(key1)
    files.rotate('APIXO_API_KEY', `${key1},${key2}`)
    await until('it is back', async () => (await states()).get(print(key1)) === 'benched', soonMs)
    await callers.more()
    time.advance(10_000)
    await until('it has been asked about', async () => (await states()).get(print(key1)) === 'ready')
    await callers.more()
    await callers.end()
    t.equal(lastKeys(gateway).length, 2)
    t.same(callers.failed(), [])
  }
)

t.test(
  'a submit that is on its way when its key is taken out is answered, and so are questions about its task',
  async t => {
    const { submit, status, mint, sandbox, files, states } = await withFiles(t)
    const token = await mint('alice')
    const answer = submit(token, 'sandbox:slow-headers')
    await until('the upstream has it', () => sandbox.waiting === 1)
    files.rotate('APIXO_API_KEY', key2)
    await until('its key drains', async () => (await states()).get(print(key1)) === 'draining', soonMs)
    sandbox.release()
    const { status: code, json } = await answer
    t.equal(code, 200)
    t.equal(sandbox.tasks.get(json.data.taskId)?.key, key1)
    t.equal((await status(token, json.data.taskId)).json.data.state, 'success')
  }
)

t.test('whatever happens to the file, the keys that were read before serve', async t => {
  const gateway = await withFiles(t)
  const { submit, mint, files, log, told } = gateway
  const token = await mint('alice')
  const callers = load(4, () => submit(token))
  const path = files.path('APIXO_API_KEY')
  const troubles: ReadonlyArray<readonly [problem: string, befall: () => void]> = [
    ['holds no value', () => truncateSync(path)],
    ['is a sample or a known default', () => writeFileSync(path, 'your-api-key')],
    ['has the value of GATEWAY_ISSUER_TOKEN', () => files.rotate('APIXO_API_KEY', issuerToken)],
    ['can not be read (ENOENT)', () => unlinkSync(path)]
  ]
  for (const [problem, befall] of troubles) {
    befall()
    await until(problem, () => log.some(line => line.alarm === 'secret-file' && line.problem === problem), 5000)
    await callers.more()
  }
  const isReadAgain = await told('APIXO_API_KEY')
  files.rotate('APIXO_API_KEY', key2)
  await isReadAgain()
  await until('the new key serves', () => lastKeys(gateway).join() === key2)
  await callers.end()
  t.same(callers.failed(), [])
  t.match(
    log.filter(line => line.level >= 50),
    troubles.map(([problem]) => ({ alarm: 'secret-file', setting: 'APIXO_API_KEY', source: path, problem })),
    'one alarm each'
  )
})

t.test('session secrets rotate under load: a session lasts as long as the secret that signed it', async t => {
  const gateway = await withFiles(t)
  const { call, mint, files, told, origin } = gateway
  const old = await mint('alice')
  const callers = load(6, async worker => {
    // Some hold the old token, some mint a new one each time.
    const token = worker < 3 ? old : await mint('bob')
    return await call('/gateway/session', { token })
  })
  await callers.more()
  const isRead = await told('GATEWAY_SESSION_SECRET')
  files.rotate('GATEWAY_SESSION_SECRET', `${newSecret}\n${sessionSecret}\n`)
  await isRead()
  await callers.more(50)
  await callers.end()
  t.same(callers.failed(), [])

  const fresh = await mint('alice')
  const streams = await streamsAcross(t, `${origin}/gateway/events`, { old, fresh })
  const isGone = await told('GATEWAY_SESSION_SECRET')
  const newcomers = load(4, () => call('/gateway/session', { token: fresh }))
  files.rotate('GATEWAY_SESSION_SECRET', newSecret)
  await isGone()
  t.match(await call('/gateway/session', { token: old }), { status: 401, error: 'GW_BAD_SESSION' })
  await streams.renewed()
  await newcomers.more()
  await newcomers.end()
  t.same(newcomers.failed(), [])
})

t.test('a further session secret ends no stream', async t => {
  const { mint, files, told, origin } = await withFiles(t)
  const stream = await openEvents(t, `${origin}/gateway/events`, { token: await mint('alice') })
  const isRead = await told('GATEWAY_SESSION_SECRET')
  files.rotate('GATEWAY_SESSION_SECRET', `${newSecret}\n${sessionSecret}\n`)
  await isRead()
  await wait(50)
  t.notOk(stream.isOver)
})

t.test('issuer and admin tokens rotate: the new one opens, the old one no more', async t => {
  const { call, mint, files, states, told } = await withFiles(t)
  await mint('alice')
  t.equal((await states()).size, 1)
  const [newIssuer, newAdmin] = ['issuer-token-of-the-backend-0002', 'admin-token-of-the-operator-0002']
  const readIssuer = await told('GATEWAY_ISSUER_TOKEN')
  const readAdmin = await told('GATEWAY_ADMIN_TOKEN')
  files.rotate('GATEWAY_ISSUER_TOKEN', newIssuer)
  files.rotate('GATEWAY_ADMIN_TOKEN', newAdmin)
  await readIssuer()
  await readAdmin()
  t.match(await call('/gateway/sessions', { token: issuerToken, body: { subject: 'alice' } }), {
    status: 401,
    error: 'GW_BAD_SESSION'
  })
  t.equal((await call('/gateway/sessions', { token: newIssuer, body: { subject: 'alice' } })).status, 201)
  for (const path of ['/gateway/admin/keys', '/metrics']) {
    t.match(await call(path, { token: adminToken }), { status: 401, error: 'GW_BAD_SESSION' }, path)
    t.equal((await call(path, { token: newAdmin })).status, 200, path)
  }
})

t.test('no secret shows in the log of a gateway whose secrets rotate, be it old, new or refused', async t => {
  const sandbox = await startSandbox({ keys: [key1, key2] })
  t.teardown(() => sandbox.close())
  const words = {
    key: 'canary-key-',
    secret: 'canary-session-secret-of-32-bytes-',
    issuer: 'canary-issuer-',
    admin: 'canary-admin-',
    shop: 'canary-secret-of-the-shop-of-32-bytes-',
    turnstile: 'canary-turnstile-'
  }
  const secrets = (generation: string) => ({
    APIXO_API_KEY: `${words.key}${generation},${generation === 'a' ? key1 : key2}`,
    GATEWAY_SESSION_SECRET: words.secret + generation,
    GATEWAY_ISSUER_TOKEN: words.issuer + generation,
    GATEWAY_ADMIN_TOKEN: words.admin + generation,
    shop: words.shop + generation,
    turnstile: words.turnstile + generation
  })
  const files = secretFiles(t, secrets('a'))
  const cwd = t.testdir({
    'gateway.yaml': `
plans: { default: {} }
issuers: [{ issuer: "https://shop.example", audience: app, algorithms: [HS256], secretFile: "${files.path('shop')}" }]
guests: { turnstileSecretFile: "${files.path('turnstile')}" }`
  })
  const env = { ...gatewayEnvironment(sandbox.origin), ...files.env, LOG_LEVEL: 'trace' }
  const program = await startProcess(t, { cwd, env })
  const count = (pattern: RegExp) => program.output().match(pattern)?.length ?? 0
  const rotate = async (all: Readonly<Record<string, string>>, pattern: RegExp) => {
    const before = count(pattern)
    for (const [name, text] of Object.entries(all)) files.rotate(name, text)
    await until(String(pattern), () => count(pattern) === before + 6, 5000)
  }
  const post = (path: string, token: string, body: object) =>
    fetch(program.origin + path, {
      method: 'POST',
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
      body: JSON.stringify(body)
    })
  const submitWith = async (generation: string) => {
    const { token } = (await (
      await post('/gateway/sessions', words.issuer + generation, { subject: 'alice' })
    ).json()) as { token: string }
    // The first key is one that the upstream does not know.
    t.equal((await post('/api/v1/generateTask/suno', token, { input: { prompt: 'x' } })).status, 200)
    return token
  }
  const tokens = [await submitWith('a')]
  await rotate(secrets('b'), /a file with a secret was read again/g)
  tokens.push(await submitWith('b'))
  const audit = runScript(t, { cwd, env, script: 'src/cli.ts', args: ['audit'] })
  t.equal(await audit.ended, 0)
  const [a, b] = [secrets('a'), secrets('b')].map(({ shop }) => print(shop))
  t.match(
    audit.stdout,
    new RegExp(`secret +gateway +-\\n {4}setting=issuers\\[0\\]\\.secretFile inUse=sha256:${b} gone=sha256:${a}\\n`),
    'the audit trail has them'
  )
  t.equal(audit.stdout.match(/ secret +gateway /g)?.length, 6)
  await rotate({
    APIXO_API_KEY: `${words.key}changeme`,
    GATEWAY_SESSION_SECRET: 'canary-short',
    GATEWAY_ISSUER_TOKEN: `${words.issuer} c`,
    GATEWAY_ADMIN_TOKEN: 'canary',
    shop: 'canary-short',
    turnstile: `${words.turnstile} c`
  }, /"alarm":"secret-file"/g)
  tokens.push(await submitWith('b'))
  program.child.kill('SIGTERM')
  t.equal(await program.ended, 0)
  t.match(program.output(), print(words.secret + 'b'), 'fingerprints do')
  t.notMatch(program.output() + audit.output(), /canary/)
  for (const word of [key1, key2, ...tokens, ...tokens.map(token => token.split('.')[2]!)]) {
    t.notOk(program.output().includes(word))
  }
})
