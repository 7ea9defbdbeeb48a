import type { IncomingMessage } from 'node:http'
import { refusal, send } from './answers.ts'
import { balance, status, submit, type ApiCall, type World } from './api.ts'
import { batchStatus, submitBatch } from './batches.ts'
import { sendResult } from './results.ts'

const routes = [
  { method: 'POST', path: /^\/api\/v1\/generateTask\/([^/]+)$/, answer: submit },
  { method: 'POST', path: /^\/api\/v1\/generateTask\/([^/]+)\/batches$/, answer: submitBatch },
  { method: 'GET', path: /^\/api\/v1\/generateTask\/([^/]+)\/batches\/([^/]+)$/, answer: batchStatus },
  { method: 'GET', path: /^\/api\/v1\/statusTask\/([^/]+)$/, answer: status },
  { method: 'GET', path: /^\/api\/v1\/apikeys\/(current-balance)$/, answer: balance }
] as const

/** Answers one request whose body has been read. A route or a method that is not APIXO's gets its 404. */
export function route (world: World, request: IncomingMessage, call: Omit<ApiCall, 'model' | 'batchId' | 'query'>): void {
  const { method, url = '' } = request
  // Not `new URL`: it throws at some of what a client may send as a target.
  const [path = '', query] = url.split('?', 2)
  for (const { method: wanted, path: pattern, answer } of routes) {
    const [, model, batchId = ''] = pattern.exec(path) ?? []
    if (model && method === wanted) return answer(world, { ...call, model, batchId, query: new URLSearchParams(query) })
  }
  const name = /^\/temp\/([^/]+)$/.exec(path)?.[1]
  if (name && (method === 'GET' || method === 'HEAD')) {
    return sendResult(request, call.response, world.tasks, name, world.now())
  }
  send(call.response, refusal(404))
}
