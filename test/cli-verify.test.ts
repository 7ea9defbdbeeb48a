import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import t, { type Test } from 'tap'
import { latestVersion } from '../src/adapters/sqlite/migrations.ts'
import { report } from '../src/cli/verify.ts'
import { startSandbox } from '../src/sandbox/sandbox.ts'
import { gatewayEnvironment, runScript, startProcess } from './helpers/gateway-process.ts'
import { apiKey } from './helpers/gateway.ts'
import { callerOf } from './helpers/http-caller.ts'
import { redisServer } from './helpers/redis-server.ts'

const config = `
plans:
  default:
    { requestsPerMinute: 100000, concurrentTasks: 100000, credits: 100000, period: month, pool: team, ceilings: { hour: 90000 } }
pools: { team: { ceilings: { day: 90000, month: 90000 }, concurrentTasks: 1000, zone: Asia/Kathmandu } }
gateway: { ceilings: { none: 90000 }, concurrentTasks: 1000 }
`

interface Place {
  readonly env: Readonly<Record<string, string>>
  /** One more credit of Alice's month is used. */
  readonly corrupt: (cwd: string) => Promise<unknown>
}

const month = () => Date.UTC(new Date().getUTCFullYear(), new Date().getUTCMonth())
const stores: Readonly<Record<string, (t: Test) => Promise<Place>>> = {
  'a SQLite file': async () => ({
    env: {},
    async corrupt (cwd) {
      const db = new DatabaseSync(join(cwd, 'gateway.db'), { timeout: 5000 })
      db.exec(`INSERT INTO credits VALUES ('app:alice', ${month()}, 1000000, 0)
        ON CONFLICT DO UPDATE SET used = used + 1000000`)
      db.close()
    }
  }),
  Redis: async t => {
    const { url, admin } = await redisServer(t)
    const corrupt = () => admin.hincrby(`gw:{/app:alice}:period:${month()}`, 'used', 1_000_000)
    return { env: { GATEWAY_STORE: url }, corrupt }
  }
}

type Environment = Readonly<Record<string, string>>

const verifying = (t: Test, cwd: string, env: Environment) => async (...args: readonly string[]) => {
  const program = runScript(t, { cwd, script: 'src/cli.ts', args: ['verify', ...args], env })
  return { code: await program.ended, stdout: program.stdout, stderr: program.stderr }
}

for (const [name, open] of Object.entries(stores)) {
  const title = `beside a gateway in use over ${name}, verify finds nothing while all is well, and then what is not`
  t.test(title, { timeout: 90_000 }, async t => {
    const { env, corrupt } = await open(t)
    const sandbox = await startSandbox({ keys: [apiKey], taskMs: 200 })
    t.teardown(() => sandbox.close())
    const cwd = t.testdir({ 'gateway.yaml': config })
    const settings = { ...gatewayEnvironment(sandbox.origin), ...env }
    const caller = callerOf((await startProcess(t, { cwd, env: settings })).origin)
    const verify = verifying(t, cwd, settings)
    const tokens = await Promise.all(['alice', 'bob', 'carol'].map(subject => caller.mint(subject)))

    const load = { isOver: false }
    const loaded = Promise.all([...tokens, ...tokens].map(async token => {
      for (let count = 0; !load.isOver && count < 200; count++) {
        const { json } = await caller.submit(token)
        await caller.status(token, json.data.taskId)
      }
    }))
    for (let time = 0; time < 2; time++) {
      t.match(await verify(), { code: 0, stdout: /^The books of 3 subjects and \d+ tasks agree\.\n$/, stderr: '' })
    }
    load.isOver = true
    await loaded

    await corrupt(cwd)
    const { code, stdout } = await verify()
    t.equal(code, 1)
    t.match(stdout, /^app:alice: of its period since \S+ [\d.]+ credits are used, and its tasks come to [\d.]+\. What it may .*\n1 fault in the books of 3 subjects and \d+ tasks\.\n$/)
    const json = await verify('--json')
    t.equal(json.code, 1)
    t.match(JSON.parse(json.stdout), {
      subjects: 3,
      skipped: 0,
      count: 1,
      faults: [{ kind: 'period', subject: 'app:alice', problem: /of its period/, remedy: /^What it may/ }]
    })
  })
}

t.test('a store that can not be read is neither right nor wrong: 69, and why', { timeout: 60_000 }, async t => {
  const cwd = t.testdir({ 'gateway.yaml': config })
  const verify = verifying(t, cwd, gatewayEnvironment('http://127.0.0.1:1'))
  const none = await verify()
  t.match(none, { code: 69, stdout: '', stderr: /gateway\.db can not be opened: there is no such file.*\nThis command needs the settings/ })
  writeFileSync(join(cwd, 'gateway.db'), 'This is no database, and was never one. '.repeat(100))
  t.match(await verify(), { code: 69, stderr: /file is not a database/ })
  rmSync(join(cwd, 'gateway.db'))
  const empty = new DatabaseSync(join(cwd, 'gateway.db'))
  empty.exec(`PRAGMA user_version = ${latestVersion}`)
  empty.close()
  t.match(await verify(), { code: 69, stderr: /no such table/ }, 'nor one whose tables are gone')
  const down = verifying(t, cwd, { ...gatewayEnvironment('http://127.0.0.1:1'), GATEWAY_STORE: 'redis://127.0.0.1:1' })
  t.match(await down(), { code: 69, stdout: '', stderr: /ECONNREFUSED/ })
  rmSync(join(cwd, 'gateway.yaml'))
  t.match(await verify(), { code: 78, stdout: '', stderr: /gateway\.yaml/ })
  t.match(await verify('everything'), { code: 64 })
})

t.test('what is left out is said, and what are too many to be told', t => {
  const faults = [{ kind: 'owner', subject: null, problem: 'task \u001b1 is of no subject' }] as const
  t.equal(report({ subjects: 2, tasks: 3, skipped: 1, count: 7, faults }), `task \uFFFD1 is of no subject. \
Nobody can read that task: bring back the store from a copy, or tell its caller.
1 subjects were busy all the time, and are left out: run it again.
And 6 more.
7 faults in the books of 2 subjects and 3 tasks.
`)
  t.end()
})
