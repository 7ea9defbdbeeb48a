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
      const body = JSON.stringify({ input: { ...input, ...await referencesTo(files, client, signal) } })
      onState({ state: 'submitting', taskId: null })
      return await keys.with(`${model} ${body}`, idempotencyKey, async key => {
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

/** `{ image: 'gateway:file:…' }`. */
async function referencesTo (
  files: NonNullable<GenerateOptions['files']>, { upload }: Client, signal: AbortSignal | undefined
): Promise<Readonly<Record<string, unknown>>> {
  const referenceTo = async (file: InputFile): Promise<string> =>
    (file instanceof Blob ? await upload(file, { signal }) : file).reference
  return Object.fromEntries(await Promise.all(Object.entries(files).map(async ([name, value]) =>
    [name, Array.isArray(value) ? await Promise.all(value.map(referenceTo)) : await referenceTo(value as InputFile)])))
}

/**
 * The idempotency keys of what runs. A second press of a button, and one after an answer that was lost, is the same
 * task: its key is kept until the outcome is certain, or as long as the gateway remembers it.
 */
function taskKeys ({ random, now }: Timing) {
  const kept = new Map<string, { readonly key: string, users: number, until: number }>()
  // No secret: the same key of another subject is another key.
  const newKey = (): string => Array.from({ length: 4 }, () => random().toString(36).slice(2, 10).padEnd(8, '0')).join('')
  return {
    async with <T>(name: string, given: string | undefined, work: (key: string) => Promise<T>): Promise<T> {
      if (given !== undefined) return await work(given)
      let press = kept.get(name)
      if (press === undefined || (press.users === 0 && press.until <= now())) {
        press = { key: newKey(), users: 0, until: 0 }
        kept.set(name, press)
      }
      press.users++
      let done: T
      try {
        done = await work(press.key)
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
