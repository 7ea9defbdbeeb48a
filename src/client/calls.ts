import type {
  ModelInfo, Quote, SessionInfo, TaskEnvelope, TaskInfo, TaskPage, UploadedFile
} from './api.ts'
import { readJson, refusal } from './answers.ts'
import type { CallOptions, Client, ClientOptions, GenerateOptions, InputFile } from './client.ts'
import { GatewayError } from './errors.ts'
import { type Timing, type Transport, transport, usualTries } from './transport.ts'
import { waitFor } from './waiting.ts'

const json = { 'content-type': 'application/json' }
/** As long as the gateway itself remembers a submit whose answer nobody got, ms. */
const uncertainMs = 120_000

/** All that a client does. */
export function clientOver (options: ClientOptions, timing: Timing): Client {
  const wire = transport(options, timing)
  const keys = taskKeys(timing)
  const get = async <T>(path: string, { signal }: CallOptions = {}): Promise<T> =>
    await wire.ask(path, { signal, tries: usualTries }, readJson<T>)

  const client: Client = {
    async generate (model, input, { onState = () => {}, signal, idempotencyKey, files = {} } = {}) {
      signal?.throwIfAborted()
      if (Object.keys(files).length > 0) onState({ state: 'uploading', taskId: null })
      return await keys.with([model, input, files], idempotencyKey, async ({ key, uploads }) => {
        const references = await referencesTo(files, uploads, file => client.upload(file, { signal }), signal)
        const body = JSON.stringify({ input: { ...input, ...references } })
        onState({ state: 'submitting', taskId: null })
        const taskId = await submit(wire, model, { body, key, signal, getProof: options.getProof })
        return await client.watch({ taskId, model }, { onState, signal })
      })
    },
    watch: (task, { onState = () => {}, signal } = {}) => waitFor(wire, timing, task, {
      onState: state => onState({ state, taskId: task.taskId }), signal
    }),
    async tasks (query = {}, options) {
      const asked = Object.entries(query).filter(([, value]) => value !== undefined)
      const page = await get<TaskPage>(`/gateway/tasks?${new URLSearchParams(asked.map(([name, value]) =>
        [name, String(value)]))}`, options)
      return { ...page, tasks: page.tasks.map((task): TaskInfo => ({ ...task, results: wire.linksTo(task.results) })) }
    },
    session: options => get<SessionInfo>('/gateway/session', options),
    models: async options => (await get<{ readonly models: readonly ModelInfo[] }>('/gateway/models', options)).models,
    quote: (model, input, { signal } = {}) => wire.ask(`/gateway/quote/${encodeURIComponent(model)}`, {
      method: 'POST', headers: json, body: JSON.stringify({ input }), signal, tries: usualTries
    }, readJson<Quote>),
    async upload (file, { signal } = {}) {
      const headers = { 'content-type': file.type || 'application/octet-stream' }
      const call = { method: 'POST', headers, body: file, signal, tries: usualTries }
      const stored = await wire.ask('/gateway/files', call, readJson<UploadedFile>)
      return { ...stored, reference: `gateway:file:${stored.fileId}` }
    },
    request (path, call = {}) {
      const { method = 'GET', headers = {} } = call
      const isSafe = method === 'GET' || Object.keys(headers).some(name => name.toLowerCase() === 'idempotency-key')
      return wire.ask(path, { ...call, tries: isSafe ? usualTries : 1 }, async response => response)
    }
  }
  return client
}

interface Submit {
  readonly body: string
  readonly key: string
  readonly signal: AbortSignal | undefined
  readonly getProof: ClientOptions['getProof']
}

