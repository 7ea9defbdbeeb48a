import t from 'tap'
import { startGateway } from '../helpers/gateway.ts'

const config = 'plans: { default: {} }\nlimits: { addressFailuresPerMinute: 5 }'

const forged = (index: number): ReadonlyArray<Readonly<Record<string, string>>> => {
  const address = `203.0.113.${index % 250}`
  return [
    { 'x-forwarded-for': address },
    { 'cf-connecting-ip': address },
    { 'x-real-ip': address },
    { forwarded: `for=${address}` },
    { 'true-client-ip': address },
    { 'x-client-ip': address },
    { 'x-cluster-client-ip': address },
    { 'fastly-client-ip': address },
    { 'x-forwarded-for': `${address}, 127.0.0.1` },
    { 'x-envoy-external-address': address }
  ]
}

/** How many guesses an address may make before it is shut out, when each comes under other headers. */
async function guesses (
  call: (path: string, options: object) => Promise<{ status: number }>,
  headersOf: (index: number) => Readonly<Record<string, string>>
): Promise<number> {
  for (let count = 0; count < 40; count++) {
    if ((await call('/gateway/session', { token: 'a.b.c', headers: headersOf(count) })).status === 429) return count
  }
  return Infinity
}

t.test('without a trusted proxy no header changes the address that is throttled', async t => {
  const kinds = forged(0).length
  for (let kind = 0; kind < kinds; kind++) {
    await t.test(JSON.stringify(forged(0)[kind]), async t => {
      const { call, sandbox } = await startGateway(t, { config })
      t.equal(await guesses(call, index => forged(index)[kind]!), 5)
      t.equal(sandbox.calls.length, 0)
    })
  }
})

t.test('a peer outside of the trusted networks is itself, whatever it says', async t => {
  const { call } = await startGateway(t, { config, env: { GATEWAY_TRUST_PROXY: '10.0.0.0/8' } })
  t.equal(await guesses(call, index => ({ 'x-forwarded-for': `203.0.113.${index}` })), 5)
})

t.test('behind a trusted proxy the right-most address that is not trusted counts, and no other', async t => {
  const env = { GATEWAY_TRUST_PROXY: 'loopback,10.0.0.0/8' }
  await t.test('left of it a caller may write what it likes', async t => {
    const { call } = await startGateway(t, { config, env })
    t.equal(await guesses(call, index => ({ 'x-forwarded-for': `198.51.100.${index}, 203.0.113.7` })), 5)
    t.equal(
      (await call('/gateway/session', { token: 'a.b.c', headers: { 'x-forwarded-for': '203.0.113.8' } })).status,
      401,
      'another caller is not shut out'
    )
  })
  await t.test('trusted hops to its right are passed over', async t => {
    const { call } = await startGateway(t, { config, env })
    t.equal(
      await guesses(call, index => ({ 'x-forwarded-for': `198.51.100.${index}, 203.0.113.7, 10.0.0.${index % 3}` })),
      5
    )
  })
  await t.test('other headers still do not count', async t => {
    const { call } = await startGateway(t, { config, env })
    t.equal(
      await guesses(call, index => ({
        'x-forwarded-for': '203.0.113.7',
        'x-real-ip': `203.0.113.${index}`,
        'cf-connecting-ip': `203.0.113.${index}`,
        forwarded: `for=203.0.113.${index}`
      })),
      5
    )
  })
})

t.test('the port that some proxies write beside an address makes no other address of it', async t => {
  const config = 'plans: { default: {} }\nlimits: { addressFailuresPerMinute: 3 }'
  const { call, mint } = await startGateway(t, { config, env: { GATEWAY_TRUST_PROXY: 'loopback' } })
  const from = (address: string) => ({ 'x-forwarded-for': address })
  const guess = async (address: string) =>
    (await call('/gateway/session', { token: 'guess', headers: from(address) })).status
  for (const host of ['203.0.113.1', '[2001:db8::1]']) {
    const statuses: number[] = []
    for (let port = 4000; port < 4005; port++) statuses.push(await guess(`${host}:${port}`))
    t.same(statuses, [401, 401, 401, 429, 429], host)
  }
  t.equal(await guess('2001:db8::1'), 429, 'with a port or without, it is one')
  const bound = await mint('alice', { addressPrefix: '203.0.113.0/24' })
  const ask = async (address: string) =>
    (await call('/gateway/session', { token: bound, headers: from(address) })).status
  t.same([await ask('203.0.113.77:5000'), await ask('203.0.114.77:5000'), await ask('unknown')], [200, 403, 403])
})
