import t from 'tap'
import { startSandbox } from '../../src/sandbox/sandbox.ts'
import { gatewayEnvironment, startProcess } from '../helpers/gateway-process.ts'
import { apiKey } from '../helpers/gateway.ts'
import { callerOf } from '../helpers/http-caller.ts'
import { redisServer } from '../helpers/redis-server.ts'

const config = `
plans: { default: { requestsPerMinute: 1000, concurrentTasks: 1000, credits: 1000, pool: team } }
pools: { team: { ceilings: { none: 1 }, concurrentTasks: 1000 } }
gateway: { ceilings: { day: 1000, none: 1000 } }
prices: { "*": 1 }
limits: { addressRequestsPerMinute: 100000 }
`
const subjects = Array.from({ length: 20 }, (_, index) => `user-${index}`)

t.test('of 500 submits of a team with credit for one, at three replicas at once, one reaches the upstream', async t => {
  const { url } = await redisServer(t)
  const sandbox = await startSandbox({ keys: [apiKey], balanceUsd: 1e6 })
  t.teardown(() => sandbox.close())
  const cwd = t.testdir({ 'gateway.yaml': config })
  const env = { ...gatewayEnvironment(sandbox.origin), GATEWAY_STORE: url }
  const replicas = await Promise.all([0, 1, 2].map(() => startProcess(t, { cwd, env })))
  const callers = replicas.map(({ origin }) => callerOf(origin))
  const tokens = await Promise.all(subjects.map(subject => callers[0]!.mint(subject)))

  const all = await Promise.all(Array.from({ length: 500 }, (_, index) =>
    callers[index % callers.length]!.submit(tokens[index % tokens.length]!)))
  t.equal(sandbox.submits.length, 1)
  t.equal(all.filter(({ status }) => status === 200).length, 1)
  const refused = all.filter(({ error }) => error === 'GW_CREDITS_EXHAUSTED')
  t.equal(refused.length, 499)
  t.ok(refused.every(({ json }) => json.error.level === 'pool' && json.error.resetsAt === null))
})