/** Resolves with the task's id. Its key makes each try the same submit. */
async function submit (wire: Transport, model: string, { body, key, signal, getProof }: Submit): Promise<string> {
  return await wire.retry({ signal, tries: usualTries }, async () => {
    const headers = { ...json, 'idempotency-key': key, ...(getProof && { 'x-apixo-proof': await getProof() }) }
    const path = `/api/v1/generateTask/${encodeURIComponent(model)}`
    return await wire.ask(path, { method: 'POST', headers, body, signal }, async response => {
      const envelope = await readJson<TaskEnvelope<{ readonly taskId?: string }>>(response)
      const taskId = envelope.data?.taskId ?? envelope.taskId
      // A refusal of the upstream's may come with HTTP 200.
      if (taskId === undefined) throw refusal(envelope, response, envelope.code)
      return taskId
    })
  })
}

interface Uploaded { readonly reference: string }

/**
 * `{ image: 'gateway:file:…' }`. Of a press each file is uploaded once: under one key the body has to stay the same. An
 * upload that has failed, or that whoever began it does not wait for any more, is begun anew.
 */
async function referencesTo (
  files: NonNullable<GenerateOptions['files']>,
  uploads: Map<Blob, Promise<Uploaded>>,
  upload: (file: Blob) => Promise<Uploaded>,
  signal: AbortSignal | undefined
): Promise<Readonly<Record<string, unknown>>> {
  const uploaded = async (file: Blob): Promise<Uploaded> => {
    for (let begun = uploads.get(file); begun !== undefined; begun = uploads.get(file)) {
      const stored = await begun.catch(() => null)
      signal?.throwIfAborted()
      if (stored !== null) return stored
      if (uploads.get(file) === begun) break
    }
    const own = upload(file)
    uploads.set(file, own)
    return await own
  }
  const referenceTo = async (file: InputFile): Promise<string> =>
    (file instanceof Blob ? await uploaded(file) : file).reference
  return Object.fromEntries(await Promise.all(Object.entries(files).map(async ([name, value]) =>
    [name, Array.isArray(value) ? await Promise.all(value.map(referenceTo)) : await referenceTo(value as InputFile)])))
}

/** What a button was pressed for, by one person, until its outcome is certain. */
interface Press {
  readonly key: string
  readonly uploads: Map<Blob, Promise<Uploaded>>
}

/** The same text for the same call. A file is the same only as itself: what is in it nobody has read. */
function callNames (): (call: unknown) => string {
  const numbers = new WeakMap<Blob, number>()
  let last = 0
  return call => JSON.stringify(call, (_, value) => {
    if (!(value instanceof Blob)) return value
    if (!numbers.has(value)) numbers.set(value, ++last)
    return `a file of the page: ${numbers.get(value)}`
  })
}

/**
 * The idempotency keys of what runs. A second press of a button, and one after an answer that was lost, is the same
 * task: its key is kept until the outcome is certain, or as long as the gateway remembers it.
 */
function taskKeys ({ random, now }: Timing) {
  const kept = new Map<string, Press & { users: number, until: number }>()
  const nameOf = callNames()
  // No secret: the same key of another subject is another key.
  const newKey = (): string => Array.from({ length: 4 }, () => random().toString(36).slice(2, 10).padEnd(8, '0')).join('')
  return {
    async with <T>(call: unknown, given: string | undefined, work: (press: Press) => Promise<T>): Promise<T> {
      if (given !== undefined) return await work({ key: given, uploads: new Map() })
      const name = nameOf(call)
      let press = kept.get(name)
      if (press === undefined || (press.users === 0 && press.until <= now())) {
        press = { key: newKey(), uploads: new Map(), users: 0, until: 0 }
        kept.set(name, press)
      }
      press.users++
      let done: T
      try {
        done = await work(press)
        press.until = 0
      } catch (error) {
        press.until = isCertain(error) ? 0 : now() + uncertainMs
        throw error
      } finally {
        if (--press.users === 0 && press.until === 0) kept.delete(name)
      }
      return done
    }
  }
}

/** Whether nothing of a submit can be under way after this. */
function isCertain (error: unknown): boolean {
  return error instanceof GatewayError && !error.isPassing && error.code !== 'GW_OUTCOME_UNKNOWN'
}
