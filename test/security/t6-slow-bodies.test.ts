import t, { type Test } from 'tap'
import { adminToken, apiKey, issuerToken, sessionSecret, startGateway } from '../helpers/gateway.ts'
import { secretFiles } from '../helpers/secret-files.ts'
import { slowBody } from '../helpers/slow-body.ts'
import { until } from '../helpers/until.ts'

const others = {
  GATEWAY_SESSION_SECRET: 'another-session-secret-of-32-bytes-and-more',
  GATEWAY_ADMIN_TOKEN: 'admin-token-of-the-operator-0002',
  GATEWAY_ISSUER_TOKEN: 'issuer-token-of-the-backend-0002'
} as const

/** A gateway whose secrets are in files, and a caller whose body takes its time. */
async function start (t: Test) {
  const files = secretFiles(t, {
    APIXO_API_KEY: apiKey,
    GATEWAY_SESSION_SECRET: sessionSecret,
    GATEWAY_ISSUER_TOKEN: issuerToken,
    GATEWAY_ADMIN_TOKEN: adminToken
  })
  const gateway = await startGateway(t, { env: files.env, keys: [] })
  const { origin, log, time } = gateway
  return {
    ...gateway,
    async rotate (name: keyof typeof others): Promise<void> {
      files.rotate(name, others[name])
      await until(`${name} to be read`, () => log.some(({ setting, rotated }) => setting === name && rotated === true))
    },
    /** What it resolves to sends the body, a second later. */
    async begin (path: string, token: string, body?: object) {
      const finish = await slowBody(t, origin + path, token, body)
      return () => {
        time.advance(1000)
        return finish()
      }
    }
  }
}

t.test('whoever has a leaked session secret is printed no cookie under the next one', async t => {
  const { mint, begin, rotate } = await start(t)
  const finish = await begin('/gateway/sessions/cookie', await mint('alice'))
  await rotate('GATEWAY_SESSION_SECRET')
  const answer = await finish()
  t.match(answer, { status: 401, error: 'GW_BAD_SESSION' })
  t.notMatch(answer.text, /set-cookie: [^;]+eyJ/i)
})

t.test('an issuer or admin token that has been replaced does nothing with a body that was on its way', async t => {
  const { begin, rotate, call } = await start(t)
  const minted = await begin('/gateway/sessions', issuerToken, { subject: 'mallory' })
  const created = await begin('/gateway/admin/tokens', adminToken, { subject: 'mallory' })
  const granted = await begin('/gateway/admin/credits', adminToken, { subject: 'app:mallory', credits: 5 })
  await rotate('GATEWAY_ISSUER_TOKEN')
  await rotate('GATEWAY_ADMIN_TOKEN')
  for (const finish of [minted, created, granted]) t.match(await finish(), { status: 401, error: 'GW_BAD_SESSION' })
  const { items } = (await call('/gateway/admin/audit', { token: others.GATEWAY_ADMIN_TOKEN })).json
  t.same(items.filter(({ kind }: any) => ['mint', 'create', 'grant'].includes(kind)), [])
})

t.test('a body may take its time', async t => {
  const { begin, mint } = await start(t)
  const finish = await begin('/gateway/sessions/cookie', await mint('alice'))
  t.match(await finish(), { status: 201, text: /set-cookie: __Host-/ })
})
