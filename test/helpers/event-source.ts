import { once } from 'node:events'
import { request, type IncomingHttpHeaders, type IncomingMessage } from 'node:http'
import type { Test } from 'tap'
import { until } from './until.ts'

export interface HeardEvent {
  readonly type: string
  readonly id: string
  readonly data: string
  /** `performance.now()` when it was complete. */
  readonly at: number
}

export interface EventSourceOptions {
  readonly token?: string
  readonly lastEventId?: string
  readonly headers?: Readonly<Record<string, string>>
}

/** A stream of server-sent events, read by hand. It is closed with its test. */
export interface TestEventSource {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  /** All but those of results. */
  readonly events: readonly HeardEvent[]
  readonly results: readonly HeardEvent[]
  /** The body, as it came. */
  readonly text: string
  /** It has ended, or was cut. */
  readonly isOver: boolean
  /** It was cut off, and not ended. */
  readonly isCut: boolean
  /** Resolves when there are so many events. */
  heard (count: number): Promise<readonly HeardEvent[]>
  over (): Promise<void>
  /** Reads no more. */
  pause (): void
  resume (): void
  close (): void
}

export async function openEvents (
  t: Test,
  url: string,
  { token, lastEventId, headers = {} }: EventSourceOptions = {}
): Promise<TestEventSource> {
  const outgoing = request(url, {
    agent: false,
    headers: {
      accept: 'text/event-stream',
      ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
      ...(lastEventId === undefined ? {} : { 'last-event-id': lastEventId }),
      ...headers
    }
  }).end()
  const close = (): void => { outgoing.destroy() }
  t.teardown(close)
  const [response] = await once(outgoing, 'response') as [IncomingMessage]
  const state = { text: '', isOver: false, isCut: false }
  const [events, results]: [HeardEvent[], HeardEvent[]] = [[], []]
  let rest = ''
  response.setEncoding('utf8')
  response.on('data', (chunk: string) => {
    state.text += chunk
    const blocks = (rest + chunk).split('\n\n')
    rest = blocks.pop()!
    for (const block of blocks) {
      const event = eventIn(block)
      if (event !== null) (event.type === 'results' ? results : events).push(event)
    }
  })
  response.on('error', () => { /* 'close' follows */ })
  response.on('close', () => {
    state.isOver = true
    state.isCut = !response.complete
  })

  return {
    status: response.statusCode!,
    headers: response.headers,
    events,
    results,
    get text () { return state.text },
    get isOver () { return state.isOver },
    get isCut () { return state.isCut },
    async heard (count) {
      await until(`${count} events`, () => events.length >= count)
      return events
    },
    over: () => until('the stream is over', () => state.isOver),
    pause: () => { response.pause() },
    resume: () => { response.resume() },
    close
  }
}

/**
 * By the letter of the specification, as far as we use it: a comment has no fields, data of several lines is joined.
 */
function eventIn (block: string): HeardEvent | null {
  const fields = block.split('\n').filter(line => !line.startsWith(':')).map(line => /^(\w+): ?(.*)$/s.exec(line)!)
  const valuesOf = (name: string): string[] => fields.flatMap(field => field[1] === name ? [field[2]!] : [])
  const data = valuesOf('data')
  if (data.length === 0) return null
  return {
    type: valuesOf('event').at(-1) ?? 'message',
    id: valuesOf('id').at(-1) ?? '',
    data: data.join('\n'),
    at: performance.now()
  }
}

/** Streams of two sessions: one that a rotation is about to end, and one that goes on. */
export async function streamsAcross (
  t: Test,
  url: string,
  { old, fresh }: { readonly old: string, readonly fresh: string }
) {
  const streams = [await openEvents(t, url, { token: old }), await openEvents(t, url, { token: fresh })]
  return {
    /** Both close; only the session that goes on gets another stream. */
    async renewed (): Promise<void> {
      for (const stream of streams) await stream.over()
      t.equal((await openEvents(t, url, { token: old })).status, 401, 'who comes back is looked at again')
      t.equal((await openEvents(t, url, { token: fresh })).status, 200)
    }
  }
}
