import t from 'tap'
import { crankedGateway } from '../helpers/cranked-gateway.ts'

t.test('a token in the query opens no stream and is written nowhere', async t => {
  const { mint, made, call, log } = await crankedGateway(t)
  const token = await mint('alice')
  const taskId = await made(token)
  for (const path of [`/gateway/tasks/${taskId}/events`, '/gateway/events']) {
    for (const name of ['key', 'access_token', 'token']) {
      t.match(await call(`${path}?${name}=${token}`), { status: name === 'token' ? 401 : 400 })
      t.match(await call(`${path}?${name}=${token}`, { token }), { status: 400, error: 'GW_BAD_REQUEST' })
    }
  }
  t.notOk(JSON.stringify(log).includes(token))
})
