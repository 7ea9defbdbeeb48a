import { resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { type CaseName, caseNames } from './cases.ts'

/** What is held against what. */
export type Comparison =
  | { readonly kind: 'peers' }
  | { readonly kind: 'bar' }
  /** Ours beside itself, with each store it can have; the full one has so many tasks. */
  | { readonly kind: 'stores', readonly tasks: number }
  /** Ours with a pool and windows above each subject, beside ours without. */
  | { readonly kind: 'ceilings' }
  /** Streams of LLM calls: ours beside raw. */
  | { readonly kind: 'llm', readonly streams: number, readonly events: number, readonly stepMs: number }
  /** Ours beside the one of another checkout. */
  | { readonly kind: 'beside', readonly tree: string }
  /** What a request of ours makes, and one of the other checkout's; `null`: of 0.3.0's. */
  | { readonly kind: 'counts', readonly tree: string | null }

export interface Plan {
  readonly comparison: Comparison
  readonly cases: readonly CaseName[]
  readonly rounds: number
  readonly seconds: number
  /** Of each way through each target. By the profile, V8 still compiles for three seconds and more. */
  readonly warmUpSeconds: number
  /** No case has more. */
  readonly mostConnections: number
  /** Sessions that take turns. */
  readonly callers: number
  readonly fileBytes: number
  readonly watchers: number
  /** Between the start of a program and a look at its idle memory. */
  readonly settleSeconds: number
  /** Between the last request and a second look at the memory. */
  readonly restSeconds: number
  /** Whether packages of peers may be installed. */
  readonly install: boolean
  /** Whether the results are kept in the repository. */
  readonly write: boolean
}

const barCases: readonly CaseName[] = ['submit', 'finished', 'refusedNew', 'alone']
const changeCases: readonly CaseName[] = ['submit', 'running', 'finished', 'refused', 'refusedNew', 'alone']
const submitCases: readonly CaseName[] = ['submit', 'alone']
const countCases: readonly CaseName[] = ['submit', 'running', 'finished', 'refused', 'refusedNew']

/** Reads the command line. Throws a sentence at what it does not know. */
export function readPlan (args: readonly string[]): Plan {
  const { values } = parseArgs({
    args: [...args],
    options: {
      quick: { type: 'boolean', default: false },
      bar: { type: 'boolean', default: false },
      stores: { type: 'boolean', default: false },
      ceilings: { type: 'boolean', default: false },
      counts: { type: 'boolean', default: false },
      llm: { type: 'boolean', default: false },
      beside: { type: 'string' },
      cases: { type: 'string' },
      rounds: { type: 'string' },
      seconds: { type: 'string' },
      'warm-up': { type: 'string' },
      tasks: { type: 'string' },
      install: { type: 'boolean', default: false },
      write: { type: 'boolean', default: false }
    }
  })
  const { quick } = values
  const positive = (name: 'rounds' | 'seconds' | 'warm-up' | 'tasks', otherwise: number) => {
    const value = Number(values[name] ?? otherwise)
    if (values[name] !== undefined && !(value > 0)) throw new Error(`--${name} wants a number above 0`)
    return value
  }
  const comparison = ((): Comparison => {
    if (values.bar) return { kind: 'bar' }
    if (values.stores) return { kind: 'stores', tasks: positive('tasks', quick ? 1000 : 1_000_000) }
    if (values.ceilings) return { kind: 'ceilings' }
    if (values.llm) {
      const size = quick ? { streams: 20, events: 5, stepMs: 5 } : { streams: 500, events: 200, stepMs: 40 }
      return { kind: 'llm', ...size }
    }
    const tree = values.beside === undefined ? null : resolve(values.beside)
    if (values.counts) return { kind: 'counts', tree }
    if (tree !== null) return { kind: 'beside', tree }
    return { kind: 'peers' }
  })()
  const isWhole = !quick && values.cases === undefined && (comparison.kind === 'peers' || comparison.kind === 'bar')
  if (values.write && !isWhole) throw new Error('--write keeps a whole run with all peers, or one with --bar')
  const usual = {
    peers: caseNames,
    bar: barCases,
    stores: changeCases,
    ceilings: submitCases,
    beside: changeCases,
    counts: countCases,
    llm: []
  }
  const paces = {
    peers: { rounds: 3, seconds: 1.6 },
    bar: { rounds: 5, seconds: 1.6 },
    stores: { rounds: 5, seconds: 4 },
    ceilings: { rounds: 5, seconds: 3 },
    beside: { rounds: 5, seconds: 3 },
    counts: { rounds: 1, seconds: 2 },
    llm: { rounds: 2, seconds: 2 }
  }
  const pace = quick ? { rounds: 1, seconds: 0.1 } : paces[comparison.kind]
  return {
    comparison,
    cases: values.cases === undefined ? usual[comparison.kind] : values.cases.split(',').map(caseOf),
    rounds: Math.ceil(positive('rounds', pace.rounds)),
    seconds: positive('seconds', pace.seconds),
    warmUpSeconds: positive('warm-up', quick ? 0 : comparison.kind === 'counts' ? 3 : 8),
    mostConnections: quick ? 8 : Infinity,
    callers: quick ? 20 : 1000,
    fileBytes: quick ? 1_000_000 : 50_000_000,
    watchers: quick ? 50 : 1000,
    settleSeconds: quick ? 0 : 3,
    restSeconds: quick ? 0.1 : 10,
    install: values.install,
    write: values.write
  }
}

function caseOf (name: string): CaseName {
  const found = caseNames.find(known => known === name)
  if (found === undefined) throw new Error(`--cases: ${name} is none of ${caseNames.join(', ')}`)
  return found
}
