import { randomBytes } from 'node:crypto'
import type { CallbackFate } from './callbacks.ts'

/** What a prompt's words change about the run of a task. */
export interface TaskPlan {
  /** How the task ends; `success` when absent. `never` stays pending. */
  readonly ends?: 'failed' | 'never'
  /** The state of the middle third of the run; the usual one when absent. */
  readonly middleState?: string
  readonly callback?: CallbackFate
}

/** A task as the sandbox remembers it. */
export interface SandboxTask {
  /** 32 lower-case hexadecimal digits, as in the one real answer seen. */
  readonly taskId: string
  /** The bearer key that made it: the task belongs to this key's account. */
  readonly key: string
  readonly model: string
  readonly prompt: string
  readonly input: Readonly<Record<string, unknown>>
  readonly plan: TaskPlan
  /** `callback_url` of the request. */
  readonly callbackUrl: string | null
  /** Unix milliseconds. */
  readonly createTime: number
  /** Unix milliseconds; in the future while the task runs. */
  readonly completeTime: number
  /** File names of its results, which nobody can guess. */
  readonly resultNames: readonly string[]
}

export interface TaskRequest extends Pick<SandboxTask, 'key' | 'model' | 'prompt' | 'input' | 'plan' | 'callbackUrl'> {
  readonly results: number
}

/** Makes a task that starts at `createTime` (Unix milliseconds) and runs for `taskMs` milliseconds. */
export function newTask ({ results, ...request }: TaskRequest, createTime: number, taskMs: number): SandboxTask {
  return {
    ...request,
    taskId: randomBytes(16).toString('hex'),
    createTime,
    completeTime: createTime + taskMs,
    resultNames: Array.from({ length: results }, () => `${randomBytes(16).toString('hex')}.png`)
  }
}

/**
 * The state of a task at `now` (Unix milliseconds): the first third of its run is pending, the rest processing. The
 * shares are the sandbox's own; the documents give only the order.
 *
 * @see https://apixo.ai/docs/concepts/async-workflow
 */
export function taskState ({ plan, createTime, completeTime }: SandboxTask, now: number): string {
  if (plan.ends === 'never') return 'pending'
  if (now >= completeTime) return plan.ends ?? 'success'
  const third = (completeTime - createTime) / 3
  if (now < createTime + third) return 'pending'
  return now < createTime + 2 * third ? plan.middleState ?? 'processing' : 'processing'
}

/**
 * `data` of a status answer at `now` (Unix milliseconds). `resultUrl` makes the URL of a result's file name. A failed
 * task has no `costTime`, as in the documented example; the code and text are that example's.
 *
 * @see https://apixo.ai/docs/api-reference/status-task
 */
export function statusData (task: SandboxTask, now: number, resultUrl: (name: string) => string): object {
  const { taskId, createTime, completeTime, resultNames } = task
  const state = taskState(task, now)
  if (state === 'failed') {
    const why = { failCode: 'CONTENT_VIOLATION', failMsg: 'Content violates usage policy' }
    return { taskId, state, ...why, createTime, completeTime }
  }
  if (state !== 'success') return { taskId, state, createTime }
  // A string that holds JSON, not an object: that is the documented shape.
  const resultJson = JSON.stringify({ resultUrls: resultNames.map(resultUrl) })
  return { taskId, state, resultJson, costTime: completeTime - createTime, createTime, completeTime }
}

/** The tasks of one sandbox, oldest first. */
export interface TaskStore {
  readonly byId: ReadonlyMap<string, SandboxTask>
  add (task: SandboxTask): void
  /** The task that was added last. */
  latest (): SandboxTask | undefined
  /** Which result of which task has this file name. */
  ofResult (name: string): { readonly task: SandboxTask, readonly index: number } | undefined
}

/** Remembers at most `limit` tasks and forgets the oldest first. */
export function taskStore (limit: number): TaskStore {
  const byId = new Map<string, SandboxTask>()
  const byResult = new Map<string, SandboxTask>()
  let latest: SandboxTask | undefined
  const forget = (task: SandboxTask): void => {
    byId.delete(task.taskId)
    for (const name of task.resultNames) byResult.delete(name)
  }
  return {
    byId,
    latest: () => latest,
    add (task) {
      byId.set(task.taskId, task)
      for (const name of task.resultNames) byResult.set(name, task)
      latest = task
      for (const oldest of byId.values()) {
        if (byId.size <= limit) break
        forget(oldest)
      }
    },
    ofResult (name) {
      const task = byResult.get(name)
      return task && { task, index: task.resultNames.indexOf(name) }
    }
  }
}

/**
 * The task models the sandbox knows: every id that APIXO's model pages name. The list moves often, so
 * `SandboxOptions.models` adds to it. Both `flux-2` and `flux2` are here because the pages disagree.
 *
 * @see https://apixo.ai/docs/models/image and its neighbours `video` and `audio`
 */
export const sandboxModels: readonly string[] = [
  'nano-banana', 'nano-banana-pro', 'nano-banana-2', 'gpt-image-1', 'gpt-image-2', 'grok-image', 'flux-2', 'flux2',
  'flux-kontext', 'midjourney', 'seedream-4-0', 'seedream-4-5', 'seedream-5-0', 'seedream-5-0-pro', 'qwen-image',
  'qwen-2-image', 'wan-2-5-image', 'wan-2-7-image', 'minimax-image-01', 'runway-gen4-image',
  'runway-gen4-image-turbo',
  'sora-2', 'sora-2-pro', 'veo-3-1', 'kling-2-1', 'kling-2-5-turbo-pro', 'kling-2-6', 'kling-3-0-std',
  'seedance-1-5-pro', 'seedance-2-0', 'seedance-2-0-fast', 'hailuo-2-3', 'hailuo-2-3-fast', 'wan-2-5',
  'wan-2-5-video', 'grok-video', 'ltx-2-19b', 'vidu-q3', 'happyHorse',
  'suno'
]

/** What each accepted task costs here, in USD. Real prices differ by model and routing; a flat one is easy to check. */
export const priceUsd = 0.03

/** How many results a model makes when nobody says: Midjourney draws four pictures, Suno gives two tracks. */
const usualResults: Readonly<Record<string, number>> = { midjourney: 4, suno: 2 }

/** How many results this request gets, or `null` when `num_images` is not a whole number from 1 to 4. */
export function resultCount (model: string, numImages: unknown): number | null {
  if (numImages === undefined) return usualResults[model] ?? 1
  const good = Number.isInteger(numImages) && Number(numImages) >= 1 && Number(numImages) <= 4
  return good ? Number(numImages) : null
}
