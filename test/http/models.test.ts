import t from 'tap'
import type { Model } from '../../src/domain/policy.ts'
import { startGateway } from '../helpers/gateway.ts'

t.test('a session sees the models that it may use, with their prices', async t => {
  const models: readonly Model[] = [
    { id: 'nano-banana', category: 'image', options: { modes: ['text-to-image'] } },
    { id: 'sora-2', category: 'video' },
    { id: 'gpt-5.4', category: 'text' }
  ]
  const { call, mint } = await startGateway(t, {
    models,
    config:
      'plans: { default: {}, small: { models: ["nano-*", "gpt-*"] } }\nprices: { "sora-*": { credits: 2, per: input.duration } }'
  })
  const listed = async (more: object) =>
    (await call('/gateway/models', { token: await mint('alice', more) })).json.models.map(
      ({ id }: { id: string }) => id
    )
  t.strictSame((await call('/gateway/models', { token: await mint('alice') })).json, {
    models: [
      { ...models[0], price: { credits: 1 } },
      { ...models[1], price: { credits: 2, per: 'input.duration' } },
      { ...models[2], price: null }
    ]
  })
  t.strictSame(await listed({ plan: 'small' }), ['nano-banana', 'gpt-5.4'])
  t.strictSame(await listed({ models: ['sora-2'] }), ['sora-2'])
  t.strictSame(await listed({ scopes: ['llm'] }), ['gpt-5.4'])
  t.strictSame(await listed({ scopes: ['tasks:read'] }), [])
  t.match(await call('/gateway/models?x=1', { token: await mint('alice') }), { status: 400, error: 'GW_BAD_REQUEST' })
  t.equal((await call('/gateway/models')).status, 401)
})

t.test("the interval between two status calls is that of the model's category", async t => {
  const { mint, submit, status, time, sandbox } = await startGateway(t, {
    models: [{ id: 'sora-2', category: 'video' }]
  })
  const token = await mint('alice')
  const { taskId } = (await submit(token, 'sandbox:forever', 'sora-2')).json.data
  const asked = async () => {
    const before = sandbox.calls.length
    await status(token, taskId, 'sora-2')
    return sandbox.calls.length > before
  }
  t.ok(await asked())
  time.advance(14_999)
  t.notOk(await asked())
  time.advance(1)
  t.ok(await asked())
})
