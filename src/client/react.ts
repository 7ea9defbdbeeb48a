import { useCallback, useEffect, useRef, useState } from 'react'
import type { Client, FinishedTask, GenerateOptions } from './client.ts'

/** What a component shows of its task. */
interface Shown {
  /** `idle`, `uploading`, `submitting`, then the upstream's own words; `failed` also when no task could be made. */
  readonly state: string
  /** `null` until the upstream has named it. */
  readonly taskId: string | null
  /** Empty until it has ended well. */
  readonly results: readonly string[]
  /** A `GatewayError`, or what `getToken` has thrown. */
  readonly error: unknown
  readonly isRunning: boolean
}

export interface Generation extends Shown {
  /**
   * Makes a task, in place of an earlier one of this component. Never rejects: `null` when it has failed, or was
   * cancelled. The same again while it runs is the same task.
   */
  readonly generate: (
    model: string, input: Readonly<Record<string, unknown>>, options?: Pick<GenerateOptions, 'idempotencyKey' | 'files'>
  ) => Promise<FinishedTask | null>
  /** Waits no longer. A task that was made runs on, and is in `tasks()`. */
  readonly cancel: () => void
}

const idle: Shown = { state: 'idle', taskId: null, results: [], error: null, isRunning: false }

/** One task at a time for a component; its wait ends with the component. */
export function useGeneration (client: Client): Generation {
  const [shown, show] = useState(idle)
  const running = useRef<AbortController | null>(null)

  const cancel = useCallback((): void => {
    running.current?.abort()
    if (running.current !== null) show(idle)
    running.current = null
  }, [])
  useEffect(() => () => running.current?.abort(), [])

  const generate = useCallback<Generation['generate']>(async (model, input, options = {}) => {
    running.current?.abort()
    const own = running.current = new AbortController()
    const { signal } = own
    let latest: Shown = { ...idle, state: 'submitting', isRunning: true }
    const tell = (news: Partial<Shown>): void => {
      latest = { ...latest, ...news }
      if (!signal.aborted) show(latest)
    }
    tell({})
    let task: FinishedTask | null = null
    try {
      task = await client.generate(model, input, { ...options, signal, onState: tell })
      tell({ state: 'success', results: task.results, isRunning: false })
    } catch (error) {
      tell({ state: 'failed', error, isRunning: false })
    }
    if (running.current === own) running.current = null
    return task
  }, [client])

  return { ...shown, generate, cancel }
}
