import { errorFrom, unreachable } from './answers.ts'
import type { ConnectionOptions, RequestOptions } from './client.ts'
import { GatewayError } from './errors.ts'

/** What tests turn by hand. */
export interface Timing {
  /** Resolves after so many ms, or when `signal` is aborted. */
  readonly pause: (ms: number, signal: AbortSignal) => Promise<void>
  /** From 0 to 1. */
  readonly random: () => number
  /** Unix ms. */
  readonly now: () => number
}

export const realTiming: Timing = {
  pause: (ms, signal) => new Promise(resolve => {
    const done = (): void => {
      clearTimeout(timer)
      signal.removeEventListener('abort', done)
      resolve()
    }
    const timer = setTimeout(done, ms)
    signal.addEventListener('abort', done)
    if (signal.aborted) done()
  }),
  random: Math.random,
  now: Date.now
}

/** One call, however often it is sent. */
export interface Call extends RequestOptions {
  /** How often it is sent at most while it fails in a way that passes; once, when a second time might do more. */
  readonly tries?: number | undefined
}

export interface Transport {
  /** Sends a call until it is answered well, and reads that answer. Throws a `GatewayError`, or the signal's reason. */
  ask <T>(path: string, call: Call, read: (response: Response) => Promise<T>): Promise<T>
  /** Does something until it comes to an end, or fails in a way that does not pass. */
  retry <T>(call: Pick<Call, 'signal' | 'tries'>, work: () => Promise<T>): Promise<T>
  /** Waits for so long, or until the network is back. Throws the signal's reason. */
  rest (ms: number, signal: AbortSignal | undefined): Promise<void>
  /**
   * The same links, at the address where the caller has found the gateway: theirs is the one that it knows itself by,
   * which behind a proxy of the page's own may be another.
   */
  linksTo (links: readonly string[]): readonly string[]
}

/** A wait that goes on for longer is an end of it: nobody looks at a button for minutes. */
const longestRetryAfterMs = 60_000
const firstPauseMs = 500
const longestPauseMs = 10_000
/** For calls that may be sent again: some ten seconds, and what the gateway asks for. */
export const usualTries = 6

export function transport (
  { baseUrl, token, getToken, fetch: send = fetch }: ConnectionOptions, { pause, random }: Timing
): Transport {
  const base = (baseUrl ?? globalThis.location?.origin ?? '').replace(/\/+$/, '')
  const session = tokens(token, getToken)

  /** A token that the gateway takes no more is renewed once. */
  const attempt = async (path: string, { method, headers, body, signal }: Call): Promise<Response> => {
    // Anything else would go on with the name of the host, and the token to whoever has that one.
    if (!/^\/(?![/\\])/.test(path)) throw new TypeError(`A path begins with one slash, and ${path} does not.`)
    for (let isRenewed = false; ; isRenewed = true) {
      const used = await session.current()
      signal?.throwIfAborted()
      const response = await send(base + path, {
        ...(method !== undefined && { method }),
        ...(body !== undefined && { body }),
        ...(signal && { signal }),
        headers: { ...headers, ...(used !== undefined && { authorization: `Bearer ${used}` }) }
      }).catch(error => {
        throw unreachable(error)
      })
      if (response.ok) return response
      if (response.status !== 401 || isRenewed || getToken === undefined) throw await errorFrom(response)
      session.drop(used)
    }
  }

  const rest = async (ms: number, signal: AbortSignal | undefined): Promise<void> => {
    await untilOnline(signal, over => pause(Math.ceil(ms), over))
    signal?.throwIfAborted()
  }

  /** Pauses double, each within half of it, so that pages which failed together do not come back together. */
  const pauseAfter = (error: unknown, count: number, tries: number): number => {
    if (!(error instanceof GatewayError) || !error.isPassing || count >= tries) throw error
    const askedMs = (error.retryAfter ?? 0) * 1000
    if (askedMs > longestRetryAfterMs) throw error
    const doubled = Math.min(firstPauseMs * 2 ** (count - 1), longestPauseMs)
    return Math.max(doubled * (0.5 + random() / 2), askedMs)
  }

  const retry = async <T>({ signal, tries = 1 }: Pick<Call, 'signal' | 'tries'>, work: () => Promise<T>): Promise<T> => {
    let done: { readonly value: T } | null = null
    let free = 0
    for (let count = 1; done === null; count++) {
      signal?.throwIfAborted()
      done = await work().then(value => ({ value }), async error => {
        signal?.throwIfAborted()
        // Without a network no try is used up; but a gateway on the device itself answers all the same.
        if (tries > 1 && globalThis.navigator?.onLine === false) free++
        await rest(pauseAfter(error, count, tries + free), signal)
        return null
      })
    }
    return done.value
  }

  return {
    rest,
    retry,
    ask: (path, call, read) => retry(call, () => attempt(path, call).then(read)),
    linksTo: links => links.map(link => base + link.replace(/^https?:\/\/[^/]+/, ''))
  }
}

/** Does something until it is over, the network is back, or nobody wants it any more. */
export async function untilOnline <T> (
  signal: AbortSignal | undefined, work: (over: AbortSignal) => Promise<T>
): Promise<T> {
  const over = new AbortController()
  const end = (): void => over.abort()
  globalThis.addEventListener?.('online', end)
  signal?.addEventListener('abort', end)
  if (signal?.aborted) end()
  try {
    return await work(over.signal)
  } finally {
    globalThis.removeEventListener?.('online', end)
    signal?.removeEventListener('abort', end)
  }
}

/** The session's token, asked for when it is needed, and once for all that need it. */
function tokens (token: string | undefined, getToken: ConnectionOptions['getToken']) {
  let known = token
  let asked: Promise<string> | undefined
  const ask = async (get: NonNullable<typeof getToken>): Promise<string> => {
    try {
      known = await get()
    } catch (error) {
      throw error instanceof TypeError ? unreachable(error) : error // as `fetch` says that there is no network
    } finally {
      asked = undefined
    }
    return known
  }
  return {
    async current (): Promise<string | undefined> {
      return known ?? (getToken && await (asked ??= ask(getToken)))
    },
    /** Another call may have renewed it already. */
    drop (used: string | undefined): void {
      if (known === used) known = undefined
    }
  }
}
