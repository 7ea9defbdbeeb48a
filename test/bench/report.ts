import { cases, type CaseName } from './cases.ts'
import { added, type Figures, ratios, rounds } from './figures.ts'
import { median, table } from './numbers.ts'

/** A table of the report, as it is printed and as it is kept. */
export interface Section {
  readonly title: string
  readonly head: readonly string[]
  readonly rows: ReadonlyArray<readonly string[]>
}

/** `bases`: the targets that all are held against, the first one also by its processor time. */
export function sectionsOf (
  figures: Figures,
  names: readonly CaseName[],
  bases: readonly [string, ...string[]]
): Section[] {
  const targets = ['direct', ...figures.arcs.keys()]
  return [
    ...names
      .filter(name => targets.some(target => figures.cells.has(`${name} ${target}`)))
      .map(name => caseSection(figures, name, targets, bases)),
    ...streamSections(figures),
    arcSection(figures)
  ]
}

export function report (sections: readonly Section[]): string {
  return ['', ...sections.map(({ title, head, rows }) => `${title}\n${table(head, rows)}`)].join('\n\n')
}

function caseSection (
  figures: Figures,
  name: CaseName,
  targets: readonly string[],
  bases: readonly [string, ...string[]]
): Section {
  // With one connection, and at a rate of its own, what counts is what was added.
  const isDelay = figures.cells.has(`${name} direct`)
  const rows = targets.filter(target => figures.cells.has(`${name} ${target}`)).map(target => {
    const middle = (of: 'perSecond' | 'p50Ms' | 'p99Ms' | 'cpuMicros', digits: number) =>
      shown(rounds(figures, name, target, of), digits)
    const against = (base: string, of: 'perSecond' | 'cpuMicros') => shown(ratios(figures, name, target, base, of), 2)
    const delay = (of: 'p50Ms' | 'p99Ms') => shown(added(figures, name, target, of), 3)
    return [
      target,
      middle('perSecond', 0),
      ...bases.map(base => against(base, 'perSecond')),
      middle('p50Ms', 3),
      middle('p99Ms', 3),
      ...isDelay ? [delay('p50Ms'), delay('p99Ms')] : [],
      ...target === 'direct' ? ['-', '-'] : [middle('cpuMicros', 0), against(bases[0], 'cpuMicros')]
    ]
  })
  const heads = bases.map(base => `× ${base}`)
  const delays = isDelay ? ['added p50', 'added p99'] : []
  const head = ['', 'req/s', ...heads, 'p50 ms', 'p99 ms', ...delays, 'cpu µs/req', heads[0]!]
  return { title: cases[name].title, head, rows }
}

function shown (values: readonly number[] | null, digits: number): string {
  return values === null ? '-' : median(values).toFixed(digits)
}

function streamSections ({ files, events }: Figures): Section[] {
  const sections: Section[] = [
    {
      title: '8 files at once',
      head: ['', 'cpu µs/MB', 'MB/s', 'memory added MB'],
      rows: Array.from(files, ([name, rounds]) => [
        name,
        shown(rounds.map(round => round.cpuMicrosPerMegabyte), 0),
        shown(rounds.map(round => round.megabytesPerSecond), 0),
        megabytes(rounds.at(-1)!.addedBytes)
      ])
    },
    {
      title: 'watchers of one task, which changes once a second',
      head: ['', 'watchers', 'cpu µs/event', 'kB each', 'loop held ms', 'upstream asked/interval'],
      rows: Array.from(events, ([name, found]) => [
        name,
        String(found.watchers),
        found.cpuMicrosPerEvent.toFixed(1),
        (found.bytesPerWatcher / 1000).toFixed(1),
        found.holdMs.toFixed(1),
        found.askedPerInterval.toFixed(2)
      ])
    }
  ]
  return sections.filter(({ rows }) => rows.length > 0)
}

function arcSection ({ arcs }: Figures): Section {
  return {
    title: 'start and memory',
    head: ['', 'ready s', 'idle MB', 'loaded MB', 'peak MB', 'recovered MB'],
    rows: Array.from(arcs.values(), arc => [
      arc.name,
      arc.readySeconds.toFixed(2),
      megabytes(arc.idleBytes),
      megabytes(arc.loadedBytes),
      megabytes(arc.peakBytes),
      megabytes(arc.recoveredBytes)
    ])
  }
}

function megabytes (bytes: number): string {
  return (bytes / 1e6).toFixed(0)
}
