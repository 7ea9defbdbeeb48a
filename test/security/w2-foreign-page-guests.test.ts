import t, { type Test } from 'tap'
import { startGateway } from '../helpers/gateway.ts'
import { guestsOf } from '../helpers/guests.ts'

const config = 'plans: { default: {}, guest: {} }\nguests: { enabled: true, proof: none, sessionsPerAddressPerDay: 10 }'

async function start (t: Test, env: Readonly<Record<string, string>>) {
  const gateway = await startGateway(t, { config, env })
  return { ...gateway, ...guestsOf(gateway) }
}

// The visitors of a busy site would have an address each, and browsers that solve whatever they are given.
t.test('the page of a stranger begins no sessions for its visitors', async t => {
  const { enter, call, origin } = await start(t, { GATEWAY_ALLOWED_ORIGINS: 'https://app.example' })
  const strangers = [
    'https://evil.test',
    'null',
    '',
    'https://app.example.evil.test',
    'http://app.example',
    'https://app.example:8443',
    `${origin}.evil.test`
  ]
  for (const stranger of strangers) {
    t.match(await enter(undefined, { origin: stranger }), { status: 403, error: 'GW_ORIGIN_DENIED' }, stranger)
    const form = await call('/gateway/sessions/guest', {
      method: 'POST',
      headers: { origin: stranger, 'content-type': 'text/plain' }
    })
    t.match(form, { status: 403, error: 'GW_ORIGIN_DENIED' }, `${stranger} by a form`)
  }
  t.match(
    await call('/gateway/sessions/guest', { method: 'POST' }),
    { status: 403, error: 'GW_ORIGIN_DENIED' },
    'nor does who comes from no page'
  )
  t.equal((await enter()).status, 201, 'our own page does')
  const listed = await enter(undefined, { origin: 'https://app.example' })
  t.equal(listed.status, 201, 'and that of a listed origin')
  t.equal(listed.headers.get('access-control-allow-origin'), 'https://app.example')
})

t.test('our own origin is what the operator says', async t => {
  const { enter, origin } = await start(t, { GATEWAY_PUBLIC_URL: 'https://gateway.example' })
  t.equal((await enter(undefined, { origin: 'https://gateway.example' })).status, 201)
  t.match(await enter(undefined, { origin }), { status: 403, error: 'GW_ORIGIN_DENIED' })
})

t.test('a guest has no more than its plan, can ask for no more, and begets nothing', async t => {
  const { call, enter, origin } = await start(t, { GATEWAY_ISSUER_TOKEN: 'issuer-token-of-the-backend-0001' })
  const ask = (body: unknown) => call('/gateway/sessions/guest', { method: 'POST', body, headers: { origin } })
  for (const body of [
    { plan: 'default' },
    { subject: 'admin' },
    { scopes: ['llm'] },
    { ttlSeconds: 1e6 },
    'x',
    '"x"',
    '[1]'
  ]) {
    t.match(await ask(body), { status: 400, error: 'GW_BAD_REQUEST' }, JSON.stringify(body))
  }
  const { json } = await ask({})
  t.match((await call('/gateway/session', { token: json.token })).json, {
    subject: /^guest:/,
    plan: 'guest',
    scopes: ['tasks:write', 'tasks:read']
  })
  t.match(await call('/gateway/sessions', { token: json.token, body: { subject: 'alice' } }), {
    status: 403,
    error: 'GW_SCOPE_DENIED'
  })
  t.not((await enter()).json.subject, json.subject)
})
