import { gzipSync } from 'node:zlib'
import t from 'tap'
import { startGateway } from '../helpers/gateway.ts'

const path = '/api/v1/generateTask/nano-banana'
const input = { prompt: 'a red cube' }

t.test('a body that can not be taken is refused before the upstream hears of it', async t => {
  const { call, mint, sandbox, origin } = await startGateway(t, {
    config: 'plans: { default: {} }\nlimits: { bodyBytes: 2000 }'
  })
  const token = await mint('alice')
  const submit = (body: unknown, headers: Record<string, string> = {}) =>
    call(path, { token, body, method: 'POST', headers })
  t.match(await submit('{'), { status: 400, error: 'GW_BAD_REQUEST' })
  t.match(await submit(''), { status: 400, error: 'GW_BAD_REQUEST', json: { message: /JSON body/ } })
  t.match(await submit(undefined), { status: 400, error: 'GW_BAD_REQUEST' })
  t.match(await submit({ input: { prompt: 'x'.repeat(2000) } }), {
    status: 413,
    error: 'GW_TOO_LARGE',
    json: { message: /2000/ }
  })
  for (const type of [
    'text/plain',
    'application/x-www-form-urlencoded',
    'multipart/form-data; boundary=x',
    'application/jsonx'
  ]) {
    t.match(
      await submit({ input }, { 'content-type': type }),
      { status: 415, error: 'GW_UNSUPPORTED_MEDIA_TYPE' },
      type
    )
  }
  const gzipped = await fetch(origin + path, {
    method: 'POST',
    body: gzipSync(JSON.stringify({ input })),
    headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json', 'content-encoding': 'gzip' }
  })
  t.equal(gzipped.status, 415)
  t.match(await submit({ input }, { 'content-encoding': 'gzip, br' }), { status: 415 })
  t.equal(sandbox.calls.length, 0)
  t.equal(
    (await submit({ input }, { 'content-encoding': 'identity', 'content-type': 'Application/JSON; charset=utf-8' }))
      .status,
    200
  )
})

t.test('a GET with a JSON content type and no body is fine, as one client sends it', async t => {
  const { status, submit, mint } = await startGateway(t)
  const token = await mint('alice')
  const { taskId } = (await submit(token)).json.data
  t.equal((await status(token, taskId, 'nano-banana', { headers: { 'content-type': 'application/json' } })).status, 200)
})

t.test('an integer of 64 bits reaches the upstream digit for digit', async t => {
  const { call, mint, sandbox } = await startGateway(t)
  const token = await mint('alice')
  for (const [body, sent] of [
    [
      '{"request_type":"async","input":{"prompt":"x","seed":12345678901234567890}}',
      '{"request_type":"async","input":{"prompt":"x","seed":12345678901234567890}}'
    ],
    [
      '{"provider":"auto","input":{"prompt":"x","seed": 9007199254740993 }}',
      '{"request_type":"async","input":{"prompt":"x","seed": 9007199254740993 }}'
    ]
  ]) {
    t.equal((await call(path, { token, body })).status, 200)
    t.equal(sandbox.submits.at(-1)?.body.toString(), sent)
  }
})
