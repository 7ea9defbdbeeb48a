import { added, type Figure, figure, type Figures, pairs, ratios, rounds } from './figures.ts'
import { table } from './numbers.ts'
import type { FilesMeasured } from './streams.ts'

/**
 * The goals of this project, for information: a timed test would fail on a busy machine and teach people to ignore it.
 */
export interface Goal {
  readonly what: string
  readonly sign: '≤' | '≥'
  readonly bar: number
  readonly stretch: number | null
  readonly digits: number
  /** The figure of a target; `null` where it was not measured. */
  readonly of: (figures: Figures, target: string) => readonly number[] | null
  /** Of the program in the image, where that was measured, and not of the one that runs from its source. */
  readonly inImage: boolean
}

type GoalOf = Goal['of']

const atMost = (what: string, bar: number, stretch: number | null, of: GoalOf): Goal =>
  ({ what, sign: '≤', bar, stretch, digits: 2, of, inImage: false })
const one = (value: number | undefined): readonly number[] | null => value === undefined ? null : [value]

/** Names of targets. The bundle is what the image runs. */
export const ours = 'gateway'
export const bundled = 'bundle'
export const former = '0.3.0'

export const goals: readonly Goal[] = [
  atMost('submit: cpu × raw', 2.2, 1.5, (figures, target) => ratios(figures, 'submit', target, 'raw', 'cpuMicros')),
  {
    ...atMost('submit: req/s × http-proxy', 2, 3, (figures, target) =>
      ratios(figures, 'submit', target, 'http-proxy', 'perSecond')),
    sign: '≥'
  },
  atMost('finished status: cpu × raw', 0.9, 0.65, (figures, target) =>
    ratios(figures, 'finished', target, 'raw', 'cpuMicros')),
  atMost('ever-new bad tokens: cpu × raw submit', 1.1, 0.8, (figures, target) =>
    ratios(figures, 'refusedNew', target, 'raw', 'cpuMicros')),
  atMost('1 connection: added p50 × raw', 1.4, 1.1, (figures, target) =>
    pairs(added(figures, 'alone', target, 'p50Ms'), added(figures, 'alone', 'raw', 'p50Ms'))),
  atMost('32 connections: p99 × raw', 2, 1.5, (figures, target) => ratios(figures, 'submit', target, 'raw', 'p99Ms')),
  ...[
    atMost('memory idle, MB', 100, 90, ({ arcs }, target) => megabytes(arcs.get(target)?.idleBytes)),
    atMost('memory after load, MB', 165, 140, ({ arcs }, target) => megabytes(arcs.get(target)?.loadedBytes))
  ].map((goal): Goal => ({ ...goal, digits: 0, inImage: true })),
  { ...atMost('ready, s', 0.5, 0.3, ({ arcs }, target) => one(arcs.get(target)?.readySeconds)), inImage: true },
  atMost('8 files of 50 MB: cpu a MB × raw', 1.2, 1.05, ({ files }, target) =>
    pairs(costs(files.get(target)), costs(files.get('raw')))),
  {
    ...atMost('8 files of 50 MB: memory added, MB', 60, null, ({ files }, target) =>
      megabytes(files.get(target)?.at(-1)?.addedBytes)),
    digits: 0
  },
  ...[
    atMost('1,000 watchers: one change holds the loop, ms', 5, null, ({ events }, target) =>
      one(events.get(target)?.holdMs)),
    atMost('1,000 watchers: kB each', 10, null, ({ events }, target) =>
      one(kilobytes(events.get(target)?.bytesPerWatcher)))
  ].map((goal): Goal => ({ ...goal, digits: 1 })),
  atMost('1,000 watchers: upstream asked an interval', 1, null, ({ events }, target) =>
    one(events.get(target)?.askedPerInterval))
]

