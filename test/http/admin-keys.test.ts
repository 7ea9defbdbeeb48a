import type { AddressInfo } from 'node:net'
import t, { type Test } from 'tap'
import { Secret } from '../../src/domain/secret.ts'
import { adminToken, startGateway, type TestGatewayOptions } from '../helpers/gateway.ts'

const keys = ['apixo-key-number-one', 'apixo-key-number-two'] as const
const ids = keys.map(key => new Secret(key).fingerprint)
const probes = (calls: ReadonlyArray<{ readonly url: string }>) =>
  calls.filter(({ url }) => url.endsWith('/current-balance')).length

async function start (t: Test, options: TestGatewayOptions = {}) {
  const gateway = await startGateway(t, { keys, ...options, env: { GATEWAY_ADMIN_TOKEN: adminToken, ...options.env } })
  const list = (query = '', token = adminToken) => gateway.call(`/gateway/admin/keys${query}`, { token })
  const ago = (ms: number) => new Date(gateway.time.now() - ms).toISOString()
  return { ...gateway, list, ago }
}

t.test('the operator sees each key by its fingerprint, and since when it is as it is', async t => {
  const { list, submit, mint, sandbox, time, ago } = await start(t)
  const token = await mint('alice')
  t.same((await list()).json, ids.map(keyId => ({ keyId, state: 'ready', since: ago(0) })))
  time.advance(1000)
  sandbox.revoke(keys[0])
  t.equal((await submit(token)).status, 200)
  time.advance(1000)
  t.same((await list()).json, [
    { keyId: ids[0], state: 'benched', reason: 'refused', since: ago(1000) },
    { keyId: ids[1], state: 'ready', since: ago(2000) }
  ])
  t.equal(probes(sandbox.calls), 1, 'looking costs nothing')
})

t.test('a key that rests is shown with the end of its rest', async t => {
  const { list, submit, mint, ago } = await start(t)
  t.equal((await submit(await mint('alice'), 'sandbox:http-429')).status, 429)
  t.same((await list()).json, [
    { keyId: ids[0], state: 'resting', since: ago(0), restingUntil: ago(-7000) },
    { keyId: ids[1], state: 'ready', since: ago(0) }
  ])
})

t.test('balances are asked for on demand, once in ten seconds for each key, however many ask', async t => {
  const { list, sandbox, time } = await start(t)
  const asked = await Promise.all(Array.from({ length: 20 }, () => list('?balance=true')))
  for (const { json } of asked) t.match(json, [{ state: 'ready', balance: 100 }, { state: 'ready', balance: 100 }])
  t.equal(probes(sandbox.calls), 2)
  sandbox.balanceUsd = 42
  time.advance(9999)
  t.match((await list('?balance=true')).json, [{ balance: 100 }, { balance: 100 }])
  t.equal(probes(sandbox.calls), 2)
  time.advance(1)
  t.match((await list('?balance=true')).json, [{ balance: 42 }, { balance: 42 }])
  for (const query of ['', '?balance=false']) {
    t.notOk('balance' in (await list(query)).json[0], 'not for who does not ask')
  }
  t.equal(probes(sandbox.calls), 4)
})

t.test('a balance that is not told is null, and asking finds the key that is refused or has no money', async t => {
  const { list, sandbox, log, time } = await start(t)
  sandbox.revoke(keys[1])
  sandbox.balanceUsd = 0
  t.match((await list('?balance=true')).json, [
    { keyId: ids[0], state: 'benched', reason: 'empty', balance: 0 },
    { keyId: ids[1], state: 'benched', reason: 'refused', balance: null }
  ])
  t.equal(log.filter(line => line.alarm === 'key-benched').length, 2)
  time.advance(10_000)
  for (let count = 0; count < 2; count++) {
    sandbox.next((_request, response) => {
      response.destroy()
    })
  }
  t.match(
    (await list('?balance=true')).json,
    [
      { reason: 'empty', balance: null },
      { reason: 'refused', balance: null }
    ],
    'the upstream does not answer'
  )
})

t.test('nobody but the operator is told, and no key is shown', async t => {
  const { list, call, mint, log } = await start(t)
  t.match(await list('?balance=true', await mint('alice')), { status: 401, error: 'GW_BAD_SESSION' })
  t.match(await call('/gateway/admin/keys'), { status: 401, error: 'GW_NO_SESSION' })
  const { text } = await list('?balance=true')
  for (const key of keys) {
    t.notMatch(text, key)
    t.notMatch(JSON.stringify(log), key)
  }
  const plain = await startGateway(t)
  t.match(await plain.call('/gateway/admin/keys', { token: adminToken }), { status: 404, error: 'GW_NOT_FOUND' })
})

t.test('a query that makes no sense is a 400', async t => {
  const { list } = await start(t)
  for (const query of ['?balance=yes', '?balance=', '?balance=true&balance=true', '?key=1', '?balances=true']) {
    t.match(await list(query), { status: 400, error: 'GW_BAD_REQUEST' }, query)
  }
})

t.test('with an admin port the keys are shown there, and nowhere else', async t => {
  const { call, gateway } = await start(t, { env: { GATEWAY_ADMIN_PORT: '0' } })
  t.equal((await call('/gateway/admin/keys', { token: adminToken })).status, 404)
  const { port } = gateway.adminApp!.server.address() as AddressInfo
  const response = await fetch(`http://127.0.0.1:${port}/gateway/admin/keys`, {
    headers: { authorization: `Bearer ${adminToken}` }
  })
  t.match(await response.json(), [{ keyId: ids[0] }, { keyId: ids[1] }])
})
