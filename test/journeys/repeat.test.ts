import t from 'tap'
import { startSandbox } from '../../src/sandbox/sandbox.ts'
import { apiKey } from '../helpers/gateway.ts'
import { gatewayEnvironment, startProcess } from '../helpers/gateway-process.ts'
import { callerOf } from '../helpers/http-caller.ts'
import { random } from '../helpers/random.ts'
import { until } from '../helpers/until.ts'

const rounds = 5
const submitsPerRound = 60
const config =
  'plans: { default: { requestsPerMinute: 100000, pollsPerMinute: 100000, concurrentTasks: 100000, credits: 1000000 } }'

interface Told {
  readonly status: number
  readonly taskId: string | undefined
  readonly error: string | null
}

const dice = random()
t.test(
  `a submit that is repeated with its key after a crash is made once, and its answer found (TEST_SEED=${dice.seed})`,
  { timeout: 100_000 },
  async t => {
    const sandbox = await startSandbox({ keys: [apiKey], balanceUsd: 1e6 })
    t.teardown(() => sandbox.close())
    const cwd = t.testdir({ 'gateway.yaml': config })
    const start = () => startProcess(t, { cwd, env: { ...gatewayEnvironment(sandbox.origin), LOG_LEVEL: 'info' } })

    let gateway = await start()
    const token = await callerOf(gateway.origin).mint('alice')
    const told = new Map<string, Told>()
    const count = { found: 0, again: 0, unknown: 0 }
    for (let round = 1; round <= rounds; round++) {
      const keys = Array.from({ length: submitsPerRound }, (_, index) => `round-${round}-${index}`)
      const mark = sandbox.submits.length + dice.int(submitsPerRound)
      const submits = keys.map(async key => {
        const answer = await submit(gateway.origin, token, key)
        if (answer !== undefined) told.set(key, answer)
      })
      await until(`submits of round ${round} to be under way`, () => sandbox.submits.length >= mark)
      gateway.child.kill('SIGKILL')
      t.equal(await gateway.ended, 'SIGKILL')
      await Promise.all(submits)

      gateway = await start()
      await Promise.all(
        keys.map(async key => {
          const again = await submit(gateway.origin, token, key)
          const first = told.get(key)
          if (first?.status === 200) t.same(again, first, 'who was answered is answered the same')
          if (again?.status === 200) count[first === undefined ? 'found' : 'again']++
          else t.match(again, { status: 502, error: 'GW_OUTCOME_UNKNOWN' })
          if (again?.error === 'GW_OUTCOME_UNKNOWN') count.unknown++
          t.same(await submit(gateway.origin, token, key), again, 'and so it stays')
        })
      )
    }
    const sent = sandbox.submits.map(({ body }) => JSON.parse(String(body)).input.prompt as string)
    t.equal(new Set(sent).size, sent.length, 'no submit has reached the upstream twice')
    t.comment(
      `${rounds * submitsPerRound} submits: ${count.again} answered before and after, ${count.found} found or made afterwards, ${count.unknown} unknown`
    )
    gateway.child.kill('SIGTERM')
    t.equal(await gateway.ended, 0)
  }
)

/** What the caller is told; `undefined` when the connection died under the request. */
function submit (origin: string, token: string, key: string): Promise<Told | undefined> {
  return callerOf(origin)
    .submit(token, key, 'nano-banana', { headers: { 'idempotency-key': key } })
    .then(
      ({ status, json, error }) => ({ status, taskId: json?.data?.taskId, error }),
      () => undefined
    )
}