/** What has to be true of ours against the former version, measured in the same run. */
export const shares: readonly Goal[] = [
  atMost('submit: cpu', 0.55, null, (figures, target) => share(figures, 'submit', target)),
  atMost('finished status: cpu', 0.45, null, (figures, target) => share(figures, 'finished', target)),
  atMost('ever-new bad tokens: cpu', 0.45, null, (figures, target) => share(figures, 'refusedNew', target)),
  ...[
    atMost('memory idle', 0.72, null, ({ arcs }, target) =>
      pairs(one(arcs.get(target)?.idleBytes), one(arcs.get(former)?.idleBytes))),
    atMost('memory after load', 0.65, null, ({ arcs }, target) =>
      pairs(one(arcs.get(target)?.loadedBytes), one(arcs.get(former)?.loadedBytes)))
  ].map((goal): Goal => ({ ...goal, inImage: true }))
]

function share (figures: Figures, name: 'submit' | 'finished' | 'refusedNew', target: string): number[] | null {
  return pairs(rounds(figures, name, target, 'cpuMicros'), rounds(figures, name, former, 'cpuMicros'))
}

function costs (rounds: readonly FilesMeasured[] | undefined): readonly number[] | null {
  return rounds?.map(round => round.cpuMicrosPerMegabyte) ?? null
}

function megabytes (bytes: number | undefined): readonly number[] | null {
  return bytes === undefined ? null : [bytes / 1e6]
}

function kilobytes (bytes: number | undefined): number | undefined {
  return bytes === undefined ? undefined : bytes / 1000
}

/** A goal and what became of it in one run. */
export interface Judged {
  readonly what: string
  readonly sign: Goal['sign']
  readonly bar: number
  readonly stretch: number | null
  readonly digits: number
  readonly measured: Figure | null
  readonly former: Figure | null
}

/** By the bar's table, and against the former version. */
export interface Verdicts {
  readonly goals: readonly Judged[]
  readonly shares: readonly Judged[]
}

export function judge (figures: Figures): Verdicts {
  const judged = (all: readonly Goal[]) => all.map(({ of, inImage, ...goal }): Judged => {
    const figureOf = (target: string) => {
      const values = of(figures, target)
      return values === null ? null : figure(values)
    }
    const measured = (inImage ? figureOf(bundled) : null) ?? figureOf(ours)
    return { ...goal, measured, former: figureOf(former) }
  })
  return { goals: judged(goals), shares: judged(shares) }
}

export function verdict ({ sign, bar, stretch, measured }: Judged): string {
  if (measured === null) return 'not measured'
  const reaches = (limit: number) => sign === '≥' ? measured.value >= limit : measured.value <= limit
  if (stretch !== null && reaches(stretch)) return 'stretch met'
  return reaches(bar) ? 'met' : 'MISSED'
}

/** The tables of `npm run bench -- --bar`. */
export function barReport ({ goals, shares }: Verdicts): string {
  return [
    '',
    `the bar\n${table(
      ['', 'bar', 'stretch', 'measured', 'spread', former, ''],
      goals.map(goal => [
        goal.what,
        limit(goal, goal.bar),
        limit(goal, goal.stretch),
        shown(goal, goal.measured),
        spread(goal),
        shown(goal, goal.former),
        verdict(goal)
      ])
    )}`,
    `against ${former}\n${table(
      ['', 'bar', 'measured', 'spread', ''],
      shares.map(goal => [goal.what, limit(goal, goal.bar), shown(goal, goal.measured), spread(goal), verdict(goal)])
    )}`
  ].join('\n\n')
}

export function limit ({ sign }: Pick<Judged, 'sign'>, value: number | null): string {
  return value === null ? '' : `${sign} ${value}`
}

export function shown ({ digits }: Pick<Judged, 'digits'>, figure: Figure | null): string {
  return figure === null ? '-' : figure.value.toFixed(digits)
}

export function spread ({ digits, measured }: Pick<Judged, 'digits' | 'measured'>): string {
  if (measured === null || measured.least === measured.most) return ''
  return `${measured.least.toFixed(digits)} – ${measured.most.toFixed(digits)}`
}
