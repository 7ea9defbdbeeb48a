import { setTimeout as wait } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { startSandbox } from '../src/sandbox/sandbox.ts'
import { apiKey } from './helpers/gateway.ts'
import { gatewayEnvironment, runScript, startProcess } from './helpers/gateway-process.ts'

const config = 'plans: { default: {}, team: { credits: 3, period: month } }'
/** The longest that a running server may go on with what it knows of a token, ms. */
const freshMs = 1000

/** A gateway that runs, and the command line beside it. */
async function start (t: Test, more: Readonly<Record<string, string>> = {}) {
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

async function run (t: Test, cwd: string, args: readonly string[], env: Readonly<Record<string, string>> = {}) {
  const program = runScript(t, { cwd, script: 'src/cli.ts', args, env })
  return { code: await program.ended, stdout: program.stdout, stderr: program.stderr }
}

t.test('tokens are created, listed, rotated and revoked beside a running gateway', async t => {
  const { cli, call } = await start(t)
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
  const { cli, call } = await start(t, { GATEWAY_PUBLIC_URL: 'https://ai.example' })
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
  const { cli } = await start(t)
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
  const { cli } = await start(t)
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
