import { UsageError } from './command.ts'

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
