import t from 'tap'
import { calledBackGateway } from '../helpers/callbacks.ts'
import { taskMs } from '../helpers/gateway.ts'

t.test(
  'a failed task gives its credits back once, also when callbacks, polls and the slow poll all report it',
  async t => {
    const config =
      'plans: { default: { credits: 3, concurrentTasks: 100, pollsPerMinute: 10000, requestsPerMinute: 1000 } }'
    const { submit, mint, status, call, callBack, callbackPath, hasEnded, gateway, time, pass } =
      await calledBackGateway(t, { config })
    const token = await mint('alice')
    const { taskId } = (await submit(token, 'sandbox:failed sandbox:callback-twice')).json.data
    const path = callbackPath()
    time.advance(taskMs + 120_001)
    const body = { code: 200, data: { taskId, state: 'failed' } }
    pass(0)
    await Promise.all([
      ...Array.from({ length: 20 }, () => callBack(path, body)),
      ...Array.from({ length: 20 }, () => status(token, taskId)),
      gateway.tidy()
    ])
    await hasEnded(token, taskId, 'failed')
    for (let round = 0; round < 3; round++) await callBack(path, body)
    t.match((await call('/gateway/session', { token })).json.credits, { used: 0, left: 3 })
  }
)
