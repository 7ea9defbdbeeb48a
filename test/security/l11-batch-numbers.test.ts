import t from 'tap'
import { startGateway } from '../helpers/gateway.ts'

const config = `
plans: { default: { credits: 100, concurrentTasks: 1000, requestsPerMinute: 10000 } }
prices: { "sora-2*": { credits: 2, per: input.duration, default: 8 } }
caps: { "kling-*": { input.duration: { min: 1, max: 10 } } }
batches: { enabled: true }
`
const path = (model: string) => `/api/v1/generateTask/${model}/batches`
const batch = (first: string, second: string) =>
  `{"items":[{"client_item_id":"a","idempotency_key":"k","input":{"prompt":"x","duration":${first}}},` +
  `{"client_item_id":"b","idempotency_key":"l","input":{"prompt":"x","duration":${second}}}]}`
const odd = [
  '-1',
  '0',
  '-0',
  '1e309',
  '1e-400',
  'null',
  '"4"',
  'true',
  '[4]',
  '{}',
  '9007199254740993',
  '1000001',
  'NaN',
  '0x10',
  ''
]

t.test(
  'a number of an item that makes its price is a plain positive one, or nothing of the batch is reserved or sent',
  async t => {
    const { call, mint, sandbox } = await startGateway(t, { config })
    const token = await mint('alice')
    for (const value of odd) {
      for (const body of [batch('1', value), batch(value, '1')]) {
        t.match(await call(path('sora-2'), { token, body }), { status: 400, error: 'GW_BAD_REQUEST' }, body)
      }
    }
    t.match(await call(path('sora-2'), { token, body: batch('1', '-1') }), {
      json: { message: /items\.1: input\.duration/ }
    })
    t.match(await call(path('kling-2-6'), { token, body: batch('11', '1') }), {
      json: { message: /items\.0: input\.duration must be at most 10/ }
    })
    t.match(
      await call(path('kling-2-6'), { token, body: batch('1', '1').replace('"duration":1}}]', '"Duration":1}}]') }),
      { error: 'GW_BAD_REQUEST', json: { message: /items\.1: / } }
    )
    t.equal(sandbox.calls.length, 0)
    t.equal(
      (await call(path('sora-2'), { token, body: batch('25', '26') })).error,
      'GW_CREDITS_EXHAUSTED',
      'each would do, both do not'
    )
    t.equal(
      (await call(path('sora-2'), { token, body: batch('25', '25') })).status,
      200,
      'all hundred credits are still there'
    )
    t.equal(
      (await call(path('sora-2'), { token, body: batch('0.000001', '0.000001').replaceAll('"k"', '"m"') })).error,
      'GW_CREDITS_EXHAUSTED'
    )
    t.equal(sandbox.submits.length, 1)
  }
)

t.test('a batch of no items, or of more than there may be, is a bad request', async t => {
  const { call, mint, sandbox } = await startGateway(t, { config })
  const token = await mint('alice')
  const item = (n: number) => `{"client_item_id":"c${n}","idempotency_key":"k${n}","input":{"prompt":"x"}}`
  for (const size of [0, 51, 5000]) {
    const body = `{"items":[${Array.from({ length: size }, (_, n) => item(n)).join(',')}]}`
    t.match(await call(path('suno'), { token, body }), { status: 400, json: { message: /1 to 50/ } }, String(size))
  }
  t.match(await call(path('suno'), { token, body: `{"items":[${'[],'.repeat(49)}[]]}` }), {
    status: 400,
    json: { message: /items\.0 must be an object/ }
  })
  t.match(await call(path('suno'), { token, body: `{"items":${'['.repeat(100)}${']'.repeat(100)}}` }), { status: 400 })
  t.equal(sandbox.calls.length, 0)
})
