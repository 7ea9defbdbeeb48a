import { mkdtempSync, rmSync } from 'node:fs'
import { loadavg, tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { load } from './load.ts'
import { pinned, pinSelf, type Running } from './process.ts'
import { report, type Measured, type Measurements } from './report.ts'
import { startStores } from './stores.ts'
import { direct, gateway, hasNginx, httpProxy, nginx, raw, startUpstream, type Stage, type Target } from './targets.ts'

/**
 * `npm run bench [-- --quick | --rounds N --seconds N]`: the gateway beside its peers, interleaved, in one run. With
 * `--stores [--tasks N]` it is the gateway beside itself: without a ledger, and with each of those it can have. With
 * `--beside DIR` it is this checkout beside another one, whose packages are installed: what a change costs.
 * Only the ratios last: absolute numbers are this machine's, at this moment.
 */
const scenarios = {
  submit: { shots: 'submit', connections: 32, expect: 200 },
  status: { shots: 'status', connections: 32, expect: 200 },
  refused: { shots: 'refused', connections: 32, expect: 401 },
  alone: { shots: 'submit', connections: 1, expect: 200 }
} as const

type ScenarioName = keyof typeof scenarios

interface Plan {
  readonly rounds: number
  readonly seconds: number
  readonly warmUpSeconds: number
  /** Compare stores: how many tasks the full one has. `null`: compare peers. */
  readonly tasks: number | null
  /** Compare with the gateway of this checkout. `null`: compare peers. */
  readonly beside: string | null
}

function readPlan (): Plan {
  const { values } = parseArgs({
    options: {
      quick: { type: 'boolean' },
      stores: { type: 'boolean' },
      beside: { type: 'string' },
      rounds: { type: 'string' },
      seconds: { type: 'string' },
      tasks: { type: 'string' }
    }
  })
  const positive = (name: 'rounds' | 'seconds' | 'tasks', otherwise: number) => {
    const value = Number(values[name] ?? otherwise)
    if (!(value > 0)) throw new Error(`--${name} wants a number above 0`)
    return value
  }
  const tasks = values.stores ? positive('tasks', values.quick ? 1000 : 1_000_000) : null
  const compared = { tasks, beside: values.beside === undefined ? null : resolve(values.beside) }
  return values.quick
    ? { ...compared, rounds: 1, seconds: 0.5, warmUpSeconds: 0.1 }
    : { ...compared, rounds: Math.ceil(positive('rounds', 5)), seconds: positive('seconds', 4), warmUpSeconds: 2 }
}

async function main (): Promise<void> {
  const plan = readPlan()
  const folder = mkdtempSync(join(tmpdir(), 'apixo-gateway-bench-'))
  const running: Running[] = []
  const cleanUp = async () => {
    await Promise.all(running.splice(0).map(program => program.stop()))
    rmSync(folder, { recursive: true, force: true })
  }
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => { cleanUp().finally(() => process.exit(1)) })
  }
  const busy = loadavg()[0]!
  if (busy > 0.5) console.log(`other programs are running (load average ${busy.toFixed(1)}): trust cpu µs, not req/s`)
  pinSelf()
  try {
    const targets = await startAll(folder, running, plan)
    console.log(
      `${plan.rounds} round(s) of ${plan.seconds} s; ` +
        (pinned()
          ? 'gateway and peers on one processor, load and upstream on another'
          : 'NOT pinned to processors (no taskset, or one processor)') +
        (hasNginx() ? '' : '; without nginx, which is not installed')
    )
    const measurements = await measureAll(targets, plan)
    const starts = targets.map(({ name, readySeconds, idleBytes, residentBytes }) =>
      ({ name, readySeconds, idleBytes, afterBytes: residentBytes() }))
    console.log(report(measurements, starts, basesOf(plan)))
  } finally {
    await cleanUp()
  }
}

/** What the others are divided by. */
function basesOf ({ tasks, beside }: Plan): [string, ...string[]] {
  if (tasks !== null) return ['no ledger']
  return beside === null ? ['raw', 'http-proxy'] : ['beside', 'raw']
}

async function startAll (folder: string, running: Running[], { tasks, beside }: Plan): Promise<Target[]> {
  const upstream = await startUpstream(folder)
  running.push(upstream)
  const stage: Stage = {
    folder,
    upstreamPort: upstream.port,
    started: program => { running.push(program); return program }
  }
  if (tasks !== null) return await startStores(stage, tasks)
  if (beside !== null) {
    const other = { name: 'beside', script: join(beside, 'src/main.ts') }
    return [direct(upstream), await raw(stage), await gateway(stage), await gateway(stage, other)]
  }
  const targets = [direct(upstream), await raw(stage), await httpProxy(stage), await gateway(stage)]
  if (hasNginx()) targets.push(await nginx(stage))
  return targets
}

async function measureAll (targets: readonly Target[], plan: Plan): Promise<Measurements> {
  const measurements: Measurements = new Map()
  const each = async (use: (scenario: ScenarioName, target: Target) => Promise<void>) => {
    for (const scenario of Object.keys(scenarios) as ScenarioName[]) {
      for (const target of targets) if (takesPart(scenario, target)) await use(scenario, target)
    }
  }
  await each(async (scenario, target) => { await measure(scenario, target, plan.warmUpSeconds) })
  for (let round = 1; round <= plan.rounds; round++) {
    await each(async (scenario, target) => {
      const key = `${scenario} ${target.name}` as const
      measurements.set(key, [...measurements.get(key) ?? [], await measure(scenario, target, plan.seconds)])
    })
    if (plan.rounds > 1) console.log(`round ${round} of ${plan.rounds} done`)
  }
  return measurements
}

/** The upstream alone is only asked at one connection: with 32 it shares its processor with the load. */
function takesPart (scenario: ScenarioName, target: Target): boolean {
  if (target.name === 'direct') return scenario === 'alone'
  return target[scenarios[scenario].shots] !== undefined
}

async function measure (scenario: ScenarioName, target: Target, seconds: number): Promise<Measured> {
  const { shots, connections, expect } = scenarios[scenario]
  const before = target.cpuMicros()
  try {
    const result = await load({ port: target.port, shots: target[shots]!, connections, seconds, expect })
    return {
      perSecond: result.requests / result.seconds,
      p50Ms: result.p50Ms,
      p99Ms: result.p99Ms,
      cpuMicros: (target.cpuMicros() - before) / result.requests
    }
  } catch (error) {
    throw new Error(`${target.name}, ${scenario}: ${error instanceof Error ? error.message : error}`, { cause: error })
  }
}

try {
  await main()
} catch (error) {
  console.error(error)
  process.exitCode = 1
}
