import { readFileSync, writeFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { join } from 'node:path'
import { bundled, former, limit, ours, shown, spread, verdict, type Verdicts } from './bar.ts'
import { type CaseName, cases } from './cases.ts'
import { barChart, type Group } from './chart.ts'
import { type Figures, ratios, rounds } from './figures.ts'
import { median } from './numbers.ts'
import type { Section } from './report.ts'

/** When and on what a run was made. */
interface Run {
  readonly date: string
  readonly version: string
  readonly node: string
  readonly processors: number
}

/** One run of `--bar`. */
export type BarRun = Run & Verdicts

/** One run with all peers. */
export type PeersRun = Run & PeersReport

interface PeersReport {
  readonly sections: readonly Section[]
  readonly chart: readonly Group[]
}

/** What is kept of the newest runs, in `results.json`; the page and the chart are made of it. */
export interface Results {
  readonly bars: readonly BarRun[]
  readonly peers: PeersRun | null
}

/** A goal that is met once may be luck; met in each of three it is not. */
const barsKept = 3

const folder = import.meta.dirname
const files = { json: join(folder, 'results.json'), page: join(folder, 'results.md'), chart: join(folder, 'results.svg') }

export function readResults (): Results {
  return JSON.parse(readFileSync(files.json, 'utf8'))
}

/** Adds a run to what is kept, and writes the page and the chart anew. */
export function keep (run: { readonly bar: Verdicts } | { readonly peers: PeersReport }): void {
  const results = readResults()
  const { version } = JSON.parse(readFileSync(join(folder, '../../package.json'), 'utf8')) as { version: string }
  const here: Run = {
    date: new Date().toISOString().slice(0, 10),
    version,
    node: process.versions.node,
    processors: cpus().length // this process itself has been pinned to one
  }
  const kept: Results = 'bar' in run
    ? { ...results, bars: [...results.bars, { ...here, ...run.bar }].slice(-barsKept) }
    : { ...results, peers: { ...here, ...run.peers } }
  writeFileSync(files.json, `${JSON.stringify(kept, rounded, 1)}\n`)
  const { page, chart } = rendered(readResults())
  writeFileSync(files.page, page)
  if (chart !== null) writeFileSync(files.chart, chart)
}

/** The page that the README points to, and its chart: both are made of what is kept, and of nothing else. */
export function rendered ({ bars, peers }: Results): { readonly page: string, readonly chart: string | null } {
  const page = [
    '# What the gateway costs',
    'Written by `npm run bench -- --write` and `npm run bench -- --bar --write`, from what the bench keeps in\n' +
      '[results.json](results.json).',
    howToRead,
    '## The bar',
    ...bars.length > 0 ? barParts(bars) : ['No run is kept.'],
    '## Beside its peers',
    ...peers === null ? ['No run is kept.'] : peersParts(peers)
  ]
  return { page: `${page.join('\n\n')}\n`, chart: peers === null ? null : barChart(peers.chart) }
}

/** Four digits are more than a run can tell. */
function rounded (_key: string, value: unknown): unknown {
  return typeof value === 'number' ? Number(value.toPrecision(4)) : value
}

/** Processor time a request, of all programs that took part. */
export function chartOf (figures: Figures): Group[] {
  const names: readonly CaseName[] = ['submit', 'finished', 'refusedNew']
  return names.map(name => ({
    title: `${cases[name].title}: cpu µs a request`,
    bars: Array.from(figures.arcs.keys()).flatMap(target => {
      const cpu = rounds(figures, name, target, 'cpuMicros')
      if (cpu === null) return []
      const value = Math.round(median(cpu))
      const against = ratios(figures, name, target, 'raw', 'cpuMicros')
      const label = against === null ? String(value) : `${value} (${median(against).toFixed(2)} × raw)`
      return [{ name: target, value, label, isOurs: [ours, bundled, 'on Redis'].includes(target) }]
    }).toSorted((a, b) => a.value - b.value)
  }))
}

const howToRead = `## How to read it

- **Only ratios last.** All programs run on one machine at one time, in turn, round by round. What slows one slows its
  neighbours too, so rounds are divided before their median is taken. Microseconds and requests a second are that
  machine's, on that day.
- **cpu** is user and system time of the program for one request. It decides how many requests a core can do, and other
  programs hardly change it. Under load *p50* and *p99* mostly tell how long the queue was; what a program adds to a
  direct call is told at one connection and at the fixed rate. A refusal, which forwards nothing, is held against a
  forward of raw's.
- **raw** is \`node:http\` and undici's \`dispatch\`, forwarding and nothing else: the floor that Node sets. **nginx** is a
  bare \`proxy_pass\`, the limit that C sets; **haproxy** checks a JWT, limits and logs. **http-proxy** is what one would
  put together from Fastify's own plugins, with a limit, a JWT check and a log; **express** the same from Express's, with
  no log; **portkey** an LLM gateway that keeps neither key nor ledger. **0.3.0** is this gateway as it was, from this
  repository's history.
- **gateway** checks sessions, models, owners and limits, reserves and settles credits in SQLite, writes an access line
  and counts metrics. Each task is written to the write-ahead log before it is answered (\`synchronous=NORMAL\`: that
  survives \`kill -9\`, not a power cut). **bundle** is the same as the container image runs it.
- A program has one processor to itself; load and upstream share another, so that the fastest ones wait for those.
- Memory is resident memory: three seconds after the start, at the end of all load, and after ten seconds of rest.`

function barParts (runs: readonly BarRun[]): string[] {
  const newest = runs.at(-1)!
  const tableOf = (kind: 'goals' | 'shares') => {
    const rows = newest[kind].map(({ what }) => {
      const all = runs.flatMap(run => run[kind].find(goal => goal.what === what) ?? [])
      const last = all.at(-1)!
      const worst = all.toSorted((a, b) => rank(verdict(a)) - rank(verdict(b)))[0]!
      return [
        what, limit(last, last.bar), limit(last, last.stretch),
        ...all.map(goal => [shown(goal, goal.measured), spread(goal)].filter(Boolean).join(', ')),
        ...kind === 'goals' ? [all.map(goal => shown(goal, goal.former)).join(' / ')] : [],
        verdict(worst)
      ]
    })
    return markdown(['', 'bar', 'stretch', ...runs.map(told), ...kind === 'goals' ? [former] : [], 'in all runs'], rows)
  }
  return [
    `The median of each run, with the least and the most of its rounds. Version\n${newest.version}, ` +
      `Node ${newest.node}, ${newest.processors} processors.`,
    tableOf('goals'),
    `Against ${former}, measured in the same runs:`,
    tableOf('shares'),
    'Not measured: what a second replica on Redis adds, for which this machine has too few processors.'
  ]
}

/** The worst of some runs is what is told of all. */
function rank (said: string): number {
  return ['not measured', 'MISSED', 'met', 'stretch met'].indexOf(said)
}

function told ({ date }: Run, index: number): string {
  return `run ${index + 1} (${date})`
}

function peersParts ({ date, version, node, sections }: PeersRun): string[] {
  return [
    `${date}, version ${version}, Node ${node}.`,
    '![Processor time a request, in bars](results.svg)',
    ...sections.flatMap(({ title, head, rows }) => [`### ${title}`, markdown(head, rows)])
  ]
}

function markdown (head: readonly string[], rows: ReadonlyArray<readonly string[]>): string {
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`
  return [line(head), line(head.map((_, column) => column === 0 ? '---' : '---:')), ...rows.map(line)].join('\n')
}
