import { once } from 'node:events'
import { type IncomingMessage, request } from 'node:http'
import { join } from 'node:path'
import { json as read } from 'node:stream/consumers'
import type { Scripted } from './gateways.ts'

/** Asks the probe inside a running program. */
export interface Probe {
  /** The longest that the loop was held in each of these seconds, ms. */
  holds (seconds: number): Promise<number[]>
  /** Bytes allocated on V8's heap while the work is done, by the requests that it says it has made. */
  allocated (work: () => Promise<number>): Promise<number>
  /** What is made meanwhile, as `node:async_hooks` names it (`PROMISE`, `Timeout`, …), by the requests. */
  created (work: () => Promise<number>): Promise<Record<string, number>>
}

/** The variant with a probe in it, and how to ask that. `folder`: where its socket goes. */
export function probed (variant: Scripted, folder: string): { readonly variant: Scripted, readonly probe: Probe } {
  const socketPath = join(folder, `${variant.name}.probe`)
  const ask = async (path: string): Promise<any> => {
    const outgoing = request({ socketPath, path, agent: false }).end()
    const [answer] = await once(outgoing, 'response') as [IncomingMessage]
    return await read(answer)
  }
  return {
    variant: {
      ...variant,
      command: ['--import', join(import.meta.dirname, 'programs/probe.ts'), ...variant.command],
      env: { ...variant.env, BENCH_PROBE: socketPath }
    },
    probe: {
      async holds (seconds) {
        const holds: number[] = []
        await ask('/loop/start')
        for (let second = 0; second < seconds; second++) {
          await new Promise(resolve => setTimeout(resolve, 1000))
          holds.push(await ask('/loop/read'))
        }
        await ask('/loop/stop')
        return holds
      },
      async allocated (work) {
        await ask('/heap/start')
        const requests = await work()
        return await ask('/heap/stop') / requests
      },
      async created (work) {
        await ask('/resources/start')
        const requests = await work()
        const made: Record<string, number> = await ask('/resources/stop')
        return Object.fromEntries(Object.entries(made).map(([kind, count]) => [kind, count / requests]))
      }
    }
  }
}
