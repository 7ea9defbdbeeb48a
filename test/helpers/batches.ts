import type { CallOptions, Reply, TestGateway } from './gateway.ts'

export const batchesConfig =
  'plans: { default: { requestsPerMinute: 100000, pollsPerMinute: 100000, concurrentTasks: 1000, credits: unlimited } }\n' +
  'batches: { enabled: true }\nlimits: { addressFailuresPerMinute: 10000 }'

export interface BatchItem { readonly client_item_id: string, readonly idempotency_key: string, readonly input: object }

let count = 0

/** Items with these prompts, named c0, c1 and so on, with keys that no other test has. */
export function items (...prompts: readonly string[]): BatchItem[] {
  return prompts.map((prompt, index) => ({
    client_item_id: `c${index}`,
    idempotency_key: `key-${++count}`,
    input: { prompt }
  }))
}

/** `size` items of no interest. */
export function anyItems (size: number): BatchItem[] {
  return items(...Array.from({ length: size }, (_, index) => `cube ${index}`))
}

export interface BatchOptions extends CallOptions {
  readonly model?: string
  readonly key?: string
}

export function submitBatch (
  { call }: Pick<TestGateway, 'call'>,
  token: string,
  list: readonly object[],
  { model = 'nano-banana', key, ...more }: BatchOptions = {}
): Promise<Reply> {
  const headers = { ...more.headers, ...(key === undefined ? {} : { 'idempotency-key': key }) }
  return call(`/api/v1/generateTask/${model}/batches`, { token, body: { items: list }, ...more, headers })
}

export function batchStatus (
  { call }: Pick<TestGateway, 'call'>,
  token: string,
  batchId: string,
  model = 'nano-banana'
): Promise<Reply> {
  return call(`/api/v1/generateTask/${model}/batches/${encodeURIComponent(batchId)}`, { token })
}
