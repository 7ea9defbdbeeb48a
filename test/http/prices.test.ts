import t from 'tap'
import { startGateway } from '../helpers/gateway.ts'

const config = `
plans: { default: { credits: 100, concurrentTasks: 1000, requestsPerMinute: 10000, pollsPerMinute: 10000 } }
prices:
  wan-2-5-video:
    - { when: { input.mode: text-to-video, input.resolution: [480p, 720p] }, credits: 1, per: [input.duration, input.clips], default: { input.duration: 5 }, min: 2 }
    - { when: { provider: official }, credits: 20 }
    - { credits: 9, per: input.duration, default: 10 }
batches: { enabled: true }
`
const path = '/api/v1/generateTask/wan-2-5-video'

t.test('a submit costs what its fields say, and is sent as it came', async t => {
  const { call, mint, sandbox } = await startGateway(t, {
    config, models: [{ id: 'wan-2-5-video', category: 'video', provider: 'official' }]
  })
  const cheap = '"mode":"text-to-video","resolution":"720p","prompt":"x"'
  const rows: ReadonlyArray<readonly [body: string, credits: number]> = [
    [`{"request_type":"async","input":{${cheap},"clips":1}}`, 5],
    [`{"request_type":"async","input":{${cheap},"clips":2,"duration":3.5}}`, 7],
    [`{"request_type":"async","input":{${cheap},"clips":1,"duration":1}}`, 2],
    ['{"request_type":"async","provider":"official","input":{"prompt":"x"}}', 20],
    ['{"request_type":"async","input":{"prompt":"x"}}', 90],
    ['{"request_type":"async","input":{"prompt":"x","resolution":"720p","duration":2}}', 18],
    [`{"request_type":"async","input":{${cheap.replace('720p', '720P')},"clips":1,"duration":4}}`, 36]
  ]
  for (const [body, credits] of rows) {
    const token = await mint(`alice-${credits}`)
    t.equal((await call(path, { token, body })).status, 200, body)
    t.equal((await call('/gateway/session', { token })).json.credits.used, credits, body)
    t.equal(sandbox.submits.at(-1)?.body.toString(), body, 'to the byte')
  }
})

t.test('what can not be priced is refused before anything is spent', async t => {
  const { call, mint, sandbox } = await startGateway(t, { config })
  const token = await mint('alice')
  for (const input of [
    '"mode":"text-to-video","resolution":"720p"',
    '"mode":"text-to-video","resolution":"720p","clips":"1"',
    '"mode":"text-to-video","resolution":"720p","clips":0',
    '"mode":"text-to-video","Resolution":"720p","clips":1',
    '"mode":"text-to-video","resolution":"720P","clips":1,"duration":null',
    '"duration":1000001'
  ]) {
    const reply = await call(path, { token, body: `{"input":{"prompt":"x",${input}}}` })
    t.match(reply, { status: 400, error: 'GW_BAD_REQUEST', json: { message: /input\.|"resolution"/ } }, input)
  }
  t.equal((await call('/gateway/session', { token })).json.credits.used, 0)
  t.equal(sandbox.calls.length, 0)
})

t.test('each item of a batch has its own price', async t => {
  const { call, mint } = await startGateway(t, { config })
  const token = await mint('alice')
  const items = [
    { mode: 'text-to-video', resolution: '480p', clips: 3 },
    { mode: 'text-to-video', resolution: '1080p', duration: 2 }
  ].map((input, index) => ({ client_item_id: `c${index}`, idempotency_key: `k${index}`, input: { prompt: 'x', ...input } }))
  t.equal((await call(`${path}/batches`, { token, body: { items } })).status, 200)
  t.equal((await call('/gateway/session', { token })).json.credits.used, 15 + 18)
})
