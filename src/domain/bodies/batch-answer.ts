import type { UpstreamAnswer } from '../upstream.ts'
import { type FinalState, isFinal, maxTaskIdLength, readEnvelope } from './envelope.ts'
import { effectiveStatus, type NotAccepted, readSubmitAnswer } from './outcome.ts'

/** What became of a batch as a whole. */
export type BatchOutcome = BatchAccepted | NotAccepted

/** Tasks exist, at least one. */
export interface BatchAccepted {
  readonly kind: 'accepted'
  /** `null`: none came, and nobody can ask for this batch. */
  readonly batchId: string | null
  /** For each item in the caller's order; `null`: what became of it is not known. */
  readonly taskIds: ReadonlyArray<string | null>
  readonly answer: UpstreamAnswer
}

/**
 * Reads the answer to a batch. Its shape is a guess, for no document shows one, so it is read for what can't be
 * mistaken: a task id beside the name of one of our items. What is said of an item without a task id is not believed,
 * not even that it was refused; and where an id can't be matched, or comes twice, nothing is.
 */
export function readBatchAnswer (answer: UpstreamAnswer, clientItemIds: readonly string[]): BatchOutcome {
  const { batchId, items } = batchIn(answer.body)
  const named = items.filter(item => item.taskId !== null)
  if (named.length === 0) {
    const outcome = readSubmitAnswer(answer)
    return outcome.kind === 'accepted' ? unknown('one task id and no items') : outcome
  }
  if (answer.status < 200 || answer.status > 299) return unknown(`${answer.status} with task ids`)
  const byName = new Map(named.map(item => [item.clientItemId, item.taskId]))
  const isClear = byName.size === named.length && new Set(byName.values()).size === named.length &&
    named.every(({ clientItemId }) => clientItemId !== null && clientItemIds.includes(clientItemId))
  if (!isClear) return unknown('task ids that can not be matched')
  return { kind: 'accepted', batchId, taskIds: clientItemIds.map(name => byName.get(name) ?? null), answer }
}

/** Tasks that a batch's status says have ended; a hint, at most `limit` of them. */
export function endedTaskIds (answer: UpstreamAnswer, limit: number): string[] {
  if (effectiveStatus(answer.status, readEnvelope(answer.body)) !== 200) return []
  return batchIn(answer.body).items.flatMap(({ taskId, state }) => taskId !== null && state !== null ? taskId : []).slice(0, limit)
}

interface AnsweredItem {
  readonly clientItemId: string | null
  readonly taskId: string | null
  /** `null` while it runs. */
  readonly state: FinalState | null
}

/** A guess: the names of the request and of the single task's answer, in `data` or beside it, in either spelling. */
function batchIn (body: Buffer): { readonly batchId: string | null, readonly items: readonly AnsweredItem[] } {
  const envelope = parse(body)
  const batch = isObject(envelope.data) ? envelope.data : envelope
  const items: readonly unknown[] = Array.isArray(batch.items) ? batch.items : []
  return {
    batchId: idOf(batch.batchId ?? batch.batch_id),
    items: items.filter(isObject).map(item => ({
      clientItemId: idOf(item.client_item_id ?? item.clientItemId),
      taskId: idOf(item.taskId ?? item.task_id),
      state: typeof item.state === 'string' && isFinal(item.state) ? item.state : null
    }))
  }
}

/** Dots alone would be another place in a path, whatever they are encoded as. */
function idOf (value: unknown): string | null {
  return typeof value === 'string' && value.length <= maxTaskIdLength && !/^\.*$/.test(value) ? value : null
}

function parse (body: Buffer): Readonly<Record<string, unknown>> {
  try {
    const value: unknown = JSON.parse(body.toString())
    return isObject(value) ? value : {}
  } catch {
    return {}
  }
}

function isObject (value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function unknown (reason: string): BatchOutcome {
  return { kind: 'unknown', reason }
}
