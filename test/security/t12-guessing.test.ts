import t from 'tap'
import { issuerToken, startGateway } from '../helpers/gateway.ts'

const body = { subject: 'x' }

t.test('an issuer token that is nearly right is wrong', async t => {
  const { call } = await startGateway(t, {
    config: 'plans: { default: {} }\nlimits: { addressFailuresPerMinute: 10000 }'
  })
  const nearly = [
    '',
    issuerToken.slice(0, -1),
    `${issuerToken}x`,
    issuerToken.slice(1),
    issuerToken.toUpperCase(),
    `${issuerToken.slice(0, -1)}2`,
    `x${issuerToken.slice(1)}`,
    issuerToken.repeat(2),
    issuerToken.replace('-', '_'),
    'x',
    'a'.repeat(issuerToken.length),
    'a'.repeat(4000),
    [...issuerToken].reverse().join('')
  ]
  for (const token of nearly) {
    const reply = await call('/gateway/sessions', { body, headers: { 'x-api-key': token } })
    t.match(reply, { status: 401, error: 'GW_BAD_SESSION' }, token.slice(0, 40))
    t.notMatch(reply.text, issuerToken.slice(0, 8))
  }
  t.equal((await call('/gateway/sessions', { body, token: issuerToken })).status, 201)
})

t.test(
  'tries are throttled per address: after the limit nothing goes on but sessions and the issuer token',
  async t => {
    const { call, sandbox, mint } = await startGateway(t, {
      config: 'plans: { default: {} }\nlimits: { addressFailuresPerMinute: 10 }'
    })
    const session = await mint('alice')
    for (let round = 0; round < 10; round++) {
      t.equal((await call('/gateway/sessions', { body, token: `guess-${round}` })).status, 401)
    }
    t.equal((await call('/gateway/sessions', { body, token: issuerToken })).status, 201)
    t.equal((await call('/gateway/session', { token: session })).status, 200)
    for (const [path, token] of [
      ['/gateway/sessions', 'guess'],
      ['/gateway/session', issuerToken],
      ['/nowhere', session],
      ['/nowhere', undefined]
    ] as const) {
      const reply = await call(path, {
        ...(token === undefined ? {} : { token }),
        ...(path === '/gateway/sessions' ? { body } : {})
      })
      t.match(reply, { status: 429, error: 'GW_THROTTLED' }, path)
      t.ok(Number(reply.headers.get('retry-after')) > 0)
    }
    t.equal((await call('/livez')).status, 200, 'health is exempt')
    t.equal(sandbox.calls.length, 0)
  }
)

t.test('parallel tries are counted too', async t => {
  const { call } = await startGateway(t, { config: 'plans: { default: {} }\nlimits: { addressFailuresPerMinute: 10 }' })
  const replies = await Promise.all(
    Array.from({ length: 100 }, (_, index) => call('/gateway/session', { token: `guess.${index}.x` }))
  )
  t.ok(replies.every(reply => reply.status === 401 || reply.status === 429))
  t.equal((await call('/gateway/session', { token: 'one.more.x' })).status, 429)
})

t.test('guesses of every kind share one budget: tokens, routes, task ids', async t => {
  const { call, status, mint } = await startGateway(t, {
    config: 'plans: { default: {} }\nlimits: { addressFailuresPerMinute: 9 }'
  })
  const token = await mint('alice')
  for (let round = 0; round < 3; round++) {
    t.equal((await call('/gateway/session', { token: 'a.b.c' })).status, 401)
    t.equal((await call(`/nowhere-${round}`)).status, 404)
    t.equal((await status(token, `guess-${round}`)).status, 404)
  }
  t.equal((await status(token, 'one-more')).error, 'GW_THROTTLED')
})

t.test('what succeeds is not counted as a guess', async t => {
  const { call, mint } = await startGateway(t, {
    config: 'plans: { default: {} }\nlimits: { addressFailuresPerMinute: 1 }'
  })
  const token = await mint('alice')
  for (let round = 0; round < 20; round++) t.equal((await call('/gateway/session', { token })).status, 200)
})
