import { join } from 'node:path'
import { buildClient } from '../../bin/build.ts'
import { root } from './program.ts'

/** Builds what pages load, where a gateway of the tests looks for it: what was there may be of another day. */
export async function builtClient (): Promise<string> {
  const folder = join(root, 'dist')
  await buildClient(folder)
  return folder
}
