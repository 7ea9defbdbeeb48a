/**
 * `npm ci` and `npm install` end with this: what pages load is built. An installation for production has no bundler;
 * the gateway then says at its start what it lacks.
 */
import { join } from 'node:path'

try {
  const { buildClient } = await import('./build.ts')
  await buildClient(join(import.meta.dirname, '../dist'))
} catch (error) {
  if ((error as NodeJS.ErrnoException).code !== 'ERR_MODULE_NOT_FOUND') throw error
}
