import type { Test } from 'tap'
import { crankedGateway } from './cranked-gateway.ts'
import type { TestGatewayOptions } from './gateway.ts'
import { until } from './until.ts'

const roomy =
  'plans: { default: { requestsPerMinute: 100000, pollsPerMinute: 100000, concurrentTasks: 1000, credits: unlimited } }'
const publicUrl = 'https://gateway.example'

/** A gateway whose upstream announces the end of each task. `config` is what the file has beside that. */
export async function calledBackGateway (t: Test, { config = roomy, ...options }: TestGatewayOptions = {}) {
  const gateway = await crankedGateway(t, {
    ...options,
    config: `${config}\ncallbacks: { inbound: true }`,
    env: { GATEWAY_PUBLIC_URL: publicUrl, ...options.env }
  })
  const { sandbox, call } = gateway

  /** The path that the upstream was told with its latest submit. */
  const callbackPath = (): string => {
    const { callback_url: url } = JSON.parse(sandbox.submits.at(-1)!.body.toString())
    return new URL(url).pathname
  }
  const callBack = (path: string, body: unknown = '', headers: Readonly<Record<string, string>> = {}) =>
    call(path, { method: 'POST', body, headers })
  /** Lets time pass, callbacks included, until so many were answered. */
  const passUntilCalled = async (ms: number, count: number): Promise<void> => {
    gateway.pass(ms)
    await until(`${count} callbacks`, () => sandbox.callbacks.length >= count)
  }
  /** The state in the list of the caller's tasks, for which nobody asks the upstream. */
  const listed = async (token: string, taskId: string): Promise<string | undefined> => {
    const { tasks } = (await call('/gateway/tasks?limit=100', { token })).json
    return tasks.find((task: { readonly taskId: string }) => task.taskId === taskId)?.state
  }
  const hasEnded = (token: string, taskId: string, state = 'success') =>
    until(`${taskId} to be ${state}`, async () => await listed(token, taskId) === state)
  return { ...gateway, publicUrl, callbackPath, callBack, passUntilCalled, listed, hasEnded }
}
