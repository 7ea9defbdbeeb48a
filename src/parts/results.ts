import { dirname, join, resolve } from 'node:path'
import type { Logger } from 'pino'
import { type KeptResults, keptResults } from '../adapters/kept-results.ts'
import { undiciResults, type UndiciResultsOptions } from '../adapters/undici-results.ts'
import type { TaskLedger } from '../domain/ledger/ledger.ts'
import type { ResultSource } from '../domain/results/results.ts'
import type { Clock } from '../domain/time.ts'
import type { Settings } from '../settings.ts'
import { dayMs } from './store.ts'

export interface ResultParts {
  readonly results: ResultSource
  /** Forgets copies of results that are past their retention. */
  readonly tidyResults: () => Promise<void>
}

interface ResultClient extends Clock, Omit<UndiciResultsOptions, 'hosts' | 'maxBytes'>, Pick<TaskLedger, 'taskOf'> {
  readonly log: Logger
}

/** Results come from their hosts, or from copies that are made as soon as a task has ended. */
export function openResults (
  { store, file: { results: { keep, ...limits }, tasks } }: Settings, { log, ...client }: ResultClient
): ResultParts & Pick<KeptResults, 'keep'> {
  const results = undiciResults({ ...client, ...limits })
  if (keep === 'none') return { results, tidyResults: async () => {}, keep: () => {} }
  const kept = keptResults({
    ...client,
    directory: store.kind === 'sqlite' && store.path !== ':memory:' ? join(dirname(store.path), 'results') : resolve('data/results'),
    results,
    retentionMs: tasks.retentionDays * dayMs,
    onTrouble: (err, taskId) => log.warn({ err, taskId }, 'a result could not be kept; it is tried again when somebody asks for it')
  })
  return { results: kept, tidyResults: kept.tidy, keep: kept.keep }
}
