import { LRUCache } from 'lru-cache'
import type { LedgerTerms, Stage, Task, UnfinishedTasks } from '../../domain/ledger/ledger.ts'
import { type BusyPlace, type BusySubjects } from './busy-subjects.ts'
import type { Commands } from './commands.ts'
import { decoded, encoded, type KeyNames, type Place, placeOf } from './key-names.ts'
import type { TaskOwners } from './task-owners.ts'

/** Finds tasks. */
export interface Tasks {
  of (taskId: string): Promise<Task | null>
  /** The reservation that stands there, with its task when it has one. */
  at (place: Place): Promise<Found | null>
}

/** A row that is not past its retention. */
interface Found extends Omit<Task, 'taskId'> {
  readonly callbackHash: string | null
  readonly endedAt: number | null
  readonly task: Task | null
}

interface Ended { readonly task: Task, readonly endedAt: number }

/** Memory for tasks that have ended, bytes. */
const endedBytes = 8 * 1024 * 1024
const bytesAround = 500
const fields = ['stage', 'operation', 'model', 'key', 'cost', 'created', 'task', 'ended', 'answer', 'callback'] as const

interface TasksOptions { readonly terms: LedgerTerms, readonly now: () => number }

/** A task that has ended does not change any more, and is what most polls ask for: it is remembered. */
export function redisTasks ({ ask }: Commands, owners: TaskOwners, keys: KeyNames, { terms, now }: TasksOptions): Tasks {
  const ended = new LRUCache<string, Ended>({
    maxSize: endedBytes,
    sizeCalculation: ({ task }) => task.finalAnswer!.length + bytesAround
  })
  const isKept = (endedAt: number | null): boolean => endedAt === null || endedAt + terms.retentionMs > now()
  const at = async (place: Place): Promise<Found | null> => {
    const found = foundFrom(place.subject, await ask(client => client.hmgetBuffer(keys.reservation(place), ...fields)))
    return found !== null && isKept(found.endedAt) ? found : null
  }

  return {
    at,
    async of (taskId) {
      const known = ended.get(taskId)
      if (known !== undefined) return isKept(known.endedAt) ? known.task : null
      const id = await owners.of(taskId)
      const found = id === null ? null : await at(placeOf(id)!)
      if (found === null) return null
      if (found.task === null) {
        // Who owns the id and has not claimed it yet is its owner all the same: it has the answer with the id in its hands.
        return found.stage === 'reserved' ? null : taskFrom(taskId, found)
      }
      if (found.task.taskId !== taskId) return null
      owners.confirm(taskId, id!)
      if (found.endedAt !== null && found.stage === 'settled') ended.set(taskId, { task: found.task, endedAt: found.endedAt })
      return found.task
    }
  }
}

function foundFrom (subject: string, values: ReadonlyArray<Buffer | null>): Found | null {
  const [stage, operation, model, keyId, cost, created, taskId, endedAt, finalAnswer, callbackHash] = values
  if (!stage) return null
  const row = {
    subject,
    operation: String(operation),
    model: String(model),
    keyId: String(keyId),
    stage: String(stage) as Stage,
    microcredits: Number(cost),
    createdAt: Number(created),
    finalAnswer: finalAnswer ?? null
  }
  return {
    ...row,
    callbackHash: callbackHash ? String(callbackHash) : null,
    endedAt: endedAt ? Number(endedAt) : null,
    task: taskId ? taskFrom(decoded(String(taskId)), row) : null
  }
}

function taskFrom (taskId: string, { subject, operation, model, keyId, stage, microcredits, createdAt, finalAnswer }: Omit<Task, 'taskId'>): Task {
  return { taskId, subject, operation, model, keyId, stage, microcredits, createdAt, finalAnswer }
}

/** Steps over the list of busy subjects that one page takes at the most; then it is a short one. */
const stepsPerPage = 16

/** In the order of the busy subjects; a cursor names the last task, and the subject with it. */
export function redisUnfinishedTasks ({ ofSubject }: Commands, busy: BusySubjects): UnfinishedTasks {
  const claimedOf = async (subject: string, after: string, before: number, limit: number): Promise<readonly Claimed[]> => {
    const rows = await ofSubject(subject, 'unfinished', after, before, limit) as Buffer[][]
    return rows.map(row => claimedFrom(subject, row.map(String)))
  }

  return {
    async page (cursor, before, limit) {
      const begin = placeFrom(cursor)
      const items: Task[] = []
      let place: BusyPlace | null = begin
      for (let step = 0; step < stepsPerPage && place !== null; step++) {
        const { subjects, next } = await busy.from(place)
        for (const subject of subjects) {
          const after = step === 0 && subject === begin.subject ? begin.after : '0'
          const found = await claimedOf(subject, after, before, limit - items.length + 1)
          const room = limit - items.length
          items.push(...found.slice(0, room).map(({ task }) => task))
          if (found.length > room) {
            const last = room > 0 ? found[room - 1]!.number : after
            return { items, next: cursorFrom({ ...placeOfSubject(place, subject), after: last }) }
          }
        }
        place = next
      }
      return { items, next: place && cursorFrom({ ...place, after: '0' }) }
    }
  }
}

interface Claimed { readonly number: string, readonly task: Task }
interface PageStart extends BusyPlace { readonly after: string }

const placeOfSubject = ({ shard }: BusyPlace, subject: string): BusyPlace => ({ shard, subject })

function cursorFrom ({ shard, subject, after }: PageStart): string {
  return `${shard} ${after} ${subject === null ? '' : `/${encoded(subject)}`}`
}

function placeFrom (cursor: string | null): PageStart {
  const [shard, after, subject] = (cursor ?? '0 0 ').split(' ')
  return { shard: Number(shard), after: after!, subject: subject === '' ? null : decoded(subject!.slice(1)) }
}

function claimedFrom (subject: string, [number, stage, created, operation, model, keyId, cost, taskId]: readonly string[]): Claimed {
  return {
    number: number!,
    task: {
      taskId: decoded(taskId!),
      subject,
      operation: operation!,
      model: model!,
      keyId: keyId!,
      stage: stage as Stage,
      microcredits: Number(cost),
      createdAt: Number(created),
      finalAnswer: null
    }
  }
}
