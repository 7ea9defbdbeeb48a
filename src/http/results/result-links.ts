import { resultUrls } from '../../domain/results/results.ts'
import type { ResultTickets } from '../../domain/results/tickets.ts'
import type { TaskEvent } from '../../domain/status/events.ts'

/**
 * Where a caller gets the results of a task whose last answer is `body`, each for a short time and without a header; none
 * when it has none.
 */
export type ResultsOf = (ended: Pick<TaskEvent, 'taskId' | 'subject' | 'body'>) => readonly string[]

/** `publicUrl`: our own origin as callers see it; without it the links are paths. */
export function resultLinks (tickets: Pick<ResultTickets, 'ticketFor'>, publicUrl = ''): ResultsOf {
  return ended => resultUrls({ finalAnswer: ended.body }).map((_, index) => `${publicUrl}/gateway/results/${tickets.ticketFor(ended, index)}`)
}
