import { spawnSync } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { former, ours } from './bar.ts'
import { gateway, root, type Scripted, startGateway, withCeilings } from './gateways.ts'
import { checkOut, earlier } from './history.ts'
import { imageVariant } from './image.ts'
import type { Plan } from './plan.ts'
import { probed } from './probed.ts'
import type { Running } from './process.ts'
import type { Headers } from './shots.ts'
import { startRedis, startStores } from './stores.ts'
import { type EventServer, fileServer, type FileServer, type StreamTargets } from './streams.ts'
import { absence, direct, peer, type PeerName, peerNames, raw, type Stage, type Target } from './targets.ts'

/** Who takes part in a run. */
export interface Cast {
  readonly peers: readonly PeerName[]
  /** Ours as it was. */
  readonly former: Scripted | null
  /** Ours of another checkout. */
  readonly beside: Scripted | null
  /** Ours as the container image runs it. */
  readonly image: Scripted | null
  readonly ours: Scripted
  /** Who should have taken part and can not, each with the reason. */
  readonly absences: readonly string[]
}

/** The bar asks for one peer; everybody else is told in the long run. */
const peersOf: Readonly<Record<Plan['comparison']['kind'], readonly PeerName[]>> = {
  peers: peerNames, bar: ['http-proxy'], stores: [], ceilings: [], beside: [], counts: [], llm: []
}

/** Looks for all of them. What has to be made for it goes into the folder. */
export function castOf ({ comparison, install }: Plan, folder: string): Cast {
  const { kind } = comparison
  const tree = kind === 'beside' || kind === 'counts' ? comparison.tree : null
  const absences: string[] = []
  const unless = <Found>(found: Found | string): Found | null => {
    if (typeof found !== 'string') return found
    absences.push(found)
    return null
  }
  const isMeasured = kind === 'peers' || kind === 'bar'
  return {
    peers: peersOf[kind].filter(name => unless(absence(name) ?? { name }) !== null),
    former: isMeasured || (kind === 'counts' && tree === null) ? unless(formerVariant(folder, install)) : null,
    beside: tree === null ? null : { name: 'beside', command: [join(tree, 'src/main.ts')] },
    image: isMeasured ? unless(imageVariant(folder)) : null,
    ours: { name: ours, command: [join(root, 'src/main.ts')] },
    absences
  }
}

function formerVariant (folder: string, install: boolean): Scripted | string {
  const found = checkOut(earlier, folder, install)
  return typeof found === 'string' ? found : { name: former, command: [join(found.folder, 'src/main.ts')] }
}

/** Brings the packages of the peers, by their own lockfile. Throws when they can not be had. */
export function installPeers (): void {
  const cwd = join(import.meta.dirname, 'peers')
  const { status } = spawnSync('npm', ['ci', '--ignore-scripts', '--no-audit', '--no-fund'], { cwd, stdio: 'inherit' })
  if (status !== 0) throw new Error('the packages of the peers can not be installed')
}

/** Starts everybody, in the order in which they are told. */
export async function lineUp (
  cast: Cast,
  { comparison, callers }: Plan,
  stage: Stage,
  upstream: Running
): Promise<Target[]> {
  if (comparison.kind === 'stores') return await startStores(stage, comparison.tasks, callers)
  if (comparison.kind === 'ceilings') {
    return [await raw(stage), await gateway(stage, cast.ours, callers), await gateway(stage, withCeilings, callers)]
  }
  const targets = [direct(upstream), await raw(stage)]
  for (const name of cast.peers) targets.push(await peer(name, stage))
  for (const variant of [cast.former, cast.beside, cast.ours]) {
    if (variant !== null) targets.push(await gateway(stage, variant, callers))
  }
  if (cast.image !== null) {
    const image = await gateway(stage, cast.image, callers)
    targets.push({ ...image, shots: { submit: image.shots.submit! } }) // enough to see its memory, and what it costs
  }
  if (comparison.kind === 'peers') {
    const redis = stage.started(await startRedis(stage))
    targets.push(await gateway(stage, { name: 'on Redis', store: `redis://127.0.0.1:${redis.port}` }, callers))
  }
  return targets
}

/** What passes files and events on, started anew: memory that the load has left behind would hide what these take. */
export async function lineUpStreams (cast: Cast, { comparison: { kind } }: Plan, stage: Stage): Promise<StreamTargets> {
  if (kind !== 'peers' && kind !== 'bar') return { files: [], events: [] }
  const fresh: Stage = { ...stage, folder: join(stage.folder, 'streams') }
  mkdirSync(fresh.folder)
  const files: FileServer[] = [{ ...await raw(fresh), ...upstreamFile({}) }]
  for (const name of cast.peers) {
    if (kind === 'bar' || (name !== 'http-proxy' && name !== 'nginx')) continue
    const target = await peer(name, fresh)
    files.push({ ...target, ...upstreamFile(target.shots.submit![0]!.headers) })
  }
  const events: EventServer[] = []
  for (const variant of [cast.former, cast.ours]) {
    if (variant === null) continue
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
