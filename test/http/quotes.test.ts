import t from 'tap'
import { startGateway } from '../helpers/gateway.ts'

const config = `
plans:
  default: { credits: 20, pollsPerMinute: 1000, requestsPerMinute: 1000, concurrentTasks: 100 }
  small: { models: [nano-*], credits: 20, pollsPerMinute: 3 }
  rich: { credits: unlimited }
prices:
  wan-2-5-video:
    - { when: { input.resolution: 480p }, credits: 1, per: input.duration, default: 5 }
    - { credits: 3, per: input.duration, default: 10, onFailed: charge }
caps:
  wan-2-5-video: { input.prompt: { required: true }, input.resolution: { default: 480p }, input.duration: { max: 100 } }
`
const video = '/gateway/quote/wan-2-5-video'

t.test('a quote says what a submit with this body would cost, by which rule, and what is left', async t => {
  const { call, mint, sandbox } = await startGateway(t, { config })
  const token = await mint('alice')
  const cheap = {
    when: { 'input.resolution': ['480p'] }, credits: 1, per: ['input.duration'], default: { 'input.duration': 5 }, min: 0, onFailed: 'refund'
  }
  const last = { when: {}, credits: 3, per: ['input.duration'], default: { 'input.duration': 10 }, min: 0, onFailed: 'charge' }
  const quote = async (input: object) => (await call(video, { token, body: { input: { prompt: 'x', ...input } } })).json
  t.strictSame(await quote({}), {
    model: 'wan-2-5-video', credits: 5, refundable: true, rule: cheap, left: 20, enough: true
  }, 'a default of a cap counts')
  t.strictSame(await quote({ resolution: '1080p', duration: 6.5 }), {
    model: 'wan-2-5-video', credits: 19.5, refundable: false, rule: last, left: 20, enough: true
  })
  t.match(await quote({ resolution: '480P', duration: 7 }), { credits: 21, rule: last, left: 20, enough: false })
  t.equal(sandbox.calls.length, 0)
  t.match((await call('/gateway/session', { token })).json, { credits: { used: 0 }, tasks: { unfinished: 0 } }, 'nothing is set aside')

  t.equal((await call('/api/v1/generateTask/wan-2-5-video', { token, body: { input: { prompt: 'x' } } })).status, 200)
  t.match(await quote({}), { credits: 5, left: 15 }, 'what the submit has cost is what was quoted')
  const other = await mint('alice', { credits: 2 })
  t.match((await call(video, { token: other, body: { input: { prompt: 'x' } } })).json, { left: 2, enough: false })
  const rich = await mint('rich', { plan: 'rich' })
  t.match((await call(video, { token: rich, body: { input: { prompt: 'x' } } })).json, { left: null, enough: true })
  t.match((await call('/gateway/quote/nano-banana', { token: rich, body: { input: {} } })).json, {
    credits: 1, rule: { when: {}, credits: 1, per: [] }
  })
})

t.test('a quote is held to all that the submit would be held to', async t => {
  const { call, mint, submit, sandbox, lines } = await startGateway(t, { config })
  const [token, bob] = [await mint('alice'), await mint('bob')]
  const { taskId } = (await submit(bob)).json.data
  const sent = sandbox.calls.length
  type Row = readonly [path: string, body: string | undefined, token: string, status: number, error: string]
  const rows: readonly Row[] = [
    [video, undefined, token, 400, 'GW_BAD_REQUEST'],
    [video, '{"input":{"prompt":"x"}', token, 400, 'GW_BAD_REQUEST'],
    [video, '{"input":{"prompt":"x","duration":1,"duration":2}}', token, 400, 'GW_BAD_REQUEST'],
    [video, '{"input":{}}', token, 400, 'GW_BAD_REQUEST'],
    [video, '{"input":{"prompt":"x","duration":101}}', token, 400, 'GW_BAD_REQUEST'],
    [video, '{"input":{"prompt":"x","duration":0}}', token, 400, 'GW_BAD_REQUEST'],
    [video, '{"input":{"prompt":"x"},"provider":"official"}', token, 400, 'GW_BAD_REQUEST'],
    [video, '{"input":{"prompt":"x"},"callback_url":"https://x.example"}', token, 403, 'GW_CALLBACK_DENIED'],
    [`${video}?x=1`, '{"input":{"prompt":"x"}}', token, 400, 'GW_BAD_REQUEST'],
    ['/gateway/quote/a%2fb', '{"input":{"prompt":"x"}}', token, 400, 'GW_BAD_REQUEST'],
    [video, `{"input":{"prompt":"x","task_id":"${taskId}"}}`, token, 404, 'GW_TASK_NOT_FOUND'],
    [video, '{"input":{"prompt":"x"}}', await mint('carol', { plan: 'small' }), 403, 'GW_MODEL_DENIED'],
    [video, '{"input":{"prompt":"x"}}', await mint('carol', { models: ['nano-*'] }), 403, 'GW_MODEL_DENIED'],
    [video, '{"input":{"prompt":"x"}}', await mint('carol', { scopes: ['tasks:read'] }), 403, 'GW_SCOPE_DENIED'],
    [video, '{"input":{"prompt":"x"}}', 'gws_nobody', 401, 'GW_BAD_SESSION'],
    [video, `{"input":{"prompt":"${'x'.repeat(65_536)}"}}`, token, 413, 'GW_TOO_LARGE']
  ]
  for (const [path, body, token, status, error] of rows) {
    const reply = await call(path, { method: 'POST', token, ...(body === undefined ? {} : { body }) })
    t.match(reply, { status, error }, `${path} ${body?.slice(0, 80)}`)
  }
  t.equal((await call(video, { token: bob, body: { input: { prompt: 'x', task_id: taskId } } })).status, 200, 'but of its own')
  t.equal(sandbox.calls.length, sent)
  t.match(lines().at(-1), { operation: 'quote', granted: true, model: 'wan-2-5-video', stage: 'reply' })
  t.match(await call(video, { token }), { status: 405, error: 'GW_METHOD_NOT_ALLOWED' })
})

t.test('a quote costs a poll', async t => {
  const { call, mint } = await startGateway(t, { config })
  const token = await mint('alice', { plan: 'small' })
  const quote = () => call('/gateway/quote/nano-banana', { token, body: { input: { prompt: 'x' } } })
  t.strictSame([(await quote()).status, (await quote()).status, (await quote()).status], [200, 200, 200])
  t.match(await quote(), { status: 429, error: 'GW_RATE_LIMITED' })
  t.equal((await call('/gateway/session', { token })).error, 'GW_RATE_LIMITED')
})
