import { cases, type CaseName } from './cases.ts'
import { added, type Figures, ratios, rounds } from './figures.ts'
import { median, table } from './numbers.ts'

/** `bases`: the targets that all are held against, the first one also by its processor time. */
export function report (figures: Figures, names: readonly CaseName[], bases: readonly [string, ...string[]]): string {
  const targets = ['direct', ...figures.arcs.keys()]
  const sections = names
    .filter(name => targets.some(target => figures.cells.has(`${name} ${target}`)))
    .map(name => `${cases[name].title}\n${caseTable(figures, name, targets, bases)}`)
  return ['', ...sections, ...streamSections(figures), `start and memory\n${arcTable(figures)}`].join('\n\n')
}

function caseTable (
  figures: Figures,
  name: CaseName,
  targets: readonly string[],
  bases: readonly [string, ...string[]]
): string {
  // With one connection, and at a rate of its own, what counts is what was added.
  const isDelay = figures.cells.has(`${name} direct`)
  const rows = targets.filter(target => figures.cells.has(`${name} ${target}`)).map(target => {
    const middle = (of: 'perSecond' | 'p50Ms' | 'p99Ms' | 'cpuMicros', digits: number) =>
      shown(rounds(figures, name, target, of), digits)
    const against = (base: string, of: 'perSecond' | 'cpuMicros') => shown(ratios(figures, name, target, base, of), 2)
    return [
      target,
      middle('perSecond', 0),
      ...bases.map(base => against(base, 'perSecond')),
      middle('p50Ms', 3),
      middle('p99Ms', 3),
      ...isDelay ? [shown(added(figures, name, target, 'p50Ms'), 3), shown(added(figures, name, target, 'p99Ms'), 3)] : [],
      ...target === 'direct' ? ['-', '-'] : [middle('cpuMicros', 0), against(bases[0], 'cpuMicros')]
    ]
  })
  const heads = bases.map(base => `× ${base}`)
  const delays = isDelay ? ['added p50', 'added p99'] : []
  return table(['', 'req/s', ...heads, 'p50 ms', 'p99 ms', ...delays, 'cpu µs/req', heads[0]!], rows)
}

function shown (values: readonly number[] | null, digits: number): string {
  return values === null ? '-' : median(values).toFixed(digits)
}

function streamSections ({ files, events }: Figures): string[] {
  const sections: string[] = []
  if (files.size > 0) {
    sections.push(`8 files at once\n${table(
      ['', 'cpu µs/MB', 'MB/s', 'memory added MB'],
      Array.from(files, ([name, rounds]) => [
        name,
        shown(rounds.map(round => round.cpuMicrosPerMegabyte), 0),
        shown(rounds.map(round => round.megabytesPerSecond), 0),
        (rounds.at(-1)!.addedBytes / 1e6).toFixed(0)
      ])
    )}`)
  }
  if (events.size > 0) {
    sections.push(`watchers of one task\n${table(
      ['', 'watchers', 'cpu µs/event', 'kB each', 'loop held ms', 'asked/interval'],
      Array.from(events, ([name, found]) => [
        name,
        String(found.watchers),
        found.cpuMicrosPerEvent.toFixed(1),
        (found.bytesPerWatcher / 1000).toFixed(1),
        found.holdMs.toFixed(1),
        found.askedPerInterval.toFixed(2)
      ])
    )}`)
  }
  return sections
}

function arcTable ({ arcs }: Figures): string {
  const megabytes = (bytes: number) => (bytes / 1e6).toFixed(0)
  return table(
    ['', 'ready s', 'idle MB', 'loaded MB', 'peak MB', 'recovered MB'],
    Array.from(arcs.values(), arc => [
      arc.name,
      arc.readySeconds.toFixed(2),
      megabytes(arc.idleBytes),
      megabytes(arc.loadedBytes),
      megabytes(arc.peakBytes),
      megabytes(arc.recoveredBytes)
    ])
  )
}
