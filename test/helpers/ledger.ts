import { type LedgerClient, ledgerClient } from '../../src/domain/ledger-client.ts'
import type { ReservationId, ReserveRequest, TaskLedger, Transition } from '../../src/domain/ledger.ts'
import { clock } from './clock.ts'

/** A reservation that nobody can refuse. */
export const request: ReserveRequest = {
  subject: 'app:alice',
  operation: 'generateTask',
  model: 'suno',
  keyId: 'k',
  microcredits: 5,
  refundable: true,
  periodStart: 0,
  creditLimit: null,
  taskLimit: 1
}

/** A ledger that grants and takes everything, but for what a test has it do, and the client in front of it. */
export interface ScriptedLedger {
  readonly ledger: LedgerClient
  /** What the ledger was told, as `id step`. */
  readonly steps: string[]
  /** What was counted. */
  readonly counted: string[]
  /** Tasks that ended well. */
  readonly succeeded: string[]
  /** Steps that outlived the patience. */
  readonly delayed: Array<readonly [ReservationId, Transition]>
}

export function scriptedLedger (
  scripted: Partial<TaskLedger>, wait?: (ms: number) => Promise<unknown>
): ScriptedLedger {
  const time = clock()
  const steps: string[] = []
  const counted: string[] = []
  const succeeded: string[] = []
  const delayed: Array<readonly [ReservationId, Transition]> = []
  const answers: TaskLedger = {
    reserve: async () => ({ granted: true, id: '1' }),
    reserveAll: async requests => ({ granted: true, ids: requests.map((_, index) => String(index + 1)) }),
    advance: async () => true,
    settle: async () => true,
    taskOf: async () => null,
    giveUp: async () => true,
    abandon: async () => ({ result: 'ended' }),
    sweep: async () => ({ released: 0, unknown: 0 }),
    ...scripted
  }
  const ledger = ledgerClient({
    ...answers,
    async advance (id, step) {
      steps.push(`${id} ${step.to}`)
      return await answers.advance(id, step)
    }
  }, {
    metrics: {
      credits: (operation, outcome, microcredits) => { counted.push(`${operation} ${outcome} ${microcredits}`) },
      unknown: count => { counted.push(`unknown outcomes: ${count}`) }
    },
    onSucceeded: taskId => { succeeded.push(taskId) },
    elapsed: time.elapsed,
    wait: wait ?? (async ms => time.advance(ms)),
    patienceMs: 10_000,
    onDelayed: (id, step) => { delayed.push([id, step]) }
  })
  return { ledger, steps, counted, succeeded, delayed }
}
