import { setTimeout as wait } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { adminToken, apiKey, issuerToken, sessionSecret, startGateway } from '../helpers/gateway.ts'
import { rawSocket } from '../helpers/raw-http.ts'
import { secretFiles } from '../helpers/secret-files.ts'
import { until } from '../helpers/until.ts'

const others = {
  GATEWAY_SESSION_SECRET: 'another-session-secret-of-32-bytes-and-more',
  GATEWAY_ADMIN_TOKEN: 'admin-token-of-the-operator-0002',
  GATEWAY_ISSUER_TOKEN: 'issuer-token-of-the-backend-0002'
} as const

/** A gateway whose secrets are in files, and a caller whose body takes its time. */
async function start (t: Test) {
  const files = secretFiles(t, {
    APIXO_API_KEY: apiKey, GATEWAY_SESSION_SECRET: sessionSecret, GATEWAY_ISSUER_TOKEN: issuerToken, GATEWAY_ADMIN_TOKEN: adminToken
  })
  const gateway = await startGateway(t, { env: files.env, keys: [] })
  const { origin, log, time } = gateway
  return {
    ...gateway,
    async rotate (name: keyof typeof others): Promise<void> {
      await wait(250) // the files have been looked at once
      files.rotate(name, others[name])
      await until(`${name} to be read`, () => log.some(({ setting, rotated }) => setting === name && rotated === true))
    },
    /** Sends all but the body; what it resolves to sends that, a second later, and resolves to the answer. */
    async begin (path: string, token: string, body = '{}'): Promise<() => Promise<string>> {
      const socket = await rawSocket(t, origin)
      let text = ''
      socket.on('data', (chunk: Buffer) => { text += chunk })
      const headers = [`host: ${new URL(origin).host}`, `authorization: Bearer ${token}`, 'content-type: application/json', 'expect: 100-continue']
      socket.write([`POST ${path} HTTP/1.1`, ...headers, `content-length: ${body.length}`, '', ''].join('\r\n'))
      await until('the body is asked for', () => text.startsWith('HTTP/1.1 100'))
      return async () => {
        time.advance(1000)
        socket.write(body)
        await until('an answer', () => /HTTP\/1\.1 [2-5].*\r\n\r\n/s.test(text))
        return text
      }
    }
  }
}

t.test('whoever has a leaked session secret is printed no cookie under the next one', async t => {
  const { mint, begin, rotate } = await start(t)
  const finish = await begin('/gateway/sessions/cookie', await mint('alice'))
  await rotate('GATEWAY_SESSION_SECRET')
  const answer = await finish()
  t.match(answer, /HTTP\/1\.1 401 .*x-gateway-error: GW_BAD_SESSION/s)
  t.notMatch(answer, /set-cookie: [^;]+eyJ/i)
})

t.test('an issuer or admin token that has been replaced does nothing with a body that was on its way', async t => {
  const { begin, rotate, call } = await start(t)
  const minted = await begin('/gateway/sessions', issuerToken, '{"subject":"mallory"}')
  const created = await begin('/gateway/admin/tokens', adminToken, '{"subject":"mallory"}')
  const granted = await begin('/gateway/admin/credits', adminToken, '{"subject":"app:mallory","credits":5}')
  await rotate('GATEWAY_ISSUER_TOKEN')
  await rotate('GATEWAY_ADMIN_TOKEN')
  for (const finish of [minted, created, granted]) t.match(await finish(), /HTTP\/1\.1 401 .*x-gateway-error: GW_BAD_SESSION/s)
  const { items } = (await call('/gateway/admin/audit', { token: others.GATEWAY_ADMIN_TOKEN })).json
  t.same(items.filter(({ kind }: any) => ['mint', 'create', 'grant'].includes(kind)), [])
})

t.test('a body may take its time', async t => {
  const { begin, mint } = await start(t)
  const finish = await begin('/gateway/sessions/cookie', await mint('alice'))
  t.match(await finish(), /HTTP\/1\.1 201 .*set-cookie: __Host-/s)
})
