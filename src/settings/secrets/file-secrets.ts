import { resolve } from 'node:path'
import type { GatewayFileReading } from '../file/gateway-file.ts'
import type { KeyPath } from '../file/key-path.ts'
import type { GatewayFile } from '../file/schema.ts'
import { Refusal, type SettingsProblem } from '../settings-error.ts'
import { maxSecretBytes, reasonOf, type ReadFile } from '../text-file.ts'
import { apiKeyRule, secret, secrets, signingSecretRule, type SecretRule } from './strength.ts'

/** A setting of the config file that names a file with a secret. */
export interface FileSecretSetting {
  readonly path: KeyPath
  /** The issuer that it belongs to; `undefined` for the one of Turnstile. */
  readonly issuer: string | undefined
  readonly file: string
  /** Ends the sentence that begins with "expected". */
  readonly expected: string
  readonly parse: (text: string) => string | readonly string[]
}

/** As it was read. Never leaves this folder unwrapped. */
export interface FileSecret extends Pick<FileSecretSetting, 'path' | 'issuer'> {
  /** The file's path, absolute. */
  readonly source: string
  readonly values: readonly string[]
}

/** `issuers[].secretFile` and `guests.turnstileSecretFile`, where they are set. */
export function fileSecretSettings (
  { issuers, guests: { turnstileSecretFile } }: Pick<GatewayFile, 'issuers' | 'guests'>
): readonly FileSecretSetting[] {
  const shared = { expected: `${expectedFor(signingSecretRule)}, or with several, a line each`, parse: secretLines }
  const turnstile = { expected: expectedFor(apiKeyRule), parse: secret(apiKeyRule) }
  return [
    ...issuers.flatMap(({ issuer, secretFile: file }, index) =>
      file === undefined ? [] : { path: ['issuers', index, 'secretFile'], issuer, file, ...shared }),
    ...(turnstileSecretFile === undefined
      ? []
      : [{ path: ['guests', 'turnstileSecretFile'], issuer: undefined, file: turnstileSecretFile, ...turnstile }])
  ]
}

/** Lines alone: a secret that somebody else has chosen may have a comma in it. */
const linesOf = secrets(signingSecretRule, /[\r\n]/)
/** For a rotation two are enough; a token is not held against more. */
const maxShared = 5

function secretLines (text: string): readonly string[] {
  const values = linesOf(text)
  if (values.length > maxShared) throw new Refusal(`holds ${values.length} values, more than ${maxShared}`)
  return values
}

function expectedFor ({ minBytes }: SecretRule): string {
  return `a file with a secret of at least ${minBytes} bytes`
}

/** Reads the files that the config file names. */
export function readFileSecrets (
  { file, locate }: GatewayFileReading, cwd: string, readFile: ReadFile
): { readonly secrets: readonly FileSecret[], readonly problems: readonly SettingsProblem[] } {
  const problems: SettingsProblem[] = []
  const secrets = fileSecretSettings(file).flatMap(({ path, issuer, file, expected, parse }) => {
    const source = resolve(cwd, file)
    try {
      return [{ path, issuer, source, values: [parse(textOf(source, readFile))].flat() }]
    } catch (error) {
      problems.push(locate({ path, problem: (error as Error).message, expected }))
      return []
    }
  })
  return { secrets, problems }
}

function textOf (path: string, readFile: ReadFile): string {
  try {
    return readFile(path, maxSecretBytes)
  } catch (error) {
    // The path is not shown: some put the secret itself there.
    throw new Refusal(`names no readable file (${reasonOf(error)})`)
  }
}
