import { cases, type CaseName } from './cases.ts'
import { median, range } from './numbers.ts'
import type { EventsMeasured, FilesMeasured } from './streams.ts'

/** What one round of one case on one target gave. */
export interface Measured {
  readonly perSecond: number
  readonly p50Ms: number
  readonly p99Ms: number
  /** Processor time of the target per request, user and system. */
  readonly cpuMicros: number
}

/** A program's memory over its life, and how long its start took. */
export interface Arc {
  readonly name: string
  readonly readySeconds: number
  /** Three seconds after it was ready. */
  readonly idleBytes: number
  /** When the last case was over. */
  readonly loadedBytes: number
  /** The most that it ever was. */
  readonly peakBytes: number
  /** Ten seconds after the last request. */
  readonly recoveredBytes: number
}

/** All that a run has found, by the names of targets. One entry a round, so that rounds pair. */
export interface Figures {
  readonly cells: ReadonlyMap<`${CaseName} ${string}`, readonly Measured[]>
  readonly arcs: ReadonlyMap<string, Arc>
  readonly files: ReadonlyMap<string, readonly FilesMeasured[]>
  readonly events: ReadonlyMap<string, EventsMeasured>
}

/** One figure of a run: its median over the rounds, with the least and the most. */
export interface Figure {
  readonly value: number
  readonly least: number
  readonly most: number
}

export function figure (values: readonly number[]): Figure {
  const [least, most] = range(values)
  return { value: median(values), least, most }
}

/** A target's rounds of a case; `null` where it took no part. */
export function rounds (figures: Figures, name: CaseName, target: string, of: keyof Measured): number[] | null {
  return figures.cells.get(`${name} ${target}`)?.map(round => round[of]) ?? null
}

/** Rounds are divided before anything else, so that what slowed both cancels out. */
export function pairs (a: readonly number[] | null, b: readonly number[] | null): number[] | null {
  if (a === null || b === null) return null
  if (a.length !== b.length) throw new RangeError('rounds do not pair')
  return a.map((value, round) => value / b[round]!)
}

/** What a target needs for a case against what a base does, for what the case is held against. */
export function ratios (
  figures: Figures,
  name: CaseName,
  target: string,
  base: string,
  of: keyof Measured
): number[] | null {
  return pairs(rounds(figures, name, target, of), rounds(figures, cases[name].against, base, of))
}

/** What a target adds to the direct call, ms. */
export function added (figures: Figures, name: CaseName, target: string, of: 'p50Ms' | 'p99Ms'): number[] | null {
  const [theirs, straight] = [rounds(figures, name, target, of), rounds(figures, name, 'direct', of)]
  if (theirs === null || straight === null) return null
  return theirs.map((ms, round) => ms - straight[round]!)
}
