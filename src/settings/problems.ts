import { distance } from 'fastest-levenshtein'
import { closeSync, constants, fstatSync, openSync, readSync, statSync } from 'node:fs'

/** One thing that is wrong with the settings. No text in it ever holds the value of a secret. */
export interface SettingsProblem {
  /** An environment variable, or a key path of the config file such as `plans.default.models`. */
  readonly setting: string
  /** `environment`, or the path of a file, for the config file with the line: `/app/config/gateway.yaml:12`. */
  readonly source: string
  readonly problem: string
  readonly expected: string
}

/** The settings can not be used. Holds every problem at once, so that an operator corrects them in one go. */
export class SettingsError extends Error {
  readonly code = 'GW_SETTINGS'
  readonly problems: readonly SettingsProblem[]

  constructor (problems: readonly SettingsProblem[]) {
    super([
      `${problems.length === 1 ? 'One setting is' : `${problems.length} settings are`} wrong:`,
      ...problems.map(({ setting, source, problem, expected }) =>
        `- ${setting} (${source}): ${problem}; expected: ${expected}`)
    ].join('\n'))
    this.name = 'SettingsError'
    this.problems = problems
  }
}

/** Thrown by the parser of one value, which knows neither the name of its setting nor where the text came from. */
export class InvalidSetting extends Error {
  readonly expected: string | undefined

  constructor (problem: string, expected?: string) {
    super(problem)
    this.expected = expected
  }
}

/** Shows a value that is no secret: short, on one line, without control characters and without what may be a secret. */
export function shown (text: string): string {
  const line = JSON.stringify(maskedUrl(text).replace(/^\w+:(?!\/\/).*@/s, '***@'))
  return line.length > 80 ? `${line.slice(0, 79)}…` : line
}

/** Hides the credentials of a URL, also those with a slash in them, which no parser takes for any, and its query. */
export function maskedUrl (text: string): string {
  return text
    .replace(/\/\/.*@/s, '//***@')
    .replace(/(:\/\/[^?#]*[?#]).+$/s, '$1***')
    .replace(/([?&][^=&\s]*=)[^&\s*]+/g, '$1***')
}

/**
 * The known name that is nearest to a misspelt one, by the part of its letters that it shares. The prefix does not
 * count, as GATEWAY_API_KEY is meant to be APIXO_API_KEY.
 */
export function nearestName (name: string, known: readonly string[]): string {
  return known.reduce((nearest, other) => difference(name, other) < difference(name, nearest) ? other : nearest)
}

/** Edits per letter, 0 to 1. Edits alone would find any short name nearer than a long one with a word missing. */
function difference (one: string, other: string): number {
  const [a, b] = [bare(one), bare(other)]
  return distance(a, b) / Math.max(a.length, b.length, 1)
}

function bare (name: string): string {
  return name.replace(/^(?:GATEWAY|APIXO)_/, '')
}

/** Reads a text file of at most so many bytes; throws what `node:fs` throws, and a `Refusal`. */
export type ReadFile = (path: string, maxBytes?: number) => string

/** Longer than any list of secrets, bytes. */
export const maxSecretBytes = 65_536
/** Longer than any config file, bytes. */
const maxTextBytes = 4_194_304
/** How long a pipe may take to say all it has, ms. */
const pipeMs = 5000

/**
 * Reads a text file, or a pipe such as `/dev/stdin`, of which a start must not hang: `/dev/zero` has no end, and a pipe
 * may have nobody at its other end. It holds up the event loop for `waitMs` at most, so it is for the start alone.
 */
export function readText (path: string, maxBytes = maxTextBytes, waitMs = pipeMs): string {
  const file = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
  try {
    return readAll(file, maxBytes, performance.now() + waitMs)
  } finally {
    closeSync(file)
  }
}

function readAll (file: number, maxBytes: number, deadline: number): string {
  const isPipe = fstatSync(file).isFIFO()
  const buffer = Buffer.allocUnsafe(16_384)
  const chunks: Buffer[] = []
  let size = 0
  let length: number | null
  do {
    length = readSome(file, buffer)
    if (length !== null && length > 0) {
      size += length
      if (size > maxBytes) throw new InvalidSetting(`has more than ${maxBytes} bytes`)
      chunks.push(Buffer.from(buffer.subarray(0, length)))
    } else if (length === 0 && (size > 0 || !isPipe)) return Buffer.concat(chunks).toString('utf8')
    // Nobody has opened the other end of the pipe yet, or its writer is slow.
    else Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5)
  } while ((length !== null && length > 0) || performance.now() < deadline)
  throw new InvalidSetting('does not come to an end')
}

/** `null`: nothing yet. */
function readSome (file: number, buffer: Buffer): number | null {
  try {
    return readSync(file, buffer)
  } catch (error) {
    if (reasonOf(error) === 'EAGAIN') return null
    throw error
  }
}

/** Why a file could not be read, in a word without its path: that may be a secret in the wrong place. */
export function reasonOf (error: unknown): string {
  if (error instanceof InvalidSetting) return error.message
  return error instanceof Error && 'code' in error ? String(error.code) : 'for no known reason'
}

/**
 * Reads a short text file. It may be called while the gateway serves: a pipe or a disk's worth of text would hold it
 * up.
 */
export function readShortText (path: string): string {
  const found = statSync(path)
  if (!found.isFile()) throw new InvalidSetting('is no plain file')
  if (found.size > maxSecretBytes) throw new InvalidSetting(`has ${found.size} bytes, more than ${maxSecretBytes}`)
  return readText(path, maxSecretBytes)
}

/** Whether a file can be read again: a pipe has said all it had to say. One that is gone may come back. */
export function isLasting (path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isFile() !== false
}
