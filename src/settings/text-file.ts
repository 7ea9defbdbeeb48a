import { readFileSync, statSync } from 'node:fs'
import { Refusal } from './settings-error.ts'

/** Reads a text file; throws what `node:fs` throws. */
export type ReadFile = (path: string) => string

export function readText (path: string): string {
  return readFileSync(path, 'utf8')
}

/** Why a file could not be read, in a word without its path: that may be a secret in the wrong place. */
export function reasonOf (error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : 'for no known reason'
}

/** Longer than any list of secrets, bytes. */
const maxBytes = 65_536

/** Reads a short text file. It may be called while the gateway serves: a pipe or a disk's worth of text would hold it up. */
export function readShortText (path: string): string {
  const found = statSync(path)
  if (!found.isFile()) throw new Refusal('is no plain file')
  if (found.size > maxBytes) throw new Refusal(`has ${found.size} bytes, more than ${maxBytes}`)
  return readText(path)
}
