import t from 'tap'
import { newTokenId, printSecret } from '../../src/features/tokens/tokens.ts'
import { adminToken, startGateway } from '../helpers/gateway.ts'

const env = { GATEWAY_ADMIN_TOKEN: adminToken, GATEWAY_PUBLIC_URL: 'https://ai.example' }

t.test(
  'tokens are not guessed: each try counts against the address, and after that it is not said which are wrong',
  async t => {
    const { call } = await startGateway(t, {
      env,
      config: 'plans: { default: {} }\nlimits: { addressFailuresPerMinute: 10 }'
    })
    const { token, id } = (await call('/gateway/admin/tokens', { token: adminToken, body: { subject: 'alice' } })).json
    for (let count = 0; count < 10; count++) {
      const guess = printSecret('apx', count % 2 === 0 ? id : newTokenId())
      t.match(await call('/gateway/session', { token: guess }), { status: 401, error: 'GW_BAD_SESSION' })
    }
    t.match(await call('/gateway/session', { token: printSecret('apx', id) }), { status: 429, error: 'GW_THROTTLED' })
    t.equal((await call('/gateway/session', { token })).status, 200, 'the right one goes on')
  }
)

t.test('a wrong secret of a token that is there gets the same answer as one of a token that is not', async t => {
  const { call } = await startGateway(t, { env })
  const { token, id } = (await call('/gateway/admin/tokens', { token: adminToken, body: { subject: 'alice' } })).json
  const answers = await Promise.all(
    [printSecret('apx', id), printSecret('apx', newTokenId()), token.slice(0, -1), 'apx_', `${token}x`].map(
      async guess => {
        const { status, json } = await call('/gateway/session', { token: guess })
        return { status, json: { ...json, error: json.error.code } }
      }
    )
  )
  for (const answer of answers) t.strictSame(answer, answers[0])
})

t.test('nobody but the operator makes, sees, rotates or ends a token', async t => {
  const { call } = await startGateway(t, { env })
  const { token, id } = (await call('/gateway/admin/tokens', { token: adminToken, body: { subject: 'alice' } })).json
  for (const [method, path] of [
    ['POST', '/tokens'],
    ['GET', '/tokens'],
    ['DELETE', `/tokens/${id}`],
    ['POST', `/tokens/${id}/rotate`],
    ['POST', '/invitations']
  ] as const) {
    t.match(await call(`/gateway/admin${path}`, { method }), { status: 401, error: 'GW_NO_SESSION' }, path)
    for (const credential of [token, `${adminToken}x`, printSecret('apx', id)]) {
      t.match(
        await call(`/gateway/admin${path}`, { method, token: credential }),
        { status: 401, error: 'GW_BAD_SESSION' },
        path
      )
    }
    t.match(await call(`/gateway/admin${path}`, { method, headers: { 'x-api-key': adminToken } }), { status: 401 })
  }
  t.equal((await call('/gateway/session', { token })).status, 200, 'and nothing has happened to it')
})

t.test('without an admin token these routes are not there', async t => {
  const { call } = await startGateway(t)
  for (const path of ['/gateway/admin/tokens', '/gateway/admin/tokens/x', '/gateway/admin/invitations']) {
    t.match(await call(path, { token: adminToken }), { status: 404, error: 'GW_NOT_FOUND' })
  }
})
