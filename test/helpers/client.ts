import { setTimeout as wait } from 'node:timers/promises'
import type { Test } from 'tap'
import { clientOver } from '../../src/client/calls.ts'
import type { Client, ClientOptions, GatewayError } from '../../src/client/client.ts'
import type { Timing } from '../../src/client/transport.ts'
import { silenceMs } from '../../src/client/waiting.ts'
import { crankedGateway } from './cranked-gateway.ts'
import { type FaultyProxy, faultyProxy } from './faulty-proxy.ts'
import type { TestGatewayOptions } from './gateway.ts'

/** A client in this process, with a gateway behind a proxy, and time that the test turns. */
export type ClientSetup = Awaited<ReturnType<typeof clientSetup>>

/** `pauses`: what the client has waited for so far, ms; the gateway's time passes with it. */
export async function clientSetup (t: Test, options: TestGatewayOptions = {}) {
  const gateway = await crankedGateway(t, options)
  const proxy = await faultyProxy(t, gateway.origin)
  const pauses: number[] = []
  /** Set by a test: the time is over in which a stream has to say something. It is used up by the first that waits. */
  const silence = { isOver: false }
  const timing = timingOf(pauses, silence, gateway)
  const client = (more: ClientOptions = {}): Client => clientOver({ baseUrl: proxy.origin, ...more }, timing)
  const as = async (subject: string, more: ClientOptions = {}): Promise<Client> =>
    client({ token: await gateway.mint(subject), ...more })
  return { ...gateway, proxy, pauses, silence, client, as, turning: turning(gateway.pass) }
}

function timingOf (
  pauses: number[], silence: { isOver: boolean },
  { pass, time }: { pass: (ms: number) => void, time: { now: () => number } }
): Timing {
  return {
    async pause (ms, signal) {
      if (ms === silenceMs) {
        while (!silence.isOver && !signal.aborted) await wait(1)
        silence.isOver = false
        return
      }
      pauses.push(ms)
      pass(ms)
      await wait(1)
    },
    random: Math.random,
    now: time.now
  }
}

/** What a call throws. */
export async function thrown (work: Promise<unknown>): Promise<GatewayError> {
  return await work.then(() => { throw new Error('it went well') }, error => error)
}

/** Turns the gateway's time while somebody waits for something. */
export function turning (pass: (ms: number) => void) {
  return async <T>(work: Promise<T>): Promise<T> => {
    const over = work.then(() => true, () => true)
    do pass(250)
    while (!await Promise.race([over, wait(3, false)]))
    return await work
  }
}

/** Whether a request is a submit. */
export function isSubmit ({ url = '' }: { readonly url?: string | undefined }): boolean {
  return url.includes('/generateTask/')
}

/** Whether a request is for a stream of events. */
export function isStream ({ url = '' }: { readonly url?: string | undefined }): boolean {
  return url.endsWith('/events')
}

/** The requests that a proxy has seen of a kind. */
export function seen (proxy: FaultyProxy, kind: (request: { readonly url: string }) => boolean): number {
  return proxy.requests.filter(line => kind({ url: line.split(' ')[1]! })).length
}
