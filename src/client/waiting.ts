import type { TaskData, TaskEnvelope, TaskResults } from './api.ts'
import { readJson, refusal, taskFailed } from './answers.ts'
import type { FinishedTask, TaskName } from './client.ts'
import { GatewayError } from './errors.ts'
import { type Timing, type Transport, untilOnline, usualTries } from './transport.ts'

interface WaitOptions {
  /** The upstream's own word, each time that it changes. */
  readonly onState: (state: string) => void
  readonly signal: AbortSignal | undefined
}

/** A stream is silent for 15 s at most: one that is longer has been lost without a sign, or is held back on its way. */
export const silenceMs = 45_000
/** Between two polls, and two streams, where the gateway has not said when to come again. */
const usualMs = 3000
/** A wait bears an outage of a quarter of an hour. Time without any network does not count. */
const waitTries = 100

/**
 * Waits for the end of a task: by its stream of events, which is opened again with the last id whenever it ends, and by
 * polling where no stream comes through. Throws a `GatewayError`: `TASK_FAILED` with the upstream's reason, or what the
 * gateway refuses.
 */
export async function waitFor (
  transport: Transport, timing: Timing, { taskId, model }: TaskName, { onState, signal }: WaitOptions
): Promise<FinishedTask> {
  const { ask, retry, rest, linksTo } = transport
  const own = `/gateway/tasks/${encodeURIComponent(taskId)}`
  const known: { last: string, end: TaskData | null, links: readonly string[] | null } =
    { last: '', end: null, links: null }
  const tell = (data: TaskData): void => {
    if (data.state === 'success' || data.state === 'failed') known.end = data
    if (data.state !== known.last) onState(known.last = data.state)
  }

  const stream = eventStream(transport, timing, `${own}/events`, (type, data) => {
    if (type === 'state') tell((data as TaskEnvelope).data!)
    if (type === 'results') known.links = (data as TaskResults).results
  })
  for (let comes = canStream(); comes && known.end === null;) {
    comes = await retry({ signal, tries: waitTries }, () => stream.read(signal))
    if (comes && known.end === null) await rest(stream.retryMs, signal)
  }
  while (known.end === null) {
    const path = `/api/v1/statusTask/${encodeURIComponent(model)}?taskId=${encodeURIComponent(taskId)}`
    const { data, waitMs } = await ask(path, { signal, tries: waitTries }, readStatus)
    tell(data)
    if (known.end === null) await rest(waitMs, signal)
  }

  if (known.end.state === 'failed') throw taskFailed(known.end)
  known.links ??= (await ask(`${own}/results`, { signal, tries: usualTries }, readJson<TaskResults>)).results
  return { taskId, model, data: known.end, results: linksTo(known.links) }
}

async function readStatus (response: Response): Promise<{ readonly data: TaskData, readonly waitMs: number }> {
  const { code = 200, data, ...rest } = await readJson<TaskEnvelope>(response)
  if (!data || code !== 200) throw refusal({ data, ...rest }, response, code)
  return { data, waitMs: Number(response.headers.get('retry-after')) * 1000 || usualMs }
}

/** React Native's `fetch` gives a body when all of it is there. */
function canStream (): boolean {
  return typeof ReadableStream === 'function' && globalThis.navigator?.product !== 'ReactNative'
}

/**
 * A stream of events, read by hand: `EventSource` sends no header, says of no refusal which it was, and is ended for
 * good by a single 502 of a proxy.
 *
 * https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
 */
function eventStream (
  { ask }: Transport, { pause }: Timing, path: string, heard: (type: string, data: unknown) => void
) {
  let lastId = ''
  const stream = {
    /** How long to wait before it is read on. */
    retryMs: usualMs,
    /**
     * Reads it to its end, or until it says nothing more; `false`: there is none to be had here, or nothing comes
     * through. Throws when it can't be opened. A network that has come back ends it, too: what was open before may be
     * dead.
     */
    read: (signal: AbortSignal | undefined): Promise<boolean> => untilOnline(signal, async over => {
      const cut = new AbortController()
      over.addEventListener('abort', () => cut.abort())
      const comes = await listen(cut.signal).catch(error => {
        signal?.throwIfAborted()
        // So many streams of one subject are open that there is none for this one.
        const isTooMany = error instanceof GatewayError && error.status === 429
        if (!over.aborted && !isTooMany) throw error
        return over.aborted
      })
      cut.abort()
      return comes
    })
  }
  const listen = async (signal: AbortSignal): Promise<boolean> => {
    const headers = { accept: 'text/event-stream', ...(lastId !== '' && { 'last-event-id': lastId }) }
    const opened = await within(ask(path, { headers, signal }, async response => response))
    if (!isStream(opened)) return false
    const reader = opened.body!.getReader()
    const decoder = new TextDecoder()
    let [rest, hasSpoken] = ['', false]
    let piece = await within(read(reader))
    while (piece !== null && !piece.done) {
      hasSpoken = true
      const blocks = (rest + decoder.decode(piece.value, { stream: true })).split('\n\n')
      rest = blocks.pop()!
      blocks.forEach(tell)
      piece = await within(read(reader))
    }
    return piece !== null || hasSpoken
  }
  const tell = (block: string): void => {
    const valueOf = (name: string): string => block.split('\n').filter(line => line.startsWith(`${name}: `))
      .map(line => line.slice(name.length + 2)).join('\n')
    stream.retryMs = Number(valueOf('retry')) || stream.retryMs
    const type = valueOf('event')
    if (type !== '') heard(type, JSON.parse(valueOf('data')))
    lastId = valueOf('id') || lastId
  }
  /** `null`: it has taken too long. */
  const within = async <T>(work: Promise<T>): Promise<T | null> => {
    const over = new AbortController()
    try {
      return await Promise.race([work, pause(silenceMs, over.signal).then(() => null)])
    } finally {
      over.abort()
    }
  }
  return stream
}

/** A connection that was lost ends a stream as well as any. */
async function read (reader: ReadableStreamDefaultReader<Uint8Array>) {
  return await reader.read().catch(() => ({ done: true as const, value: undefined }))
}

function isStream (response: Response | null): response is Response {
  return response?.body != null && response.headers.get('content-type') === 'text/event-stream'
}
