import { join } from 'node:path'
import { createGateway, type Gateway } from '../gateway.ts'
import { environmentVariables, loadSettings, readDotEnv, type Settings, SettingsError } from '../settings.ts'
import { readText } from '../settings/problems.ts'

/** What a gateway within another program is told. Both absent: as the command `start` finds its settings. */
export interface GatewaySettings {
  /**
   * The variables of the README by their names, as texts, in the place of the process's environment and its `.env`.
   * `HOST` and `PORT` mean nothing here, for the host listens.
   */
  readonly env?: Readonly<Record<string, string | undefined>> | undefined
  /** What a config file would hold, in the place of the file that `GATEWAY_CONFIG` names. */
  readonly config?: object | undefined
}

/** Nothing but a server of its own can keep what these promise. */
const ownServerOnly = [
  ['GATEWAY_ADMIN_PORT', 'adminPort', 'the admin API and the metrics are on the host\'s port, behind the admin token'],
  ['GATEWAY_STATIC_DIR', 'staticDir', 'the host serves its own front end']
] as const

/** What may stand beside ours in the options of a plugin. */
const known = new Set(['env', 'config', 'addresses', 'prefix', 'logLevel', 'logSerializers'])

/** Throws a `SettingsError` with all that is to be changed. Ends no process, and opens nothing. */
export function guestSettings (given: GatewaySettings): Settings {
  const unknown = Object.keys(given).filter(name => !known.has(name))
  if (unknown.length > 0) throw new SettingsError(unknown.map(unknownProblem))
  const cwd = process.cwd()
  const env = given.env ?? { ...readDotEnv(cwd), ...process.env }
  const settings = given.config === undefined ? loadSettings({ env, cwd }) : withConfig(env, given.config, cwd)
  const useless = ownServerOnly.filter(([, key]) => settings[key] !== undefined)
  if (useless.length > 0) {
    throw new SettingsError(useless.map(([setting, , why]) => ({
      setting,
      source: settings.origins.get(setting)!,
      problem: 'is for a gateway with a server of its own',
      expected: `no such setting: ${why}`
    })))
  }
  return settings
}

function unknownProblem (setting: string) {
  const isVariable = environmentVariables.some(({ name }) => setting.startsWith(name))
  return {
    setting,
    source: 'the settings given',
    problem: 'there is no such setting',
    expected: isVariable ? `env: { ${setting}: … }` : 'env and config'
  }
}

/** An object is read as the file that it would be; models.json is looked for where it lies without one. */
function withConfig (env: NonNullable<GatewaySettings['env']>, config: object, cwd: string): Settings {
  const configPath = join(cwd, 'config', 'settings.config')
  const text = JSON.stringify(config, null, 2)
  return loadSettings({
    cwd,
    env: { ...env, GATEWAY_CONFIG: configPath },
    readFile: (path, maxBytes) => path === configPath ? text : readText(path, maxBytes)
  })
}

/** A gateway that listens nowhere. Throws a `SettingsError`. */
export async function openGuest (settings: Settings): Promise<Gateway> {
  const gateway = await createGateway(settings)
  for (const warning of settings.warnings) gateway.log.warn(warning)
  return gateway
}
