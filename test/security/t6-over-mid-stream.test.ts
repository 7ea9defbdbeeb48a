import { SignJWT } from 'jose'
import { setTimeout as wait } from 'node:timers/promises'
import t from 'tap'
import { heartbeatMs, sessionCheckMs } from '../../src/features/events/sse.ts'
import { crankedGateway } from '../helpers/cranked-gateway.ts'
import { adminToken } from '../helpers/gateway.ts'
import { secretFiles } from '../helpers/secret-files.ts'
import { until } from '../helpers/until.ts'

const shop = 'https://shop.example'
const secret = '2b7e151628aed2a6abf7158809cf4f3c762e7160f38b4da56a784d9045190cfe'

t.test('a stream says that it lives, and a session that is over loses its streams', async t => {
  const { mint, made, listenTo, listen, pass, call, time } = await crankedGateway(t)
  const [revoked, short, other] = [await mint('alice'), await mint('alice', { ttlSeconds: 60 }), await mint('alice')]
  const taskId = await made(other, 'sandbox:forever')
  const streams = await Promise.all([revoked, short, other].map(token => listenTo(taskId, { token })))
  const all = await listen('/gateway/events', { token: revoked })
  for (let passed = 0; passed < heartbeatMs; passed += sessionCheckMs) {
    pass(sessionCheckMs)
    await wait(20)
  }
  await until('they live', () => streams.every(({ text }) => text.endsWith('\n\n:\n')))
  t.equal((await call('/gateway/session', { method: 'DELETE', token: revoked })).status, 204)
  pass(sessionCheckMs)
  await Promise.all([streams[0]!.over(), all.over()])
  t.notOk(streams[0]!.isCut)
  t.strictSame(streams.map(({ isOver }) => isOver), [true, false, false])
  time.advance(60_000)
  pass(sessionCheckMs)
  await streams[1]!.over()
  t.notOk(streams[2]!.isOver)
  t.equal((await listenTo(taskId, { token: revoked })).status, 401)
})

t.test('a stream ends with the sessions of its subject, though another one\'s token has the same id', async t => {
  const secretFile = secretFiles(t, { shop: secret }).path('shop')
  const { listen, pass, call, time } = await crankedGateway(t, {
    env: { GATEWAY_ADMIN_TOKEN: adminToken },
    config: `
plans: { default: {} }
issuers: [{ issuer: "${shop}", secretFile: "${secretFile}", audience: app, algorithms: [HS256], subjectPrefix: shop, plan: default }]
`
  })
  const iat = Math.floor(time.now() / 1000)
  const [ann, ben] = await Promise.all(['ann', 'ben'].map(async sub => {
    const claims = { iss: shop, sub, aud: 'app', jti: 'web', iat, exp: iat + 600 }
    const token = await new SignJWT(claims).setProtectedHeader({ alg: 'HS256' }).sign(Buffer.from(secret))
    return await listen('/gateway/events', { token })
  }))
  const subject = 'shop:ben'
  const ended = await call('/gateway/admin/revocations', { method: 'POST', token: adminToken, body: { subject } })
  t.equal(ended.status, 201)
  pass(sessionCheckMs)
  await ben!.over()
  t.notOk(ann!.isOver)
})
