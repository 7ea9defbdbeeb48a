import { join } from 'node:path'
import type { Test } from 'tap'
import { loadSettings, SettingsError, type Settings, type SettingsProblem } from '../../src/settings.ts'

export const apiKey = 'ak-5f2c9d71e04b'
export const sessionSecret = 'q7Zc0vT2mLx9RfWk4JbN8sHd1yUeGaPo'
export const required = { APIXO_API_KEY: apiKey, GATEWAY_SESSION_SECRET: sessionSecret }

interface Installation {
  /** Added to the required variables; `undefined` takes one away. */
  readonly env?: Readonly<Record<string, string | undefined>>
  /** The text of config/gateway.yaml; `plain` when absent. */
  readonly yaml?: string
  /** The text of config/models.json: without any model when absent; `null`: there is no such file. */
  readonly models?: string | null
  /** Further files, by their path. */
  readonly files?: Readonly<Record<string, string>>
}

/** What starts without a warning. */
export const plain = 'plans: { default: {} }\nprices: { "*": 1 }\n'

type Folder = Pick<Test, 'testdir' | 'testdirName'>

/** Makes a folder as an operator would, and gives what `loadSettings` takes. */
export function install (
  t: Folder,
  { env = {}, yaml = plain, models = '{"models":[]}', files = {} }: Installation = {}
) {
  const tree: Record<string, string | Record<string, string>> = {
    config: { 'gateway.yaml': yaml, ...(models === null ? {} : { 'models.json': models }) }
  }
  for (const [path, text] of Object.entries(files)) {
    const [folder, name] = path.split('/')
    tree[folder!] = name === undefined ? text : { ...tree[folder!] as Record<string, string>, [name]: text }
  }
  const cwd = t.testdir(tree)
  return { env: { ...required, ...env }, cwd }
}

export function load (t: Folder, installation: Installation = {}): Settings {
  return loadSettings(install(t, installation))
}

export function errorOf (t: Folder, installation: Installation): SettingsError {
  const sources = install(t, installation)
  try {
    loadSettings(sources)
  } catch (error) {
    if (error instanceof SettingsError) return error
    throw error
  }
  throw new Error('these settings were accepted')
}

export function problemsOf (t: Folder, installation: Installation): readonly SettingsProblem[] {
  return errorOf(t, installation).problems
}

export function configPath (t: Folder): string {
  return join(t.testdirName, 'config', 'gateway.yaml')
}
