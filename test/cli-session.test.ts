import t, { type Test } from 'tap'
import { startSandbox } from '../src/sandbox/sandbox.ts'
import { openEvents } from './helpers/event-source.ts'
import { apiKey } from './helpers/gateway.ts'
import { gatewayEnvironment, runScript, startProcess } from './helpers/gateway-process.ts'
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
async function start (t: Test, more: Readonly<Record<string, string>> = {}) {
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
      const { origin, mint, status, isRefused, cli } = await start(t, await storeOf(t))
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
