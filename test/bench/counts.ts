import { type CaseName, cases } from './cases.ts'
import { gateway, type Scripted } from './gateways.ts'
import { runCase } from './measure.ts'
import { table } from './numbers.ts'
import type { Plan } from './plan.ts'
import { probed } from './probed.ts'
import type { Stage } from './targets.ts'

/**
 * What a request makes, counted and not timed: the same on a busy machine. It comes back as work of the collector, and
 * as turns that the loop takes before the answer is out.
 */
export interface Counted {
  /** Bytes on V8's heap; what a Buffer holds outside of it does not count. */
  readonly bytes: number
  readonly promises: number
  readonly timers: number
  /** Of `process.nextTick` and `setImmediate`. */
  readonly callbacks: number
}

export type Counts = ReadonlyMap<`${CaseName} ${string}`, Counted>

/** One gateway after the other, each in a process of its own. */
export async function measureCounts (
  stage: Stage,
  variants: readonly Scripted[],
  plan: Pick<Plan, 'cases' | 'callers' | 'warmUpSeconds' | 'seconds' | 'mostConnections'>
): Promise<Counts> {
  const { cases: names, callers, warmUpSeconds, seconds, mostConnections } = plan
  const counts = new Map<`${CaseName} ${string}`, Counted>()
  for (const scripted of variants) {
    const { variant, probe } = probed(scripted, stage.folder)
    const target = await gateway(stage, variant, callers)
    for (const name of names) {
      const run = async () => (await runCase(name, target, seconds, mostConnections)).requests
      if (warmUpSeconds > 0) await runCase(name, target, warmUpSeconds, mostConnections)
      // One after the other: a promise that is counted takes more bytes.
      const bytes = await probe.allocated(run)
      const made = await probe.created(run)
      const of = (kind: string) => made[kind] ?? 0
      counts.set(`${name} ${variant.name}`, {
        bytes,
        promises: of('PROMISE'),
        timers: of('Timeout'),
        callbacks: of('TickObject') + of('Immediate')
      })
    }
    await target.stop()
  }
  return counts
}

/** Each number of the last one, with that of those before it. */
export function countsReport (counts: Counts, names: readonly CaseName[], targets: readonly string[]): string {
  const columns: ReadonlyArray<readonly [title: string, of: keyof Counted, digits: number]> = [
    ['bytes', 'bytes', 0], ['promises', 'promises', 1], ['timers', 'timers', 2], ['callbacks', 'callbacks', 1]
  ]
  const sections = names.map(name => `${cases[name].title}, a request\n${table(
    ['', ...columns.map(([title]) => title)],
    targets.map(target => {
      const counted = counts.get(`${name} ${target}`)!
      return [target, ...columns.map(([, of, digits]) => counted[of].toFixed(digits))]
    })
  )}`)
  return ['', ...sections].join('\n\n')
}
