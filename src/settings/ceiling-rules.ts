import type { WindowKind } from '../domain/windows.ts'
import { isZone } from '../domain/windows.ts'
import type { GatewayFile } from './file-schema.ts'
import { type FileProblem, type KeyPath, pathText } from './file.ts'
import { shown } from './problems.ts'

/** What has ceilings, and where it stands in the file. */
interface PlacedLevel {
  readonly path: KeyPath
  readonly ceilings: Readonly<Partial<Record<WindowKind, number | undefined>>>
  readonly zone: string
}

function levelsIn ({ gateway, pools, plans }: GatewayFile): readonly PlacedLevel[] {
  return [
    { path: ['gateway'], ...gateway },
    ...Object.entries(pools).map(([name, pool]) => ({ path: ['pools', name], ...pool })),
    ...Object.entries(plans).map(([name, plan]) => ({ path: ['plans', name], ...plan }))
  ]
}

/** What must hold for ceilings beyond the shape of their keys. */
export function ceilingProblems (file: GatewayFile): FileProblem[] {
  return levelsIn(file).flatMap(level => [...zoneProblems(level), ...deadCeilings(level)])
}

function zoneProblems ({ path, zone }: PlacedLevel): FileProblem[] {
  if (isZone(zone)) return []
  return [{
    path: [...path, 'zone'],
    problem: `is ${shown(zone)}, which is no time zone`,
    expected: 'a name of the IANA database such as Europe/Berlin, or UTC'
  }]
}

/**
 * A window lies in so many of a longer one at the most: a week may begin in one month and end in the next. What is
 * prepaid bounds none of them, since grants raise it.
 */
const within: ReadonlyArray<readonly [shorter: WindowKind, longer: WindowKind, times: number]> = [
  ['hour', 'day', 1], ['hour', 'week', 1], ['hour', 'month', 1], ['day', 'week', 1], ['day', 'month', 1], ['week', 'month', 2]
]

/** Of a shorter window that could never be used up, because a longer one always ends it before. */
function deadCeilings ({ path, ceilings }: PlacedLevel): FileProblem[] {
  return within.flatMap(([shorter, longer, times]) => {
    const [credits = 0, most = Infinity] = [ceilings[shorter], ceilings[longer]]
    if (credits <= most * times) return []
    const by = pathText([...path, 'ceilings', longer])
    return [{
      path: [...path, 'ceilings', shorter],
      problem: `is ${credits} and never counts, as ${by} is ${most}`,
      expected: `at most ${most * times}`
    }]
  })
}

/** A pool that a plan names has to be there: what it bounds would be unbounded. */
export function planPoolProblems ({ plans, pools }: GatewayFile): FileProblem[] {
  return Object.entries(plans).flatMap(([name, { pool }]) => pool === undefined || pools[pool] !== undefined
    ? []
    : [{
        path: ['plans', name, 'pool'],
        problem: `there is no pool ${shown(pool)}`,
        expected: 'a pool of that name under pools'
      }])
}
