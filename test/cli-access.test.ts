import { setTimeout as wait } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { Secret } from '../src/domain/secret.ts'
import { webhookSecret } from '../src/features/callbacks/outbound.ts'
import { startSandbox } from '../src/sandbox/sandbox.ts'
import { openEvents } from './helpers/event-source.ts'
import { gatewayEnvironment, runScript, startProcess } from './helpers/gateway-process.ts'
import { apiKey, sessionSecret } from './helpers/gateway.ts'
import { callerOf } from './helpers/http-caller.ts'
import { redisServer } from './helpers/redis-server.ts'
import { until } from './helpers/until.ts'

const stores: Readonly<Record<string, (t: Test) => Promise<Record<string, string>>>> = {
  'a SQLite file': async () => ({}),
  Redis: async t => ({ GATEWAY_STORE: (await redisServer(t)).url })
}
/** Within this time, ms, what was ended is refused, and its streams close. */
const [refusedMs, closedMs] = [1000, 6000]

/** A gateway that runs, and the command line beside it. */
async function startForSessions (t: Test, more: Readonly<Record<string, string>> = {}) {
  const sandbox = await startSandbox({ keys: [apiKey] })
  t.teardown(() => sandbox.close())
  const cwd = t.testdir({ 'gateway.yaml': 'plans: { default: {} }' })
  const env = { ...gatewayEnvironment(sandbox.origin), ...more }
  const { origin } = await startProcess(t, { cwd, env })
  const { call, mint } = callerOf(origin)
  const status = async (token: string) => (await call('/gateway/session', { token })).status
  return {
    origin,
    status,
    mint,
    isRefused: (token: string) => until('it is refused', async () => await status(token) === 401, refusedMs),
    cli: (...args: readonly string[]) => run(t, cwd, args, env)
  }
}

async function run (t: Test, cwd: string, args: readonly string[], env: Readonly<Record<string, string>> = {}) {
  const program = runScript(t, { cwd, script: 'src/cli.ts', args, env })
  return { code: await program.ended, stdout: program.stdout, stderr: program.stderr }
}

for (const [name, storeOf] of Object.entries(stores)) {
  t.test(
    `sessions that are ended beside a gateway over ${name} are refused within a second, and later ones are not`,
    async t => {
      const { origin, mint, status, isRefused, cli } = await startForSessions(t, await storeOf(t))
      const [one, other, bob] = [await mint('alice'), await mint('alice'), await mint('bob')]
      const streams = await Promise.all([one, bob].map(token => openEvents(t, `${origin}/gateway/events`, { token })))
      t.same([await status(one), await status(other), await status(bob)], [200, 200, 200])

      const ended = await cli('session', 'end', '--subject', 'app:alice')
      const endedAt = performance.now()
      t.match(ended, {
        code: 0,
        stdout:
          /^Ended: all sessions of app:alice until \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC are of no use within a second\.\n$/,
        stderr: ''
      })
      await Promise.all([isRefused(one), isRefused(other)])
      const later = await mint('alice')
      t.same([await status(later), await status(bob)], [200, 200])
      await streams[0]!.over()
      t.ok(performance.now() - endedAt < closedMs, 'the stream has closed')
      t.notOk(streams[1]!.isOver)

      const entries = async (kind: string) =>
        JSON.parse((await cli('audit', '--format', 'json')).stdout).filter((entry: any) => entry.kind === kind)
      const [
        {
          subject,
          detail: { session }
        }
      ] = await entries('mint')
      t.equal(subject, 'app:alice')
      t.strictSame(await cli('session', 'end', session), {
        code: 0,
        stdout: `Ended: session ${session} is of no use within a second.\n`,
        stderr: ''
      })
      await isRefused(later)
      t.equal(await status(bob), 200)
      t.match(await entries('revoke'), [
        { actor: 'cli', subject: null, detail: { session } },
        { actor: 'cli', subject: 'app:alice', detail: { everywhere: true } }
      ])

      const token = (await cli('token', 'create', '--subject', 'carol')).stdout.trim()
      t.equal(await status(token), 200)
      t.equal((await cli('session', 'end', token.split('_')[1]!)).code, 0)
      await isRefused(token)
      t.match((await cli('token', 'list')).stdout, / revoked /)
    })
}

t.test('words that do not say what to end are refused before anything is opened', async t => {
  const cwd = t.testdir({})
  await Promise.all(
    (
      [
        [[], /not the words/],
        [['stop', 'x'], /with sessions is: end/],
        [['end'], /Say which: --subject SUBJECT/],
        [['end', 'one', '--subject', 'app:alice'], /Say which/],
        [['end', 'one', 'two'], /not the words/],
        [['end', '--subject', 'alice'], /stored form, issuer and name: app:alice\./],
        [['end', 'app:alice'], /name it as subject/],
        [['end', 'apx_abcdefghijk_secret'], /never its token/],
        [['end', '--all'], /Unknown option/]
      ] as const
    ).map(async ([args, why]) => {
      const { code, stdout, stderr } = await run(t, cwd, ['session', ...args])
      t.same([code, stdout], [64, ''], args.join(' '))
      t.match(stderr, why)
      t.match(stderr, /\n\nUsage: apixo-gateway session end --subject SUBJECT\n/)
    })
  )
})

