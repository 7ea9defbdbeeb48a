import type { ParseArgsOptionsConfig } from 'node:util'

/** What was given after a command's name. */
export interface Given {
  readonly operands: readonly string[]
  readonly options: Readonly<Record<string, string | undefined>>
  /** Options that are given or not, such as `--create`. */
  readonly flags: ReadonlySet<string>
}

/** One command of `apixo-gateway`. */
export interface Command {
  /** What `--help` prints after `Usage: apixo-gateway `. */
  readonly usage: string
  readonly options?: Readonly<Record<string, ParseArgsOptionsConfig[string]>>
  /** How many operands it takes; none when absent. */
  readonly operands?: readonly number[]
  /** Its exit code; `undefined`: it goes on running. Throws what `exitCodeOf` knows. */
  run (given: Given): Promise<number | undefined>
}

/** The words of a command line are wrong. */
export class UsageError extends Error {
  readonly code = 'ERR_PARSE_ARGS_OPERANDS'
}

/** EX_USAGE and EX_CONFIG of sysexits.h. */
const exitUsage = 64
const exitConfig = 78

/** By code and not by class: errors come from Node, from the settings and from the rules of the domain. */
export function exitCodeOf (error: unknown): number {
  const code = String((error as { code?: unknown }).code)
  if (code === 'GW_SETTINGS') return exitConfig
  return code === 'GW_BAD_REQUEST' || code.startsWith('ERR_PARSE_ARGS') ? exitUsage : 1
}

/** A whole number above zero. Throws `UsageError`. */
export function countOf (option: string, text: string): number {
  if (!/^[1-9]\d{0,5}$/.test(text)) throw new UsageError(`${option} must be a whole number from 1 to 999999.`)
  return Number(text)
}

/** A time such as `90d`, `12h`, `30m`, `45s`, or `0`, in seconds. Throws `UsageError`. */
export function secondsOf (option: string, text: string): number {
  const [, count, unit] = /^(\d{1,9})([dhms])$/.exec(text) ?? (text === '0' ? [text, '0', 's'] : [])
  if (count === undefined) throw new UsageError(`${option} must be a time such as 90d, 12h, 30m or 45s.`)
  return Number(count) * unitSeconds[unit as keyof typeof unitSeconds]
}

const unitSeconds = { d: 86_400, h: 3600, m: 60, s: 1 } as const

/** One of these words. Throws `UsageError`. */
export function choiceOf<Word extends string> (option: string, text: string, words: readonly Word[]): Word {
  const word = words.find(word => word === text)
  if (word === undefined) throw new UsageError(`${option} must be one of ${words.join(', ')}.`)
  return word
}
