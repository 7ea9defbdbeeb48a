import t from 'tap'
import { startGateway } from '../helpers/gateway.ts'

const config = 'plans: { default: { pollsPerMinute: 1000 } }\nlimits: { addressFailuresPerMinute: 10000 }'

t.test('a query name that is repeated or not listed is a 400, and nothing is sent', async t => {
  const { call, submit, mint, sandbox } = await startGateway(t, { config })
  const token = await mint('alice')
  const { taskId } = (await submit(token)).json.data
  const other = (await submit(await mint('bob'))).json.data.taskId
  const sent = sandbox.calls.length
  const status = [
    `taskId=${taskId}&taskId=${other}`,
    `taskId=${other}&taskId=${taskId}`,
    `taskId=${taskId}&taskId=${taskId}`,
    `taskId=${taskId}&task%49d=${other}`,
    `taskId=${taskId}&key=x`,
    `taskId=${taskId}&%6bey=x`,
    `taskId=${taskId}&webhook=https://evil.test`,
    `taskId=${taskId}&callback_url=x`,
    `taskId=${taskId}&model=suno`,
    `taskId[]=${taskId}`,
    `taskId[0]=${taskId}`,
    `taskId.x=${taskId}`,
    `TaskId=${taskId}`,
    `taskid=${taskId}`,
    `task_id=${taskId}`,
    `taskId=${taskId}&TASKID=${other}`,
    `taskId=${taskId}&`.concat('x'),
    `taskId=${taskId}&__proto__=x`,
    `taskId=${taskId}&constructor=x`,
    `taskId=${taskId}&=x`,
    `taſkId=${taskId}`,
    '',
    '?',
    'taskId',
    'taskId=',
    `taskId=${taskId}&${'a=1&'.repeat(1000)}`
  ]
  for (const query of status) {
    t.match(
      await call(`/api/v1/statusTask/nano-banana?${query}`, { token }),
      { status: 400, error: 'GW_BAD_REQUEST' },
      query.slice(0, 60)
    )
  }
  const body = { input: { prompt: 'x' } }
  for (const query of ['taskId=x', 'key=x', 'provider=official', 'async=1', 'x', 'api_base=https://evil.test']) {
    t.match(
      await call(`/api/v1/generateTask/nano-banana?${query}`, { token, body }),
      { status: 400, error: 'GW_BAD_REQUEST' },
      query
    )
  }
  t.equal(sandbox.calls.length, sent)
})

t.test('separators of other parsers separate nothing', async t => {
  const { call, submit, mint, sandbox } = await startGateway(t, { config })
  const token = await mint('alice')
  const { taskId } = (await submit(token)).json.data
  const other = (await submit(await mint('bob'))).json.data.taskId
  const sent = sandbox.calls.length
  for (const query of [
    `taskId=${other};taskId=${taskId}`,
    `taskId=${taskId};taskId=${other}`,
    `taskId=${taskId},${other}`,
    `taskId=${taskId}%26taskId=${other}`,
    `taskId=${taskId}%00${other}`,
    `taskId=${taskId}%0d%0ax:y`,
    `taskId=${taskId}%ff`
  ]) {
    t.equal(
      (await call(`/api/v1/statusTask/nano-banana?${query}`, { token })).error,
      'GW_TASK_NOT_FOUND',
      query.slice(0, 60)
    )
  }
  t.equal(sandbox.calls.length, sent)
  t.equal(
    (await call(`/api/v1/statusTask/nano-banana?%74askId=${taskId}&`, { token })).status,
    200,
    'an escaped name is that name'
  )
  t.equal(
    sandbox.calls.at(-1)!.url,
    `/api/v1/statusTask/nano-banana?taskId=${taskId}`,
    "and goes out in the gateway's own spelling"
  )
})