t.test('the help names it, and says how long it takes', async t => {
  const cwd = t.testdir({})
  t.match(await run(t, cwd, ['--help']), {
    code: 0,
    stdout: /\n {2}session {2}ends all sessions of a subject, or one\n/
  })
  t.match(await run(t, cwd, ['session', '--help']), {
    code: 0,
    stdout: /within a second;\n {2}streams that are open close within six\./
  })
})

const config = 'plans: { default: {}, team: { credits: 3, period: month } }'
/** The longest that a running server may go on with what it knows of a token, ms. */
const freshMs = 1000

/** A gateway that runs, and the command line beside it. */
async function startForTokens (t: Test, more: Readonly<Record<string, string>> = {}) {
  const sandbox = await startSandbox({ keys: [apiKey] })
  t.teardown(() => sandbox.close())
  const cwd = t.testdir({ 'gateway.yaml': config })
  const env = { ...gatewayEnvironment(sandbox.origin), ...more }
  const { origin } = await startProcess(t, { cwd, env })
  const call = async (path: string, token?: string, body?: object) => {
    const reply = await fetch(origin + path, {
      headers: {
        ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
        'content-type': 'application/json'
      },
      ...(body === undefined ? {} : { method: 'POST', body: JSON.stringify(body) })
    })
    return { status: reply.status, json: await reply.json() as any }
  }
  return { cwd, origin, call, cli: (...args: readonly string[]) => run(t, cwd, ['token', ...args], env) }
}

t.test('tokens are created, listed, rotated and revoked beside a running gateway', async t => {
  const { cli, call } = await startForTokens(t)
  t.strictSame(await cli('list'), { code: 0, stdout: 'There are no tokens.\n', stderr: '' })
  const created = await cli(
    'create',
    '--subject',
    'alice',
    '--plan',
    'team',
    '--ttl',
    '90d',
    '--models',
    'nano*,suno',
    '--scopes',
    'tasks:write,tasks:read'
  )
  t.equal(created.code, 0)
  const token = created.stdout.trim()
  const [, id] = token.split('_')
  t.match(created.stdout, /^apx_[0-9A-Za-z]{11}_[0-9A-Za-z]{49}\n$/, 'alone, for a variable')
  t.match(
    created.stderr,
    new RegExp(
      `^Token ${id} of token:alice, plan team, until \\d{4}-\\d\\d-\\d\\d \\d\\d:\\d\\d:\\d\\d UTC\\. It is not shown again\\.\\n$`
    )
  )

  t.match(await call('/gateway/session', token), {
    status: 200,
    json: { subject: 'token:alice', plan: 'team', models: ['nano*', 'suno'], scopes: ['tasks:write', 'tasks:read'] }
  })
  t.equal(
    (await call('/api/v1/generateTask/nano-banana', token, { input: { mode: 'text-to-image', prompt: 'x' } })).status,
    200
  )

  t.match(
    (await cli('list')).stdout,
    new RegExp(
      `^ID +SUBJECT +STATE +PLAN +UNTIL \\(UTC\\) +LAST USED +SPENT\\n${id} +token:alice +active +team +\\S+ \\S+ +\\d{4}-\\S+ \\S+ +1\\n\\nSpent: `
    )
  )
  t.match(JSON.parse((await cli('list', '--format', 'json')).stdout), [
    { id, state: 'active', spent: 1, models: ['nano*', 'suno'] }
  ])

  const rotated = await cli('rotate', id!)
  const next = rotated.stdout.trim()
  t.match(rotated.stderr, /\nThe secret before is good until \d{4}-/)
  t.same([(await call('/gateway/session', next)).status, (await call('/gateway/session', token)).status], [200, 200])
  const last = (await cli('rotate', id!, '--grace', '0')).stdout.trim()
  await wait(freshMs)
  t.same([(await call('/gateway/session', next)).status, (await call('/gateway/session', last)).status], [401, 200])

  t.strictSame(await cli('revoke', id!), { code: 0, stdout: 'Revoked: it is of no use within a second.\n', stderr: '' })
  await wait(freshMs)
  t.equal((await call('/gateway/session', last)).status, 401)
  t.match((await cli('list')).stdout, / revoked /)
  t.match(await cli('rotate', id!), {
    code: 1,
    stdout: '',
    stderr: `apixo-gateway: ${id} is no token, or has ended.\n`
  })
  t.match(await cli('revoke', 'nobody'), { code: 1, stdout: '', stderr: 'apixo-gateway: nobody is no token.\n' })
})

