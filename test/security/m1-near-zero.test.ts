import t from 'tap'
import { anyItems } from '../helpers/batches.ts'
import { issuerToken, startGateway } from '../helpers/gateway.ts'

const config = `
plans: { default: { credits: 1000, concurrentTasks: 1000, requestsPerMinute: 10000, pollsPerMinute: 10000 } }
prices: { "sora-2*": { credits: 2, per: input.duration, default: 8 }, "nano*": { credits: 0.000001, per: input.count } }
caps: { "sora-2-pro": { input.duration: { min: 4 } } }
batches: { enabled: true }
`
/** Above zero, and nothing by any rounding. */
const tiny = ['1e-10', '0.0000001', '1e-20', '1e-300', '2.2250738585072014e-308', '5e-324', '0.5', '0.9999999999999999']

const path = (model: string) => `/api/v1/generateTask/${model}`

t.test('no quantity near zero makes a submit free, or cheaper than one unit', async t => {
  const { call, mint, sandbox } = await startGateway(t, { config })
  const left = async (token: string) => (await call('/gateway/session', { token })).json.credits.left
  for (const count of tiny) {
    const token = await mint(`mallory-${count}`)
    t.equal(
      (await call(path('sora-2'), { token, body: `{"input":{"prompt":"x","duration":${count}}}` })).status,
      200,
      count
    )
    t.equal(await left(token), 998, `${count} is one second`)
    t.equal(
      (await call(path('nano-banana'), { token, body: `{"input":{"prompt":"x","count":${count}}}` })).status,
      200,
      count
    )
    t.equal(await left(token), 997.999999, `${count} of a price of a millionth is a millionth`)
    const capped = await call(path('sora-2-pro'), { token, body: `{"input":{"prompt":"x","duration":${count}}}` })
    t.equal(capped.error, 'GW_BAD_REQUEST', `${count} is below the cap`)
  }
  t.equal(sandbox.submits.length, 2 * tiny.length)
})

t.test('two hundred submits of next to nothing are charged two hundred times', async t => {
  const { call, mint, sandbox } = await startGateway(t, { config: config.replace('credits: 1000,', 'credits: 100,') })
  const token = await mint('mallory')
  const replies = await Promise.all(
    Array.from({ length: 200 }, () =>
      call(path('sora-2'), { token, body: '{"input":{"prompt":"x","duration":1e-10}}' })
    )
  )
  t.equal(replies.filter(({ status }) => status === 200).length, 50)
  t.equal(replies.filter(({ error }) => error === 'GW_CREDITS_EXHAUSTED').length, 150)
  t.equal(sandbox.submits.length, 50)
})

t.test('nor does any item of a batch', async t => {
  const { call, mint } = await startGateway(t, { config })
  const token = await mint('mallory')
  const items = anyItems(3).map(item => ({ ...item, input: { prompt: 'x', duration: 1e-10 } }))
  t.equal((await call(`${path('sora-2')}/batches`, { token, body: { items } })).status, 200)
  t.equal((await call('/gateway/session', { token })).json.credits.left, 994)
})

t.test('no session is minted with credits that are none', async t => {
  const { call, mint } = await startGateway(t, { config })
  for (const credits of ['0', '-0', '-1', '1e-7', '9.99e-7', '1e-10', '5e-324', '1e-400']) {
    const reply = await call('/gateway/sessions', {
      token: issuerToken,
      body: `{"subject":"alice","credits":${credits}}`
    })
    t.match(reply, { status: 400, error: 'GW_BAD_REQUEST', json: { message: /credits/ } }, credits)
  }
  const token = await mint('alice', { credits: 0.000001 })
  t.match(
    (await call('/gateway/session', { token })).json.credits.session,
    { limit: 0.000001, left: 0.000001 },
    'the least is a session that is good'
  )
  t.equal((await call(path('grok-video'), { token, body: { input: { prompt: 'x' } } })).error, 'GW_CREDITS_EXHAUSTED')
  t.equal((await call(path('nano-banana'), { token, body: { input: { prompt: 'x', count: 0.001 } } })).status, 200)
})
