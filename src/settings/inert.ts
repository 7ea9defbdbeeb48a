import type { EnvironmentValues } from './environment/values.ts'

/**
 * Settings that are read and checked, and that this version does nothing with yet. Each of them opens something, so
 * that what it would open stays shut; who sets one shall still be told.
 */
const inert: ReadonlyArray<readonly [name: string, isSet: (values: EnvironmentValues) => boolean]> = [
  ['GATEWAY_STATIC_DIR', ({ GATEWAY_STATIC_DIR }) => GATEWAY_STATIC_DIR !== undefined]
]

/** Sentences for the log, at every start. */
export function inertWarnings (values: EnvironmentValues): string[] {
  return inert.filter(([, isSet]) => isSet(values)).map(([name]) => `${name} is set, and has no effect in this version.`)
}