t.test('an invitation made at the command line is accepted at the running gateway', async t => {
  const { cli, call } = await startForTokens(t, { GATEWAY_PUBLIC_URL: 'https://ai.example' })
  const invited = await cli('invite', '--subject', 'bob', '--ttl', '12h', '--valid', '2d')
  t.match(invited, {
    code: 0,
    stdout: /^https:\/\/ai\.example\/gateway\/invitation#apxi_\w+\n$/,
    stderr: /^Invitation \w{11} of token:bob: whoever opens it first/
  })
  const accepted = await call('/gateway/invitations/accept', undefined, {
    invitation: invited.stdout.trim().split('#')[1]
  })
  t.equal(accepted.status, 201)
  const lastsMs = Date.parse(accepted.json.expiresAt) - Date.now()
  t.ok(lastsMs > 11 * 3_600_000 && lastsMs <= 12 * 3_600_000)
  t.match((await call('/gateway/session', accepted.json.token)).json, { subject: 'token:bob' })
  await cli('create', '--subject', 'carol')
  t.match(await cli('list', '--limit', '1'), { stdout: /token:carol/, stderr: 'There are more: see --limit.\n' })
})

t.test('without our own origin an invitation says what to set', async t => {
  const { cli } = await startForTokens(t)
  t.match(await cli('invite', '--subject', 'bob'), { code: 64, stdout: '', stderr: /GATEWAY_PUBLIC_URL/ })
})

t.test('wrong words are refused before anything is opened', async t => {
  const cwd = t.testdir({})
  await Promise.all(
    (
      [
        [[], /not the words/],
        [['make'], /must be one of create, invite, list, rotate, revoke/],
        [['create'], /--subject NAME/],
        [['create', 'x', '--subject', 'a'], /create takes no ID/],
        [['revoke'], /revoke needs the ID/],
        [['list', '--ttl', '1d'], /list has no option --ttl/],
        [['create', '--subject', 'a', '--ttl', '90'], /--ttl must be a time such as 90d/],
        [['create', '--subject', 'a', '--valid', '1d'], /no option --valid/],
        [['rotate', 'x', '--grace', '1w'], /--grace must be a time/],
        [['invite', '--subject', 'a', '--valid', 'ever'], /--valid/],
        [['list', '--limit', '0'], /--limit/],
        [['list', '--format', 'xml'], /--format/]
      ] as const
    ).map(async ([args, why]) => {
      const { code, stdout, stderr } = await run(t, cwd, ['token', ...args])
      t.same([code, stdout], [64, ''], args.join(' '))
      t.match(stderr, why)
      t.match(stderr, /\n\nUsage: apixo-gateway token create /)
    })
  )
})

t.test('a wish that the settings do not permit is refused, with what to change', async t => {
  const { cli } = await startForTokens(t)
  await Promise.all(
    (
      [
        [['--plan', 'gold'], /There is no plan "gold": plans are "default", "team"/],
        [['--ttl', '91d'], /90 days.*sessions\.maxTtlSeconds/],
        [['--scopes', 'root'], /scopes/]
      ] as const
    ).map(async ([args, why]) => {
      t.match(await cli('create', '--subject', 'alice', ...args), { code: 64, stdout: '', stderr: why }, args.join(' '))
    })
  )
})

async function runWebhookSecret (t: Test, ...args: readonly string[]) {
  const cwd = t.testdir({ 'gateway.yaml': 'plans: { default: {} }' })
  const env = {
    ...gatewayEnvironment('http://127.0.0.1:1'),
    GATEWAY_SESSION_SECRET: `${sessionSecret},an-older-session-secret-of-32-bytes`
  }
  const program = runScript(t, { cwd, script: 'src/cli.ts', args: ['webhook-secret', ...args], env })
  return { code: await program.ended, stdout: program.stdout, stderr: program.stderr }
}

t.test('the secret of a host is printed: that of the newest session secret', async t => {
  const expected = webhookSecret(new Secret(sessionSecret), 'app.example').reveal()
  t.strictSame(await runWebhookSecret(t, 'app.example'), { code: 0, stdout: `${expected}\n`, stderr: '' })
})

t.test('what is no host is refused before any setting is read', async t => {
  for (const word of [
    'https://app.example',
    'app.example:443',
    'App.example',
    'app.example/',
    'a b',
    '*.app.example',
    'user@app.example'
  ]) {
    const { code, stdout, stderr } = await runWebhookSecret(t, word)
    t.equal(code, 64, word)
    t.equal(stdout, '')
    t.match(stderr, 'without scheme, port or path')
  }
  t.equal((await runWebhookSecret(t)).code, 64)
})

t.test('without the settings of the server there is no secret', async t => {
  const program = runScript(t, { cwd: t.testdir({}), script: 'src/cli.ts', args: ['webhook-secret', 'app.example'] })
  t.equal(await program.ended, 78)
})
