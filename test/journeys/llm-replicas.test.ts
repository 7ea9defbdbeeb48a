import t from 'tap'
import { json, llmConfig, startLlmGateway } from '../helpers/llm-gateway.ts'
import { redisServer } from '../helpers/redis-server.ts'
import { until } from '../helpers/until.ts'

const path = '/v1/chat/completions'
const body = { model: 'plain-1', max_tokens: 50, messages: [] }
const whole = { choices: [{ index: 0, message: { content: 'Hello' }, finish_reason: 'stop' }] }

t.test('an outcome that one replica has told as unknown, another tells again, and buys nothing', async t => {
  const server = await redisServer(t, { appendonly: true })
  const options = { config: llmConfig, env: { GATEWAY_STORE: server.url } }
  const one = await startLlmGateway(t, ({ response }) => response.destroy(), options)
  const other = await startLlmGateway(t, json(whole), options)
  const token = await one.mint('alice')
  t.match(await one.call(path, { token, body }), { status: 502, error: 'GW_OUTCOME_UNKNOWN' })
  t.match(await other.call(path, { token, body }), { status: 502, error: 'GW_OUTCOME_UNKNOWN' })
  t.equal(other.calls.length, 0)
  t.equal((await other.call(path, { token, body: { ...body, seed: 1 } })).status, 200, 'another call is another call')
  const bob = await one.mint('bob')
  t.equal((await other.call(path, { token: bob, body })).status, 200, 'and so is another caller\'s')

  const [key, ...more] = await server.admin.keys('*:unknown:*')
  t.strictSame(more, [])
  t.equal(await server.admin.get(key!), '1', 'nothing of the call')
  const lastsMs = await server.admin.pttl(key!)
  t.ok(lastsMs > 0 && lastsMs <= 30_000, `${lastsMs} ms`)
  await server.admin.del(key!)
  t.equal((await other.call(path, { token, body })).status, 200, 'once that is over it may be made')
})

t.test('while the store is away, a replica goes by what it has told itself', async t => {
  const server = await redisServer(t, { appendonly: true })
  const options = { config: llmConfig, env: { GATEWAY_STORE: server.url } }
  const { call, mint, calls, log } = await startLlmGateway(t, () => {}, options)
  const token = await mint('alice')
  const asked = call(path, { token, body })
  await until('it is asked', () => calls.length === 1)
  await server.kill()
  calls[0]!.response.destroy()
  await until('it is lost', () => log.some(({ msg }) => msg === 'the answer of an LLM call was lost'))
  t.equal((await call(path, { token, body: { ...body, seed: 1 } })).status, 503, 'as ever')
  await server.start()
  t.match(await asked, { status: 502, error: 'GW_OUTCOME_UNKNOWN' })
  await until('it is served again', async () => (await call(path, { token, body })).error === 'GW_OUTCOME_UNKNOWN')
  t.equal(calls.length, 1)
})
