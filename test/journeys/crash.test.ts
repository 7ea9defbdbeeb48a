import { join } from 'node:path'
import { setImmediate as nextTurn } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { creditsFrom, type Hold } from '../../src/domain/ledger.ts'
import type { Store } from '../../src/domain/store.ts'
import { systemClock } from '../../src/domain/time.ts'
import { type Sandbox, startSandbox } from '../../src/sandbox/sandbox.ts'
import { loadSettings } from '../../src/settings.ts'
import { openStore } from '../../src/stores.ts'
import { gatewayEnvironment, type GatewayProcess, startProcess } from '../helpers/gateway-process.ts'
import { apiKey } from '../helpers/gateway.ts'
import { callerOf } from '../helpers/http-caller.ts'
import { pagesOf } from '../helpers/pages.ts'
import { random } from '../helpers/random.ts'
import { redisServer } from '../helpers/redis-server.ts'
import { until } from '../helpers/until.ts'

/** `CRASH_ROUNDS=20 CRASH_SUBMITS=500` for a long look. */
const rounds = Number(process.env.CRASH_ROUNDS ?? 5)
const submitsPerRound = Number(process.env.CRASH_SUBMITS ?? 100)
const timeout = 60_000 + rounds * submitsPerRound * 20
const subjects = ['alice', 'bob', 'carol', 'dave']
/** Short waits upstream make short leases: what a dead replica has left behind is unknown after 18 s. */
const config = `
plans: { default: { requestsPerMinute: 100000, pollsPerMinute: 100000, concurrentTasks: 100000, credits: 1000000, period: month, pool: team } }
pools: { team: { ceilings: { none: 1000000 }, concurrentTasks: 100000 } }
gateway: { ceilings: { none: 1000000 } }
upstream: { connectMs: 1000, headersMs: 1000, bodyIdleMs: 1000 }
`

const above: readonly Hold[] = [
  { account: 'gateway', window: 'none', endsAt: null, limit: 1 },
  { account: 'pool:team', window: 'none', endsAt: null, limit: 1 }
]

interface Submitted { readonly subject: string, readonly taskId: string }

/** What the ledger has of a subject. */
interface Books {
  readonly claimed: number
  readonly unknown: number
  /** Reserved or sent. */
  readonly halfDone: number
  readonly credits: number
}

interface Replicas {
  readonly all: GatewayProcess[]
  readonly start: () => Promise<GatewayProcess>
  readonly store: Store
}

const dice = random()
t.test(
  `on SQLite: whenever the process is killed, each submit is charged at most once and each task has its owner (TEST_SEED=${dice.seed})`,
  { timeout },
  async t => {
    const cwd = t.testdir({ 'gateway.yaml': config })
    await killAndLook(t, cwd, `sqlite:${join(cwd, 'gateway.db')}`, 1)
  }
)

t.test(
  `on Redis: whenever one of three replicas is killed, the same (TEST_SEED=${dice.seed})`,
  { timeout },
  async t => {
    const { url } = await redisServer(t, { appendonly: true })
    await killAndLook(t, t.testdir({ 'gateway.yaml': config }), url, 3)
  }
)

