import t from 'tap'
import { startGateway } from '../helpers/gateway.ts'

const config = `
plans:
  default: { models: ["*"], concurrentTasks: 100 }
  images: { models: ["nano-*", "flux-2"], concurrentTasks: 100 }
  nothing: { models: [] }
`

t.test('a session uses the models of its list and no other, however they are spelled', async t => {
  const { submit, status, mint, sandbox } = await startGateway(t, { config })
  const token = await mint('alice', { models: ['nano-banana', 'wan-*-image'] })
  for (const model of ['sora-2', 'nano-banana-pro', 'Nano-Banana', 'NANO-BANANA', 'nano-bananA', 'wan-2-5', 'wan--imag', 'xwan-2-5-image', 'wan-2-5-image-x', 'nano.banana', 'happyHorse']) {
    t.match(await submit(token, 'x', model), { status: 403, error: 'GW_MODEL_DENIED' }, model)
    t.match(await status(token, 'x', model), { status: 403, error: 'GW_MODEL_DENIED' }, model)
  }
  t.equal(sandbox.calls.length, 0)
  for (const model of ['nano-banana', 'wan-2-5-image', 'wan-2-7-image']) t.equal((await submit(token, 'x', model)).status, 200, model)
})

t.test('a session gets what its plan and its own list both allow', async t => {
  const { submit, mint, sandbox } = await startGateway(t, { config })
  const wide = await mint('alice', { plan: 'images', models: ['*'] })
  t.equal((await submit(wide, 'x', 'sora-2')).error, 'GW_MODEL_DENIED')
  t.equal((await submit(wide, 'x', 'flux-2')).status, 200)
  const narrow = await mint('alice', { plan: 'images', models: ['sora-2', 'flux-2'] })
  t.equal((await submit(narrow, 'x', 'sora-2')).error, 'GW_MODEL_DENIED')
  t.equal((await submit(narrow, 'x', 'nano-banana')).error, 'GW_MODEL_DENIED')
  t.equal(sandbox.calls.length, 1)
})

t.test('empty means none: of models, in a plan or a session, and of scopes', async t => {
  const { submit, status, mint, sandbox } = await startGateway(t, { config })
  for (const more of [{ plan: 'nothing' }, { models: [] }]) {
    t.equal((await submit(await mint('alice', more))).error, 'GW_MODEL_DENIED', JSON.stringify(more))
  }
  const token = await mint('alice', { scopes: [] })
  t.equal((await submit(token)).error, 'GW_SCOPE_DENIED')
  t.equal((await status(token, 'x')).error, 'GW_SCOPE_DENIED')
  t.equal(sandbox.calls.length, 0)
})

t.test('a scope opens its own operations and no other', async t => {
  const { submit, status, mint, sandbox } = await startGateway(t, { config })
  const [reader, writer, talker] = [await mint('alice', { scopes: ['tasks:read'] }), await mint('alice', { scopes: ['tasks:write'] }), await mint('alice', { scopes: ['llm'] })]
  t.equal((await submit(reader)).error, 'GW_SCOPE_DENIED')
  t.equal((await submit(talker)).error, 'GW_SCOPE_DENIED')
  t.equal(sandbox.calls.length, 0)
  const { taskId } = (await submit(writer)).json.data
  t.equal((await status(writer, taskId)).error, 'GW_SCOPE_DENIED')
  t.equal((await status(talker, taskId)).error, 'GW_SCOPE_DENIED')
  t.equal(sandbox.calls.length, 1)
  t.equal((await status(reader, taskId)).status, 200, 'the subject is the same')
})

t.test('a refused model is told as it is, and not as markup', async t => {
  const { submit, mint } = await startGateway(t, { config })
  const reply = await submit(await mint('alice', { models: ['nano-banana'] }), 'x', 'sora-2')
  t.match(reply.headers.get('content-type'), /^application\/json/)
  t.same(Object.keys(reply.json).sort(), ['code', 'data', 'error', 'message'])
})
