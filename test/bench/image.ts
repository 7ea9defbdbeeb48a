import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { bundled } from './bar.ts'
import { root, type Scripted } from './gateways.ts'

/** How the container image starts the gateway. */
export interface ImageCommand {
  /** What follows `node`: options, then the script. */
  readonly args: readonly [string, ...string[]]
  readonly env: Readonly<Record<string, string>>
}

/** Reads it in the Dockerfile. Of the environment only what Node itself and its allocator look at. */
export function imageCommand (dockerfile: string): ImageCommand {
  const [, command] = /^CMD (\[.*\])$/m.exec(dockerfile) ?? []
  const [program, ...args] = JSON.parse(command ?? '[]') as string[]
  if (program !== 'node' || args.length === 0) throw new Error(`the image starts ${command}, and not node`)
  const variables = dockerfile.matchAll(/\b((?:NODE_(?!COMPILE_CACHE)|UV_|MALLOC_)\w+)=(\S+)/g)
  return {
    args: args as [string, ...string[]],
    env: Object.fromEntries(Array.from(variables, ([, name, value]) => [name!, value!]))
  }
}

/**
 * The program as the image runs it, built into a folder, without the container around it; or a sentence why it can not
 * be had. Its memory and its start differ from those of the source.
 */
export function imageVariant (folder: string): Scripted | string {
  const out = join(folder, 'image')
  const { status, stderr } = spawnSync(process.execPath, [join(root, 'bin/build.ts'), out], { encoding: 'utf8' })
  if (status !== 0) return `${bundled}, which can not be built here: ${/^\w*Error.*$/m.exec(stderr)?.[0] ?? stderr}`
  const { args, env } = imageCommand(readFileSync(join(root, 'Dockerfile'), 'utf8'))
  return { name: bundled, command: [...args.slice(0, -1), join(out, args.at(-1)!)], env }
}
