import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Test } from 'tap'

/** Secrets in files of their own, in a folder that goes with its test. */
export interface SecretFiles {
  /** Names the files, and takes away the variables themselves. */
  readonly env: Readonly<Record<string, string>>
  path (name: string): string
  /** Puts another file in its place, as one that shall never be half of anything is written. */
  rotate (name: string, text: string): void
}

export function secretFiles (t: Test, secrets: Readonly<Record<string, string>>): SecretFiles {
  const folder = mkdtempSync(join(tmpdir(), 'gateway-secrets-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  const path = (name: string): string => join(folder, name)
  for (const [name, text] of Object.entries(secrets)) writeFileSync(path(name), text)
  return {
    env: Object.fromEntries(Object.keys(secrets).flatMap(name => [[name, ''], [`${name}_FILE`, path(name)]])),
    path,
    rotate (name, text) {
      writeFileSync(path(`${name}.new`), text)
      renameSync(path(`${name}.new`), path(name))
    }
  }
}
