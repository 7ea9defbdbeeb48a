import { setTimeout as wait } from 'node:timers/promises'
import { type CaseName, cases } from './cases.ts'
import type { Arc, Figures, Measured } from './figures.ts'
import { type LoadResult, openLoader } from './load.ts'
import type { Plan } from './plan.ts'
import { limitedAddress } from './shots.ts'
import type { Target } from './targets.ts'

/** A limit that starts a new minute lets one through, and at most two minutes begin while a case is measured. */
const letThrough = 2

/** All cases on all targets that take part, round by round, so that what slows one slows its neighbours too. */
export async function measureCases (
  targets: readonly Target[],
  plan: Pick<Plan, 'cases' | 'rounds' | 'seconds' | 'warmUpSeconds' | 'mostConnections'>
): Promise<Figures['cells']> {
  const cells = plan.cases.flatMap(name =>
    targets.filter(target => takesPart(name, target)).map(target => ({ name, target })))
  // What has no way of its own is warm after that, but for its first few requests.
  const seconds = (name: CaseName) => cases[name].warmUp ? plan.warmUpSeconds : Math.min(plan.warmUpSeconds, 0.3)
  for (const { name, target } of plan.warmUpSeconds > 0 ? cells : []) {
    await measure(name, target, seconds(name), plan.mostConnections)
  }
  const measured = new Map<`${CaseName} ${string}`, Measured[]>()
  for (let round = 1; round <= plan.rounds; round++) {
    // There and back, so that nobody always comes after the same one.
    for (const { name, target } of round % 2 === 1 ? cells : cells.toReversed()) {
      const key = `${name} ${target.name}` as const
      const round = await measure(name, target, plan.seconds, plan.mostConnections)
      measured.set(key, [...measured.get(key) ?? [], round])
    }
    if (plan.rounds > 1) console.log(`round ${round} of ${plan.rounds} done`)
  }
  return measured
}

/** The upstream alone is only asked where it is not the limit: it shares its processor with the load. */
function takesPart (name: CaseName, target: Target): boolean {
  if (target.name === 'direct') return name === 'alone' || name === 'paced'
  return target.shots[cases[name].shots] !== undefined
}

async function measure (name: CaseName, target: Target, seconds: number, most: number): Promise<Measured> {
  const { requests, seconds: took, p50Ms, p99Ms, cpuMicros } = await runCase(name, target, seconds, most)
  return { perSecond: requests / took, p50Ms, p99Ms, cpuMicros: cpuMicros / requests }
}

/** Gives a target its requests of a case for so many seconds. Throws, with both names, at an answer that is none. */
export async function runCase (
  name: CaseName,
  target: Target,
  seconds: number,
  mostConnections: number
): Promise<LoadResult & { readonly cpuMicros: number }> {
  const { shots, connections, expect, perSecond } = cases[name]
  const isLimited = shots === 'limited'
  const address = isLimited ? limitedAddress : undefined
  const loader = await openLoader(target.port, Math.min(connections, mostConnections), address)
  try {
    const before = target.cpuMicros()
    const others = isLimited ? letThrough : 0
    const result = await loader.run({ shots: target.shots[shots]!, seconds, expect, others, perSecond })
    return { ...result, cpuMicros: target.cpuMicros() - before }
  } catch (error) {
    throw new Error(`${target.name}, ${name}: ${error instanceof Error ? error.message : error}`, { cause: error })
  } finally {
    loader.close()
  }
}

/** Memory as it was when they were ready, as it is now that the load is over, and after a rest. */
export async function measureArcs (targets: readonly Target[], restSeconds: number): Promise<Figures['arcs']> {
  const loaded = targets.map(target => target.residentBytes())
  await wait(restSeconds * 1000)
  return new Map(targets.map((target, index): [string, Arc] => [target.name, {
    name: target.name,
    readySeconds: target.readySeconds,
    idleBytes: target.idleBytes,
    loadedBytes: loaded[index]!,
    peakBytes: target.peakBytes(),
    recoveredBytes: target.residentBytes()
  }]))
}
