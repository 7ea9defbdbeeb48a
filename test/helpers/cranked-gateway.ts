import { setTimeout as wait } from 'node:timers/promises'
import type { Test } from 'tap'
import { clock } from './clock.ts'
import { type EventSourceOptions, type HeardEvent, openEvents } from './event-source.ts'
import { startGateway, taskMs, type TestGatewayOptions } from './gateway.ts'
import { crankedTimers } from './timers.ts'
import { until } from './until.ts'

/** Least time between two status calls for a model that is in no models.json, ms. */
export const intervalMs = 5000

/** A gateway whose time, timers included, stands still unless the test turns it on. */
export async function crankedGateway (t: Test, options: TestGatewayOptions = {}) {
  const time = options.time ?? clock()
  const timers = crankedTimers(time)
  const gateway = await startGateway(t, { ...options, time, timers })
  const pass = (ms: number): void => {
    time.advance(ms)
    timers.run()
  }
  /** Half of a task's run passes, and what that sets off may happen, as often as it takes. */
  const passUntil = (what: string, holds: () => unknown): Promise<void> => until(what, async () => {
    pass(taskMs / 2)
    await wait(50)
    return await holds()
  })
  const listen = (path: string, options: EventSourceOptions) => openEvents(t, gateway.origin + path, options)
  const listenTo = (taskId: string, options: EventSourceOptions) => listen(`/gateway/tasks/${taskId}/events`, options)
  const made = async (token: string, prompt?: string, model?: string): Promise<string> =>
    (await gateway.submit(token, prompt, model)).json.data.taskId
  const polls = (): number => gateway.sandbox.calls.filter(({ url }) => url.includes('/statusTask/')).length
  return { ...gateway, timers, pass, passUntil, listen, listenTo, made, polls }
}

/** The states that were told, in their order. */
export function statesOf (events: readonly HeardEvent[]): string[] {
  return events.map(({ data }) => JSON.parse(data).data.state)
}
