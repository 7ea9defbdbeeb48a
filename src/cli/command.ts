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

/** EX_USAGE, EX_UNAVAILABLE and EX_CONFIG of sysexits.h. */
const exitUsage = 64
const exitUnavailable = 69
const exitConfig = 78

/** Beside what is wrong with the settings or the store. */
export const hint =
  "This command needs the settings of the server: run it in the server's folder, with the server's environment."

/** By code and not by class: errors come from Node, from the settings and from the rules of the domain. */
export function exitCodeOf (error: unknown): number {
  const code = String((error as { code?: unknown }).code)
  if (code === 'GW_SETTINGS') return exitConfig
  if (code === 'EX_UNAVAILABLE') return exitUnavailable
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

/** A column of a table for people. */
export interface Column<Row> {
  readonly title: string
  readonly of: (row: Row) => string | number
  /** Gives way first when the terminal is narrow: what is cut ends in `…`. */
  readonly shrinks?: true
}

/** No narrower, or nobody could tell two texts apart. */
const leastWidth = 8
const gap = '  '
const indent = '    '

/** Numbers stand to the right. `width`: of the terminal; endless where there is none. */
export function table<Row> (
  columns: ReadonlyArray<Column<Row>>, rows: readonly Row[], width = process.stdout.columns ?? Infinity
): string {
  const lines = rows.map(row => columns.map(({ of }) => of(row)))
  const texts = [columns.map(({ title }) => title.toUpperCase()), ...lines.map(cells => cells.map(printable))]
  const widths = fitted(columns, columns.map((_, at) => Math.max(...texts.map(cells => cells[at]!.length))), width)
  const isNumber = columns.map((_, at) => lines.every(cells => typeof cells[at] === 'number'))
  const padded = (text: string, at: number): string => {
    const cut = text.length > widths[at]! ? `${text.slice(0, widths[at]! - 1)}…` : text
    return isNumber[at] ? cut.padStart(widths[at]!) : cut.padEnd(widths[at]!)
  }
  return texts.map(cells => `${cells.map(padded).join(gap).trimEnd()}\n`).join('')
}

/** Words under a row of a table, indented, on as many lines as they need. */
export function paragraph (words: readonly string[], width = process.stdout.columns ?? Infinity): string {
  const lines: string[] = []
  for (const word of words.map(printable)) {
    const longer = `${lines.at(-1) ?? ''} ${word}`
    if (lines.length === 0 || indent.length + longer.length > width) lines.push(word)
    else lines[lines.length - 1] = longer
  }
  return lines.map(line => `${indent}${line}\n`).join('')
}

function fitted<Row> (columns: ReadonlyArray<Column<Row>>, natural: readonly number[], width: number): number[] {
  const widths = [...natural]
  const shrinking = columns.flatMap(({ shrinks }, at) => shrinks === true ? [at] : [])
  let excess = widths.reduce((sum, one) => sum + one, gap.length * (widths.length - 1)) - width
  for (; excess > 0; excess--) {
    const widest = shrinking.toSorted((one, other) => widths[other]! - widths[one]!)[0]
    if (widest === undefined || widths[widest]! <= leastWidth) break
    widths[widest]!--
  }
  return widths
}

/** A control character of somebody's name would be a command to the terminal. */
export function printable (value: string | number): string {
  return String(value).replaceAll(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, '\uFFFD')
}

/** `2026-01-31 12:00:00`, UTC. */
export function shortInstant (iso: string): string {
  return iso.slice(0, 19).replace('T', ' ')
}
