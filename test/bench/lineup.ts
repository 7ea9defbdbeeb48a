import { spawnSync } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { former, ours } from './bar.ts'
import { gateway, root, type Scripted, startGateway } from './gateways.ts'
import { checkOut, earlier } from './history.ts'
import type { Plan } from './plan.ts'
import { probed } from './probed.ts'
import type { Running } from './process.ts'
import { startRedis, startStores } from './stores.ts'
import type { Headers } from './shots.ts'
import { type EventServer, fileServer, type FileServer, type StreamTargets } from './streams.ts'
import { absence, direct, peer, type PeerName, peerNames, raw, type Stage, type Target } from './targets.ts'

/** The bar asks for one peer; everybody else is told in the long run. */
const peersOf: Readonly<Record<Plan['comparison']['kind'], readonly PeerName[]>> = {
  peers: peerNames, bar: ['http-proxy'], stores: [], beside: [], counts: []
}

/** Brings the packages of the peers, by their own lockfile. Throws when they can not be had. */
export function installPeers (): void {
  const cwd = join(import.meta.dirname, 'peers')
  const { status } = spawnSync('npm', ['ci', '--ignore-scripts', '--no-audit', '--no-fund'], { cwd, stdio: 'inherit' })
  if (status !== 0) throw new Error('the packages of the peers can not be installed')
}

/** A variant for ours as it was, or a sentence why there is none. */
function formerVariant ({ comparison, install }: Plan, { folder }: Stage): Scripted | string | null {
  const { kind } = comparison
  if (kind === 'stores' || kind === 'beside' || (kind === 'counts' && comparison.tree !== null)) return null
  const found = checkOut(earlier, folder, install)
  return typeof found === 'string' ? found : { name: former, command: [join(found.folder, 'src/main.ts')] }
}

const oursVariant: Scripted = { name: ours, command: [join(root, 'src/main.ts')] }
const besideVariant = (tree: string): Scripted => ({ name: 'beside', command: [join(tree, 'src/main.ts')] })

/** Whose requests are counted: ours come last. */
export function countedVariants (plan: Plan, stage: Stage): Scripted[] {
  const { comparison } = plan
  const before = comparison.kind === 'counts' && comparison.tree !== null
    ? besideVariant(comparison.tree)
    : formerVariant(plan, stage)
  return [...before === null || typeof before === 'string' ? [] : [before], oursVariant]
}

/** Who can not take part here, each with the reason. */
export function absences (plan: Plan, stage: Stage): string[] {
  const before = formerVariant(plan, stage)
  return [
    ...peersOf[plan.comparison.kind].flatMap(name => absence(name) ?? []),
    ...typeof before === 'string' ? [before] : []
  ]
}

/** Starts everybody who takes part, in the order in which they are told. */
export async function lineUp (plan: Plan, stage: Stage, upstream: Running): Promise<Target[]> {
  const { comparison, callers } = plan
  if (comparison.kind === 'stores') return await startStores(stage, comparison.tasks, callers)
  const targets = [direct(upstream), await raw(stage)]
  for (const name of peersOf[comparison.kind]) if (absence(name) === null) targets.push(await peer(name, stage))
  const before = formerVariant(plan, stage)
  if (before !== null && typeof before !== 'string') targets.push(await gateway(stage, before, callers))
  if (comparison.kind === 'beside') {
    targets.push(await gateway(stage, besideVariant(comparison.tree), callers))
  }
  targets.push(await gateway(stage, oursVariant, callers))
  if (comparison.kind === 'peers') {
    const redis = stage.started(await startRedis(stage))
    targets.push(await gateway(stage, { name: 'on Redis', store: `redis://127.0.0.1:${redis.port}` }, callers))
  }
  return targets
}

/** What passes files and events on, started anew: memory that the load has left behind would hide what these take. */
export async function lineUpStreams (plan: Plan, stage: Stage): Promise<StreamTargets> {
  const { kind } = plan.comparison
  if (kind !== 'peers' && kind !== 'bar') return { files: [], events: [] }
  const fresh: Stage = { ...stage, folder: join(stage.folder, 'streams') }
  mkdirSync(fresh.folder)
  const before = formerVariant(plan, stage)
  const files: FileServer[] = [{ ...await raw(fresh), ...upstreamFile({}) }]
  for (const name of ['http-proxy', 'nginx'] as const) {
    if (kind === 'bar' || absence(name) !== null) continue
    const target = await peer(name, fresh)
    files.push({ ...target, ...upstreamFile(target.shots.submit![0]!.headers) })
  }
  const events: EventServer[] = []
  const variants = [
    ...before === null || typeof before === 'string' ? [] : [before],
    oursVariant
  ]
  for (const variant of variants) {
    const { variant: looked, probe } = probed(variant, fresh.folder)
    const started = await startGateway(fresh, looked)
    files.push(await fileServer(started))
    events.push({ gateway: started, probe })
  }
  return { files, events }
}

/** Where the upstream's file is behind a program that passes everything on. */
function upstreamFile (headers: Headers): Pick<FileServer, 'filePath' | 'headers'> {
  return { filePath: '/api/v1/file.png', headers }
}
