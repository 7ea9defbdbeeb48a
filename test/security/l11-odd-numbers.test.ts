import t from 'tap'
import { startGateway } from '../helpers/gateway.ts'

const config = `
plans: { default: { credits: 100, concurrentTasks: 1000, requestsPerMinute: 10000 } }
prices: { "sora-2*": { credits: 2, per: input.duration, default: 8 }, "gpt-image-1": { credits: 3, per: input.num_images } }
caps: { "kling-*": { input.duration: { min: 1, max: 10 }, input.options.size: { oneOf: [720, 1080] } }, "Suno": { input.count: { max: 4 } } }
`
const send = (model: string) => `/api/v1/generateTask/${model}`

const odd = [
  '-1',
  '0',
  '-0',
  '0.0',
  '1e309',
  '-1e309',
  '1e-400',
  'null',
  '"4"',
  '"4s"',
  '""',
  'true',
  'false',
  '[]',
  '[4]',
  '{}',
  '{"valueOf":4}',
  '9007199254740993',
  '1e16',
  '1000001',
  '99999999999999999999999999999999999999',
  '-9223372036854775808',
  '"NaN"',
  '"Infinity"'
]
const noJson = ['NaN', 'Infinity', '-Infinity', '0x10', '010', '1_000', '+1', '.5', '1.', '1e', '١', '']

t.test('a number that makes the price is a plain positive one, or nothing is reserved and nothing is sent', async t => {
  const { call, mint, sandbox } = await startGateway(t, { config })
  const token = await mint('alice')
  for (const [model, name] of [
    ['sora-2', 'duration'],
    ['sora-2-pro', 'duration'],
    ['gpt-image-1', 'num_images'],
    ['Sora-2', 'duration']
  ] as const) {
    for (const value of [...odd, ...noJson]) {
      const reply = await call(send(model), { token, body: `{"input":{"prompt":"x","${name}":${value}}}` })
      t.match(reply, { status: 400, error: 'GW_BAD_REQUEST' }, `${model} ${name}: ${value}`)
    }
  }
  t.equal(
    (await call(send('gpt-image-1'), { token, body: { input: { prompt: 'x' } } })).error,
    'GW_BAD_REQUEST',
    'no default, no price'
  )
  t.equal(
    (await call(send('sora-2'), { token, body: { input: { prompt: 'x', Duration: 1 } } })).error,
    'GW_BAD_REQUEST',
    'nor another spelling'
  )
  t.equal(sandbox.calls.length, 0)

  t.equal(
    (await call(send('sora-2'), { token, body: { input: { prompt: 'x', duration: 50 } } })).status,
    200,
    'all hundred credits are still there'
  )
  t.equal(
    (await call(send('sora-2'), { token, body: { input: { prompt: 'x', duration: 0.000001 } } })).error,
    'GW_CREDITS_EXHAUSTED',
    'and no fraction is free'
  )
  t.equal(sandbox.submits.length, 1)
})

t.test('a price above all credits is refused, and one above what any number holds does not overflow', async t => {
  for (const credits of ['100', 'unlimited']) {
    await t.test(`credits: ${credits}`, async t => {
      const { call, mint, sandbox } = await startGateway(t, {
        config: config.replace('credits: 100,', `credits: ${credits},`).replace('credits: 2,', 'credits: 1000000000,')
      })
      const token = await mint('alice')
      for (const duration of [10, 1000, 1_000_000]) {
        const { status } = await call(send('sora-2'), { token, body: { input: { prompt: 'x', duration } } })
        t.ok(status === 402 || status === 400, `${duration}: ${status}`)
      }
      t.equal(sandbox.calls.length, 0)
      t.equal(
        (await call(send('nano-banana'), { token, body: { input: { prompt: 'x' } } })).status,
        200,
        'nothing is spent'
      )
    })
  }
})

t.test('a capped number is a plain one within its bounds, whatever the case of the model', async t => {
  const { call, mint, sandbox } = await startGateway(t, { config })
  const token = await mint('alice')
  for (const model of ['kling-2-6', 'KLING-2-6', 'Kling-x']) {
    for (const value of [...odd, '11', '10.0000001', '0.9999', '1e2']) {
      if (model !== 'kling-2-6' && value === '') continue
      const reply = await call(send(model), { token, body: `{"input":{"prompt":"x","duration":${value}}}` })
      t.match(reply, { status: 400, error: 'GW_BAD_REQUEST' }, `${model}: ${value}`)
    }
    for (const size of ['719', '"720"', '720.5', 'null', '[720]', '{"x":720}']) {
      t.equal(
        (await call(send(model), { token, body: `{"input":{"prompt":"x","options":{"size":${size}}}}` })).error,
        'GW_BAD_REQUEST',
        size
      )
    }
  }
  t.equal(
    (await call(send('suno'), { token, body: '{"input":{"prompt":"x","count":5}}' })).error,
    'GW_BAD_REQUEST',
    'also the other way round'
  )
  t.equal(sandbox.calls.length, 0)
  for (const body of [
    '{"input":{"prompt":"x","duration":10}}',
    '{"input":{"prompt":"x","duration":1e1}}',
    '{"input":{"prompt":"x","options":{"size":1080}}}',
    '{"input":{"prompt":"x"}}',
    '{"input":{"prompt":"x","options":[]}}',
    '{"input":{"prompt":"x","options":7}}'
  ]) {
    t.equal((await call(send('kling-2-6'), { token, body })).status, 200, body)
  }
})
