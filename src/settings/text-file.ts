import { readFileSync } from 'node:fs'

/** Reads a text file; throws what `node:fs` throws. */
export type ReadFile = (path: string) => string

export function readText (path: string): string {
  return readFileSync(path, 'utf8')
}

/** Why a file could not be read, in a word without its path: that may be a secret in the wrong place. */
export function reasonOf (error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : 'for no known reason'
}
