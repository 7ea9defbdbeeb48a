import { once } from 'node:events'
import { connect } from 'node:net'
import type { Test } from 'tap'
import { startSandbox, type Sandbox, type SandboxOptions } from '../../src/sandbox/sandbox.ts'

export const key = 'sk-sandbox-one'
export const otherKey = 'sk-sandbox-two'

/** A sandbox with a clock that stands still until a test moves it, and one client of it. */
export async function sandboxFor (t: Test, options: Partial<SandboxOptions> = {}) {
  const clock = { now: 1_700_000_000_000 }
  const sandbox = await startSandbox({ keys: [key, otherKey], now: () => clock.now, ...options })
  t.teardown(() => sandbox.close())
  return { sandbox, clock, ...clientOf(sandbox) }
}

interface Envelope {
  readonly code: number
  readonly message: string
  readonly data: any
}

export function clientOf (sandbox: Pick<Sandbox, 'origin'>, bearer = key) {
  const headers = { authorization: `Bearer ${bearer}` }
  const get = (path: string, init: RequestInit = {}) =>
    fetch(sandbox.origin + path, { redirect: 'manual', ...init, headers: { ...headers, ...init.headers } })
  const post = (body: unknown, model = 'nano-banana', init: RequestInit = {}) =>
    get(`/api/v1/generateTask/${model}`, {
      method: 'POST', body: typeof body === 'string' ? body : JSON.stringify(body), ...init
    })
  const submit = (prompt: string, input: object = {}, model?: string) => post({ input: { prompt, ...input } }, model)
  const status = (taskId: string, model = 'nano-banana', init: RequestInit = {}) =>
    get(`/api/v1/statusTask/${model}?taskId=${taskId}`, init)
  return {
    get,
    post,
    submit,
    status,
    taskId: async (prompt: string, input?: object, model?: string): Promise<string> =>
      (await read(await submit(prompt, input, model))).data.taskId,
    data: async (taskId: string, model?: string): Promise<any> => (await read(await status(taskId, model))).data,
    balance: async (): Promise<unknown> => (await read(await get('/api/v1/apikeys/current-balance'))).data
  }
}

export async function read (response: Response): Promise<Envelope> {
  return await response.json() as Envelope
}

/** Sends text over a bare connection; the socket is the test's. */
export async function rawSocket (t: Test, sandbox: Sandbox, text: string) {
  const { hostname, port } = new URL(sandbox.origin)
  const socket = connect(Number(port), hostname)
  socket.on('error', () => {})
  t.teardown(() => socket.destroy())
  await once(socket, 'connect')
  socket.write(text)
  return socket
}

/** The text of a submit on a bare connection. */
export function rawSubmit (prompt: string): string {
  const body = JSON.stringify({ input: { prompt } })
  return `POST /api/v1/generateTask/nano-banana HTTP/1.1\r\nhost: sandbox\r\nAuthorization: Bearer ${key}\r\n` +
    `content-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`
}

/** Resolves when a condition that depends on open connections holds; it is looked at once a turn of the loop. */
export async function until (condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setImmediate(resolve))
}
