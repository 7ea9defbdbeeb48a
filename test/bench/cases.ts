import type { ShotName } from './shots.ts'

/** One way of asking. A target takes part when it has the requests for it. */
export interface Case {
  readonly title: string
  readonly shots: ShotName
  readonly connections: number
  /** The status of every answer. */
  readonly expect: number
  /** Requests a second, where that is fixed; `null`: as many as it takes. */
  readonly perSecond: number | null
  /** The case of another target that its cost is held against: what refuses forwards nothing. */
  readonly against: CaseName
  /** Whether a warm-up of its own is needed; the others go the same way as one that is warmed. */
  readonly warmUp: boolean
}

export const caseNames = [
  'submit', 'submit16k', 'upload', 'running', 'finished', 'refused', 'refusedNew', 'limited',
  'alone', 'conns128', 'conns1000', 'paced'
] as const

export type CaseName = typeof caseNames[number]

/** The rate that the slowest of the peers can do as well. */
export const pacedPerSecond = 500

const submits = { shots: 'submit', connections: 32, expect: 200, perSecond: null, against: 'submit', warmUp: false } as const

export const cases: Readonly<Record<CaseName, Case>> = {
  submit: { ...submits, title: 'submit of 300 bytes, 32 connections', warmUp: true },
  submit16k: { ...submits, title: 'submit of 16 kB, 32 connections', shots: 'submit16k', against: 'submit16k' },
  upload: { ...submits, title: 'submit of 5 MB, 8 connections', shots: 'upload', connections: 8, against: 'upload' },
  running: {
    ...submits, title: 'status of a task that runs, 32 connections', shots: 'running', against: 'running', warmUp: true
  },
  finished: {
    ...submits, title: 'status of a finished task, 32 connections', shots: 'finished', against: 'finished', warmUp: true
  },
  refused: { ...submits, title: 'the same bad token over and over, 32 connections', shots: 'refused', expect: 401 },
  refusedNew: {
    ...submits, title: 'ever-new bad tokens, 32 connections', shots: 'refusedNew', expect: 401, warmUp: true
  },
  limited: { ...submits, title: 'over the limit (429), 32 connections', shots: 'limited', expect: 429 },
  alone: { ...submits, title: 'submit of 300 bytes, 1 connection', connections: 1, against: 'alone' },
  conns128: { ...submits, title: 'submit of 300 bytes, 128 connections', connections: 128, against: 'conns128' },
  conns1000: { ...submits, title: 'submit of 300 bytes, 1,000 connections', connections: 1000, against: 'conns1000' },
  paced: {
    ...submits,
    title: `submit of 300 bytes, ${pacedPerSecond} a second on 32 connections`,
    perSecond: pacedPerSecond,
    against: 'paced'
  }
}
