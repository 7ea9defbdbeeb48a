import type { EnvironmentValues } from './environment-values.ts'
import type { GatewayFile } from './file-schema.ts'

/**
 * Settings that are read and checked, and that this version does nothing with yet. Each of them opens something, so
 * that what it would open stays shut; who sets one shall still be told.
 */
const inert: ReadonlyArray<readonly [name: string, isSet: (values: EnvironmentValues, file: GatewayFile) => boolean]> = [
  ['GATEWAY_ADMIN_TOKEN', ({ GATEWAY_ADMIN_TOKEN }) => GATEWAY_ADMIN_TOKEN !== undefined],
  ['GATEWAY_ADMIN_PORT', ({ GATEWAY_ADMIN_PORT }) => GATEWAY_ADMIN_PORT !== undefined],
  ['GATEWAY_STATIC_DIR', ({ GATEWAY_STATIC_DIR }) => GATEWAY_STATIC_DIR !== undefined],
  ['issuers', (_, { issuers }) => issuers.length > 0],
  ['guests.enabled', (_, { guests }) => guests.enabled],
  ['callbacks.inbound', (_, { callbacks }) => callbacks.inbound],
  ['callbacks.allowedHosts', (_, { callbacks }) => callbacks.allowedHosts.length > 0],
  ['batches.enabled', (_, { batches }) => batches.enabled],
  ['results.keep', (_, { results }) => results.keep !== 'none']
]

/** Sentences for the log, at every start. */
export function inertWarnings (values: EnvironmentValues, file: GatewayFile): string[] {
  return inert.filter(([, isSet]) => isSet(values, file)).map(([name]) => `${name} is set, and has no effect in this version.`)
}
