import type { EnvironmentReading } from '../environment/values.ts'
import type { GatewayFileReading } from '../file/gateway-file.ts'
import { pathText } from '../file/key-path.ts'
import type { SettingsProblem } from '../settings-error.ts'
import type { FileSecret } from './file-secrets.ts'

interface Holder {
  readonly setting: string
  readonly values: readonly string[]
  readonly locate: (problem: string, expected: string) => SettingsProblem
}

/** One secret with two uses opens two doors when it leaks, and makes an issuer of an admin. */
export function equalSecretProblems (
  environment: EnvironmentReading, config: GatewayFileReading, fileSecrets: readonly FileSecret[]
): readonly SettingsProblem[] {
  const holders = [...variableHolders(environment), ...fileHolders(config, fileSecrets)]
  return holders.flatMap(({ values, locate }, index) => {
    const twin = holders.slice(0, index).find(other => other.values.some(value => values.includes(value)))
    return twin === undefined ? [] : [locate(`has the value of ${twin.setting}`, 'a value of its own')]
  })
}

export const secretVariables = [
  'APIXO_API_KEY', 'GATEWAY_SESSION_SECRET', 'GATEWAY_ISSUER_TOKEN', 'GATEWAY_ADMIN_TOKEN'
] as const

function variableHolders ({ values, origins }: EnvironmentReading): Holder[] {
  return secretVariables.map(setting => ({
    setting,
    values: [values[setting] ?? []].flat(),
    locate: (problem, expected) => ({ setting, source: origins.get(setting)!, problem, expected })
  }))
}

function fileHolders ({ locate }: GatewayFileReading, secrets: readonly FileSecret[]): Holder[] {
  return secrets.map(({ path, values }) => ({
    setting: pathText(path),
    values,
    locate: (problem, expected) => locate({ path, problem, expected })
  }))
}
