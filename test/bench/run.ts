import { mkdtempSync, rmSync } from 'node:fs'
import { loadavg, tmpdir } from 'node:os'
import { join } from 'node:path'
import { barReport, judge, ours } from './bar.ts'
import { countsReport, measureCounts } from './counts.ts'
import { type Cast, castOf, installPeers, lineUp, lineUpStreams } from './lineup.ts'
import { llmReport, measureLlm } from './llm-streams.ts'
import { measureArcs, measureCases } from './measure.ts'
import { type Plan, readPlan } from './plan.ts'
import { pinned, pinSelf, type Running } from './process.ts'
import { report, sectionsOf } from './report.ts'
import { chartOf, keep } from './results.ts'
import { measureStreams } from './streams.ts'
import { type Stage, startUpstream } from './targets.ts'

/**
 * `npm run bench`: the gateway beside its peers, and beside itself as it was in 0.3.0, interleaved, in one run.
 *
 * - `--bar` measures what the bar asks for, and no more.
 * - `--beside DIR` holds it against another checkout's, whose packages are installed: what a change costs.
 * - `--stores [--tasks N]` holds it against itself without a ledger, and with each of those it can have.
 * - `--ceilings` holds a gateway with a pool and four windows above each subject against one without.
 * - `--llm` holds its streams of LLM calls against raw's: the first byte, what an event costs, memory, and lateness.
 * - `--counts [--beside DIR]` counts the promises, timers and bytes that a request makes.
 * - `--cases a,b`, `--rounds N`, `--seconds N`, `--warm-up N` change what is measured, and for how long.
 * - `--write` keeps what was found in `results.json` and writes `results.md` with its chart, for `--bar` and for all.
 * - `--install` brings the peers' packages; `--quick` says that all of it works, and nothing else.
 *
 * Only the ratios last: absolute numbers are this machine's, at this moment.
 */
async function main (): Promise<void> {
  const plan = readPlan(process.argv.slice(2))
  if (plan.install) installPeers()
  const folder = mkdtempSync(join(tmpdir(), 'apixo-gateway-bench-'))
  const running: Running[] = []
  const cleanUp = async () => {
    await Promise.all(running.splice(0).map(program => program.stop()))
    rmSync(folder, { recursive: true, force: true })
  }
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => { cleanUp().finally(() => process.exit(1)) })
  }
  pinSelf()
  try {
    const upstream = await startUpstream(folder, { FILE_BYTES: String(plan.fileBytes) })
    running.push(upstream)
    const stage: Stage = {
      folder,
      upstreamPort: upstream.port,
      settleSeconds: plan.settleSeconds,
      started: program => { running.push(program); return program }
    }
    const cast = castOf(plan, folder)
    for (const absence of cast.absences) console.log(`without ${absence}`)
    const { comparison, comparison: { kind } } = plan
    if (comparison.kind === 'llm') console.log(llmReport(await measureLlm(stage, cast.ours, comparison, plan)))
    else console.log(kind === 'counts' ? await count(cast, plan, stage) : await measureAll(cast, plan, stage, upstream))
  } finally {
    await cleanUp()
  }
}

async function count ({ beside, former, ours }: Cast, plan: Plan, stage: Stage): Promise<string> {
  const variants = [beside ?? former, ours].filter(variant => variant !== null)
  return countsReport(await measureCounts(stage, variants, plan), plan.cases, variants.map(({ name }) => name))
}

async function measureAll (cast: Cast, plan: Plan, stage: Stage, upstream: Running): Promise<string> {
  const busy = loadavg()[0]!
  if (busy > 0.5) console.log(`other programs are running (load average ${busy.toFixed(1)}): trust cpu µs, not req/s`)
  const targets = await lineUp(cast, plan, stage, upstream)
  console.log(`${plan.rounds} round(s) of ${plan.seconds} s; ` + (pinned()
    ? 'gateway and peers on one processor, load and upstream on another'
    : 'NOT pinned to processors (no taskset, or one processor)'))
  const cells = await measureCases(targets, plan)
  const arcs = await measureArcs(targets.filter(({ name }) => name !== 'direct'), plan.restSeconds)
  const figures = { cells, arcs, ...await measureStreams(await lineUpStreams(cast, plan, stage), plan) }
  const sections = sectionsOf(figures, plan.cases, basesOf(plan))
  if (plan.comparison.kind !== 'bar') {
    if (plan.write) keep({ peers: { sections, chart: chartOf(figures) } })
    return report(sections)
  }
  const bar = judge(figures)
  if (plan.write) keep({ bar })
  return report(sections) + barReport(bar)
}

/** What the others are divided by. */
function basesOf ({ comparison: { kind } }: Plan): [string, ...string[]] {
  if (kind === 'stores') return ['no ledger']
  if (kind === 'ceilings') return [ours, 'raw']
  return kind === 'beside' ? ['beside', 'raw'] : ['raw', 'http-proxy']
}

try {
  await main()
} catch (error) {
  console.error(error)
  process.exitCode = 1
}
