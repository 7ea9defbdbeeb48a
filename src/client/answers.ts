import type { GatewayCode, TaskData } from './api.ts'
import { GatewayError } from './errors.ts'

type Json = Readonly<Record<string, any>> | null | undefined

/** No answer, or half of one. */
export function unreachable (cause: unknown): GatewayError {
  return new GatewayError({ code: 'UNREACHABLE', message: 'The connection to the gateway failed.', cause })
}

/** Reads an answer that is no success: the gateway's own, the upstream's envelope, or the page of a proxy. */
export async function errorFrom (response: Response): Promise<GatewayError> {
  const json: Json = await response.json().catch(() => null) // the page of a proxy
  return refusal(json, response)
}

/** The body of a good answer. Another page may stand where the gateway is looked for, and be as good as any. */
export async function readJson <T> (response: Response): Promise<T> {
  if (!response.headers.get('content-type')?.includes('json')) {
    throw refusal({ message: 'The answer is no JSON: look whether baseUrl leads to the gateway.' }, response)
  }
  return await response.json().catch(cause => { throw unreachable(cause) }) as T
}

/** `status`: in place of the answer's own, where an envelope has another one. */
export function refusal (json: Json, { status: sent, headers }: Response, status = sent): GatewayError {
  const own = json?.error?.code as unknown
  const code = headers.get('x-gateway-error') ?? (typeof own === 'string' && own.startsWith('GW_') ? own : 'REFUSED')
  const message = text(json?.message) ?? text(json?.error?.message) ?? `The answer was HTTP ${status}.`
  const shouldRetry = headers.get('x-should-retry')
  return new GatewayError({
    code: code as GatewayCode,
    message,
    status,
    requestId: headers.get('x-request-id') ?? text(json?.error?.requestId),
    retryAfter: seconds(headers.get('retry-after')) ?? json?.error?.retryAfterSeconds,
    shouldRetry: shouldRetry === null ? undefined : shouldRetry === 'true',
    reason: code === 'REFUSED' && json ? reasonIn(json.data) ?? message : undefined,
    reasonCode: text(json?.data?.failCode)
  })
}

/** What has become of a task that did not succeed. */
export function taskFailed (data: TaskData): GatewayError {
  const reason = reasonIn(data)
  return new GatewayError({
    code: 'TASK_FAILED',
    message: `The task has failed: ${reason ?? 'no reason was given'}`,
    status: 200,
    reason,
    reasonCode: text(data.failCode),
    taskId: data.taskId
  })
}

function reasonIn (data: Json): string | undefined {
  return text(data?.failMsg) ?? text(data?.error) ?? text(data?.error?.message)
}

function text (value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' ? value : undefined
}

/** A date, which nobody sends here, is no number of seconds. */
function seconds (header: string | null): number | undefined {
  return header !== null && /^\d{1,6}$/.test(header) ? Number(header) : undefined
}
