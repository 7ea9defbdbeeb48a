import type { SandboxTask } from './tasks.ts'

/** One item of a batch, with what it came to. */
export interface SandboxItem {
  readonly clientItemId: string
  /** `null` when it was refused. */
  readonly task: SandboxTask | null
}

/** A batch as the sandbox remembers it. */
export interface SandboxBatch {
  readonly batchId: string
  /** The bearer key that made it: the batch belongs to this key's account. */
  readonly key: string
  readonly model: string
  readonly items: readonly SandboxItem[]
}

/** The batches of one sandbox, and the tasks by the keys of the items that made them. */
export interface BatchStore {
  byId (batchId: string): SandboxBatch | undefined
  /** By the key of its account and its `Idempotency-Key`. */
  byKey (key: string, idempotencyKey: string): SandboxBatch | undefined
  add (batch: SandboxBatch, idempotencyKey: string): void
  /** The task that this account's item key has made. */
  taskOf (key: string, itemKey: string): SandboxTask | undefined
  remember (itemKey: string, task: SandboxTask): void
}

/** Remembers at most `limit` of each and forgets the oldest first. */
export function batchStore (limit: number): BatchStore {
  const byId = new Map<string, SandboxBatch>()
  const byKey = new Map<string, SandboxBatch>()
  const tasks = new Map<string, SandboxTask>()
  const put = <Value>(map: Map<string, Value>, name: string, value: Value): void => {
    map.set(name, value)
    for (const oldest of map.keys()) {
      if (map.size <= limit) break
      map.delete(oldest)
    }
  }
  // A bearer key holds no space, so that no two pairs make one name.
  const name = (key: string, own: string): string => `${key} ${own}`
  return {
    byId: batchId => byId.get(batchId),
    byKey: (key, idempotencyKey) => byKey.get(name(key, idempotencyKey)),
    add (batch, idempotencyKey) {
      put(byId, batch.batchId, batch)
      put(byKey, name(batch.key, idempotencyKey), batch)
    },
    taskOf: (key, itemKey) => tasks.get(name(key, itemKey)),
    remember: (itemKey, task) => put(tasks, name(task.key, itemKey), task)
  }
}