async function killAndLook (t: Test, cwd: string, storeUrl: string, replicaCount: number): Promise<void> {
  const sandbox = await startSandbox({ keys: [apiKey], balanceUsd: 1e6 })
  t.teardown(() => sandbox.close())
  const { all, start, store } = await startReplicas(
    t,
    cwd,
    { ...gatewayEnvironment(sandbox.origin), GATEWAY_STORE: storeUrl },
    replicaCount
  )
  const tokens = new Map(
    await Promise.all(subjects.map(async subject => [subject, await callerOf(all[0]!.origin).mint(subject)] as const))
  )
  const reached: Submitted[] = []

  for (let round = 1; round <= rounds; round++) {
    // Counted from what the upstream has accepted or from what callers have been told: the two sides of a claim.
    const count = dice.pick([() => sandbox.tasks.size, () => reached.length])
    const mark = count() + dice.int(submitsPerRound * 3 / 4)
    const submits = Array.from({ length: submitsPerRound }, async (_, index) => {
      const subject = subjects[index % subjects.length]!
      const taskId = await submit(
        all[index % all.length]!.origin,
        tokens.get(subject)!,
        `for ${subject}: ${round}/${index}`
      )
      if (taskId !== undefined) reached.push({ subject, taskId })
    })
    await until(`submits of round ${round} to be under way`, () => count() >= mark)
    const victim = dice.int(all.length)
    all[victim]!.child.kill('SIGKILL')
    t.equal(await all[victim]!.ended, 'SIGKILL')
    await Promise.all(submits)
    all[victim] = await start()
    for (const subject of subjects) holdBooks(t, await books(store, subject), acceptedFor(sandbox, subject), subject)
    const usedAbove = await creditsAbove(store)
    t.ok(usedAbove.every(used => used >= sandbox.tasks.size), `${usedAbove} above ≥ ${sandbox.tasks.size} accepted`)
    t.same((await store.books.verify(nextTurn)).faults, [], 'the books agree, whatever was cut off')
  }

  await until(
    'leases to end',
    async () =>
      (await Promise.all(subjects.map(subject => books(store, subject)))).every(({ halfDone }) => halfDone === 0),
    60_000
  )
  const last = await Promise.all(subjects.map(async subject => ({ subject, ...(await books(store, subject)) })))
  for (const { subject, ...its } of last) {
    holdBooks(t, its, acceptedFor(sandbox, subject), subject)
    t.equal(its.credits, its.claimed + its.unknown, 'what may have been accepted is charged, once')
  }
  const credits = last.reduce((sum, { credits }) => sum + credits, 0)
  await until('the accounts above to have what their subjects have', async () =>
    (await creditsAbove(store)).every(used => used === credits), 60_000)
  t.match(await store.books.verify(nextTurn), { subjects: subjects.length, count: 0, skipped: 0 })
  await ownersAreKnown(t, all[0]!, store, tokens, reached)
  t.comment(
    `${rounds} kills, ${rounds * submitsPerRound} submits: ${sandbox.submits.length} reached the upstream, ${sandbox.tasks.size} were accepted, ` +
      `${reached.length} answered, ${last.reduce((sum, { unknown }) => sum + unknown, 0)} ended unknown`
  )
  for (const { child, ended } of all) {
    child.kill('SIGTERM')
    t.equal(await ended, 0)
  }
}

async function startReplicas (t: Test, cwd: string, env: Record<string, string>, count: number): Promise<Replicas> {
  const start = () => startProcess(t, { cwd, env: { ...env, LOG_LEVEL: 'info' } })
  const all = await Promise.all(Array.from({ length: count }, start))
  const store = await openStore(loadSettings({ cwd, env }), systemClock, 'operator')
  t.teardown(() => store.close())
  return { all, start, store }
}

function holdBooks (t: Test, { claimed, unknown, halfDone }: Books, accepted: number, subject: string): void {
  t.ok(
    claimed <= accepted && accepted <= claimed + unknown + halfDone,
    `${subject}: ${claimed} charged ≤ ${accepted} accepted ≤ ${claimed} + ${unknown} unknown + ${halfDone} under a lease`
  )
}

async function books ({ records, accounts }: Store, subject: string): Promise<Books> {
  const name = `app:${subject}`
  const stages = { claimed: 0, settled: 0, unknown: 0, reserved: 0, sent: 0 }
  for await (const { items } of pagesOf(cursor => records.tasksOf(name, { cursor, limit: 100 }))) {
    for (const { stage } of items) stages[stage]++
  }
  const now = new Date()
  const { used } = await accounts.balanceOf(name, Date.UTC(now.getUTCFullYear(), now.getUTCMonth()))
  const claimed = stages.claimed + stages.settled
  const credits = used / 1_000_000
  return { claimed, unknown: stages.unknown, credits, halfDone: credits - claimed - stages.unknown }
}

async function creditsAbove ({ ceilings }: Store): Promise<readonly number[]> {
  return (await ceilings!.stateOf(above)).map(({ used }) => creditsFrom(used))
}

/**
 * A task id that has reached its caller is the caller's, also after all those deaths: each in the ledger, some by
 * asking.
 */
async function ownersAreKnown (
  t: Test,
  { origin }: GatewayProcess,
  { ledger }: Store,
  tokens: ReadonlyMap<string, string>,
  reached: readonly Submitted[]
): Promise<void> {
  t.ok(reached.length > 0)
  const strangers: Submitted[] = []
  for (const it of reached) if ((await ledger.taskOf(it.taskId))?.subject !== `app:${it.subject}`) strangers.push(it)
  t.same(strangers, [])
  for (const { subject, taskId } of reached.slice(-20)) {
    t.equal((await callerOf(origin).status(tokens.get(subject)!, taskId)).status, 200)
  }
}

/** The task's id, or `undefined` when the connection died under the request. */
function submit (origin: string, token: string, prompt: string): Promise<string | undefined> {
  return callerOf(origin).submit(token, prompt).then(({ json }) => json?.data?.taskId, () => undefined)
}

function acceptedFor ({ tasks }: Sandbox, subject: string): number {
  return [...tasks.values()].filter(({ prompt }) => prompt.startsWith(`for ${subject}:`)).length
}
