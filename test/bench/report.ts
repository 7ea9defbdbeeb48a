import { median, medianRatio, table } from './numbers.ts'

/** What one round of one scenario on one target gave. */
export interface Measured {
  readonly perSecond: number
  readonly p50Ms: number
  readonly p99Ms: number
  /** Processor time of the target per request, user and system. */
  readonly cpuMicros: number
}

/** By `scenario target`, one entry a round. */
export type Measurements = Map<`${string} ${string}`, Measured[]>

export interface Start {
  readonly name: string
  readonly readySeconds: number
  readonly idleBytes: number
  readonly afterBytes: number
}

const titles = {
  submit: 'submit, 32 connections',
  status: 'status of a finished task, 32 connections',
  refused: 'a bad token refused, 32 connections',
  alone: 'submit, 1 connection'
} as const

/** `bases`: the targets that all are held against, the first one also by its processor time. */
export function report (
  measurements: Measurements,
  starts: readonly Start[],
  bases: readonly [string, ...string[]]
): string {
  const names = starts.map(({ name }) => name)
  const sections = Object.entries(titles).map(([scenario, title]) =>
    `${title}\n${scenarioTable(measurements, scenario, names, bases)}`)
  const bars = names.includes('http-proxy') ? [`bars\n${barTable(measurements, starts)}`] : []
  return ['', ...sections, `start and memory\n${startTable(starts)}`, ...bars].join('\n\n')
}

function scenarioTable (
  measurements: Measurements,
  scenario: string,
  names: readonly string[],
  bases: readonly [string, ...string[]]
): string {
  const rows = names.flatMap(name => {
    const rounds = measurements.get(`${scenario} ${name}`)
    if (rounds === undefined) return []
    const middle = (of: keyof Measured) => median(rounds.map(round => round[of]))
    const against = (base: string, of: keyof Measured) => ratio(rounds, measurements.get(`${scenario} ${base}`), of)
    return [
      [
        name,
        middle('perSecond').toFixed(0),
        ...bases.map(base => against(base, 'perSecond')),
        middle('p50Ms').toFixed(3),
        middle('p99Ms').toFixed(3),
        middle('cpuMicros').toFixed(0),
        against(bases[0], 'cpuMicros')
      ]
    ]
  })
  const heads = bases.map(base => `× ${base}`)
  return table(['', 'req/s', ...heads, 'p50 ms', 'p99 ms', 'cpu µs/req', heads[0]!], rows)
}

function ratio (rounds: readonly Measured[], base: readonly Measured[] | undefined, of: keyof Measured): string {
  return base === undefined ? '-' : medianRatio(rounds.map(round => round[of]), base.map(round => round[of])).toFixed(2)
}

function startTable (starts: readonly Start[]): string {
  const megabytes = (bytes: number) => (bytes / 1e6).toFixed(0)
  return table(
    ['', 'ready s', 'idle MB', 'after load MB'],
    starts.map(({ name, readySeconds, idleBytes, afterBytes }) => [
      name,
      readySeconds.toFixed(2),
      megabytes(idleBytes),
      megabytes(afterBytes)
    ])
  )
}

/**
 * The goals of this project, for information: a timed test would fail on a busy machine and teach people to ignore it.
 */
function barTable (measurements: Measurements, starts: readonly Start[]): string {
  const all = (key: `${string} ${string}`, of: keyof Measured) => (measurements.get(key) ?? []).map(round => round[of])
  const against = (ours: string, theirs: string, of: keyof Measured) =>
    medianRatio(all(`${ours} gateway`, of), all(theirs as `${string} ${string}`, of))
  const straight = all('alone direct', 'p50Ms')
  const added = (name: string) => all(`alone ${name}`, 'p50Ms').map((p50, round) => p50 - straight[round]!)
  const ours = starts.find(({ name }) => name === 'gateway')!
  const row = (what: string, value: number, sign: '≥' | '≤', bar: number) =>
    [what, value.toFixed(2), `${sign} ${bar}`, (sign === '≥' ? value >= bar : value <= bar) ? 'met' : 'missed']
  return table(['', 'measured', 'bar', ''], [
    row('submit: req/s against http-proxy', against('submit', 'submit http-proxy', 'perSecond'), '≥', 3),
    row('submit: req/s against raw', against('submit', 'submit raw', 'perSecond'), '≥', 0.5),
    row('submit: the same, stretch', against('submit', 'submit raw', 'perSecond'), '≥', 0.75),
    row('submit: p99 against raw', against('submit', 'submit raw', 'p99Ms'), '≤', 1.5),
    row('status, finished: req/s against raw', against('status', 'status raw', 'perSecond'), '≥', 1.5),
    row('refused: cpu against a raw forward', against('refused', 'submit raw', 'cpuMicros'), '≤', 0.5),
    row('1 connection: p50 added, against raw', medianRatio(added('gateway'), added('raw')), '≤', 1.5),
    row('ready, s', ours.readySeconds, '≤', 1),
    row('idle, MB', ours.idleBytes / 1e6, '≤', 120)
  ])
}
