import { resolve } from 'node:path'
import type { GatewayFileReading } from './gateway-file.ts'
import type { KeyPath } from './key-path.ts'
import { apiKeyRule, secret, signingSecretRule, type SecretRule } from './secrets.ts'
import { Refusal, type SettingsProblem } from './settings-error.ts'
import { reasonOf, type ReadFile } from './text-file.ts'

/** A secret that the config file names by the path of a file of its own. Never leaves this folder unwrapped. */
export interface FileSecret {
  readonly path: KeyPath
  /** The issuer that it belongs to; `undefined` for the one of Turnstile. */
  readonly issuer: string | undefined
  readonly value: string
}

interface Named {
  readonly path: KeyPath
  readonly issuer: string | undefined
  readonly file: string | undefined
  readonly rule: SecretRule
}

/** Reads the files that `issuers[].secretFile` and `guests.turnstileSecretFile` name. */
export function readFileSecrets (
  { file, locate }: GatewayFileReading, cwd: string, readFile: ReadFile
): { readonly secrets: readonly FileSecret[], readonly problems: readonly SettingsProblem[] } {
  const { turnstileSecretFile } = file.guests
  const named: Named[] = [
    ...file.issuers.map(({ issuer, secretFile }, index) =>
      ({ path: ['issuers', index, 'secretFile'], issuer, file: secretFile, rule: signingSecretRule })),
    { path: ['guests', 'turnstileSecretFile'], issuer: undefined, file: turnstileSecretFile, rule: apiKeyRule }
  ]
  const problems: SettingsProblem[] = []
  const secrets = named.flatMap(({ path, issuer, file, rule }) => {
    if (file === undefined) return []
    try {
      return [{ path, issuer, value: secret(rule)(textOf(resolve(cwd, file), readFile)) }]
    } catch (error) {
      const expected = `a file with a secret of at least ${rule.minBytes} bytes`
      problems.push(locate({ path, problem: (error as Error).message, expected }))
      return []
    }
  })
  return { secrets, problems }
}

function textOf (path: string, readFile: ReadFile): string {
  try {
    return readFile(path)
  } catch (error) {
    // The path is not shown: some put the secret itself there.
    throw new Refusal(`names no readable file (${reasonOf(error)})`)
  }
}
