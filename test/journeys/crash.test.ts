import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import t, { type Test } from 'tap'
import { type Sandbox, startSandbox } from '../../src/sandbox/sandbox.ts'
import { apiKey, issuerToken } from '../helpers/gateway.ts'
import { gatewayEnvironment, type GatewayProcess, startProcess } from '../helpers/gateway-process.ts'
import { random } from '../helpers/random.ts'
import { until } from '../helpers/until.ts'

const rounds = 10
const submitsPerRound = 100
const subjects = ['alice', 'bob', 'carol', 'dave']
const config = 'plans: { default: { requestsPerMinute: 100000, pollsPerMinute: 100000, concurrentTasks: 100000, credits: 1000000 } }'

interface Submitted { readonly subject: string, readonly taskId: string }

/** What the file holds of a subject, after a restart. */
interface Books { readonly claimed: number, readonly unknown: number, readonly halfDone: number, readonly credits: number }

const dice = random()
t.test(`whenever the process is killed, each submit is charged at most once and each task has its owner (TEST_SEED=${dice.seed})`, { timeout: 100_000 }, async t => {
  const sandbox = await startSandbox({ keys: [apiKey], balanceUsd: 1e6 })
  t.teardown(() => sandbox.close())
  const cwd = t.testdir({ 'gateway.yaml': config })
  const start = () => startProcess(t, { cwd, env: { ...gatewayEnvironment(sandbox.origin), LOG_LEVEL: 'info' } })

  let gateway = await start()
  const tokens = new Map(await Promise.all(subjects.map(async subject => [subject, await mint(gateway.origin, subject)] as const)))
  const reached: Submitted[] = []
  let unknown = 0
  for (let round = 1; round <= rounds; round++) {
    // Counted from what the upstream has accepted or from what callers have been told: the two sides of a claim.
    const count = dice.pick([() => sandbox.tasks.size, () => reached.length])
    const mark = count() + dice.int(submitsPerRound)
    const submits = Array.from({ length: submitsPerRound }, async (_, index) => {
      const subject = subjects[index % subjects.length]!
      const taskId = await submit(gateway.origin, tokens.get(subject)!, `for ${subject}: ${round}/${index}`)
      if (taskId !== undefined) reached.push({ subject, taskId })
    })
    await until(`submits of round ${round} to be under way`, () => count() >= mark)
    gateway.child.kill('SIGKILL')
    t.equal(await gateway.ended, 'SIGKILL')
    await Promise.all(submits)

    gateway = await start()
    unknown = 0
    for (const subject of subjects) {
      const { claimed, unknown: lost, halfDone, credits } = books(join(cwd, 'gateway.db'), subject)
      const accepted = acceptedFor(sandbox, subject)
      t.ok(claimed <= accepted && accepted <= claimed + lost, `${subject}: ${claimed} ≤ ${accepted} ≤ ${claimed} + ${lost}`)
      t.equal(credits, claimed + lost, 'what may have been accepted is charged, once')
      t.equal(halfDone, 0)
      unknown += lost
    }
  }
  await ownersAreKnown(t, gateway, tokens, reached)
  t.comment(`${rounds} rounds, ${rounds * submitsPerRound} submits: ${sandbox.submits.length} reached the upstream, ${sandbox.tasks.size} were accepted, ` +
    `${reached.length} answered, ${unknown} ended unknown`)
  gateway.child.kill('SIGTERM')
  t.equal(await gateway.ended, 0)
})

/** A task id that has reached its caller is the caller's, also after all those deaths. */
async function ownersAreKnown (t: Test, { origin }: GatewayProcess, tokens: ReadonlyMap<string, string>, reached: readonly Submitted[]): Promise<void> {
  t.ok(reached.length > 0)
  const statuses = await Promise.all(reached.map(async ({ subject, taskId }) => {
    const response = await fetch(`${origin}/api/v1/statusTask/nano-banana?taskId=${taskId}`, { headers: { authorization: `Bearer ${tokens.get(subject)}` } })
    await response.body?.cancel()
    return response.status
  }))
  t.same(new Set(statuses), new Set([200]))
}

async function mint (origin: string, subject: string): Promise<string> {
  const response = await fetch(`${origin}/gateway/sessions`, {
    method: 'POST', headers: { authorization: `Bearer ${issuerToken}`, 'content-type': 'application/json' }, body: JSON.stringify({ subject })
  })
  const { token } = await response.json() as { token: string }
  return token
}

/** The task's id, or `undefined` when the connection died under the request. */
async function submit (origin: string, token: string, prompt: string): Promise<string | undefined> {
  try {
    const response = await fetch(`${origin}/api/v1/generateTask/nano-banana`, {
      method: 'POST',
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
      body: JSON.stringify({ request_type: 'async', input: { mode: 'text-to-image', prompt } })
    })
    const { data } = await response.json() as { data: { taskId: string } | null }
    return data?.taskId
  } catch {
    return undefined
  }
}

function acceptedFor ({ tasks }: Sandbox, subject: string): number {
  return [...tasks.values()].filter(({ prompt }) => prompt.startsWith(`for ${subject}:`)).length
}

function books (file: string, subject: string): Books {
  const db = new DatabaseSync(file, { readOnly: true })
  try {
    return db.prepare(`SELECT
        (SELECT count(*) FROM tasks WHERE subject = :subject AND stage IN ('claimed', 'settled')) AS claimed,
        (SELECT count(*) FROM tasks WHERE subject = :subject AND stage = 'unknown') AS unknown,
        (SELECT count(*) FROM tasks WHERE subject = :subject AND stage IN ('reserved', 'sent')) AS halfDone,
        (SELECT coalesce(sum(used), 0) / 1000000 FROM credits WHERE subject = :subject) AS credits`)
      .get({ subject: `app:${subject}` }) as unknown as Books
  } finally {
    db.close()
  }
}
