import t, { type Test } from 'tap'
import { startGateway } from '../helpers/gateway.ts'
import { guestsOf } from '../helpers/guests.ts'

const plans = 'plans: { default: {}, guest: { credits: 1 } }'
const hourMs = 3_600_000
const trusting = { GATEWAY_TRUST_PROXY: 'loopback' }

async function start (t: Test, guests: string, env: Readonly<Record<string, string>> = trusting) {
  const gateway = await startGateway(t, { config: `${plans}\nguests: { enabled: true, ${guests} }`, env })
  return { ...gateway, ...guestsOf(gateway) }
}
const from = (address: string) => ({ 'x-forwarded-for': address })
const bought = (count: number, block: number) =>
  Array.from({ length: count }, (_, index) => from(`198.18.${block}.${index}`))

t.test('whoever rents addresses gets so many sessions an hour from all of them together', async t => {
  const { enter, time } = await start(t, 'proof: none, sessionsPerAddressPerDay: 1')
  const all = await Promise.all(bought(150, 0).map(headers => enter(undefined, headers)))
  t.equal(all.filter(({ status }) => status === 201).length, 100)
  const refused = all.filter(({ error }) => error === 'GW_THROTTLED')
  t.equal(refused.length, 50)
  t.same(new Set(refused.map(({ json }) => json.error.retryAfterSeconds)), new Set([3600]))
  time.advance(hourMs - 1)
  t.equal((await enter(undefined, from('203.0.113.1'))).status, 429)
  time.advance(1)
  t.equal((await enter(undefined, from('203.0.113.2'))).status, 201)
})

t.test('one address can not use up what all may begin in an hour', async t => {
  const { enter } = await start(t, 'proof: none, sessionsPerAddressPerDay: 1')
  const one = await Promise.all(Array.from({ length: 150 }, () => enter(undefined, from('203.0.113.1'))))
  t.equal(one.filter(({ status }) => status === 201).length, 1)
  t.equal((await enter(undefined, from('203.0.113.2'))).status, 201)
})

t.test('a visitor who is turned away because the hour is full keeps the day\'s sessions', async t => {
  const { enter, time } = await start(t, 'proof: none, sessionsPerAddressPerDay: 1')
  await Promise.all(bought(100, 0).map(headers => enter(undefined, headers)))
  const [visitor, other] = [from('203.0.113.1'), from('203.0.113.2')]
  for (let round = 0; round < 5; round++) t.equal((await enter(undefined, visitor)).json.error.retryAfterSeconds, 3600)
  time.advance(hourMs)
  t.equal((await enter(undefined, visitor)).status, 201)
  t.match(await enter(undefined, visitor), { status: 429, error: 'GW_THROTTLED' })
  t.equal((await enter(undefined, other)).status, 201)
})

t.test('all addresses of a /64 are one, and so are all that are made up', async t => {
  const behind = await start(t, 'proof: none, sessionsPerAddressPerDay: 1')
  const neighbours = ['2001:db8:1:2::1', '2001:db8:1:2:ffff::9', '2001:0db8:0001:0002::3']
  const entered = await Promise.all(neighbours.map(address => behind.enter(undefined, from(address))))
  t.equal(entered.filter(({ status }) => status === 201).length, 1)
  t.equal((await behind.enter(undefined, from('2001:db8:1:3::1'))).status, 201)
  t.equal((await behind.enter(undefined, from('203.0.113.9, 198.51.100.7'))).status, 201)
  t.equal(
    (await behind.enter(undefined, from('203.0.113.8, 198.51.100.7'))).status,
    429,
    'left of the last hop anybody may write'
  )

  const direct = await start(t, 'proof: none, sessionsPerAddressPerDay: 1', {})
  const forged = await Promise.all(bought(5, 1).map(headers => direct.enter(undefined, headers)))
  t.equal(forged.filter(({ status }) => status === 201).length, 1)
})

t.test('each session costs work, and so does each task: addresses and sessions alone make none', async t => {
  const { enter, guest, proofFor, make, sandbox } = await start(t, 'proof: work')
  const idle = await Promise.all(bought(20, 2).map(headers => enter(undefined, headers)))
  t.same(new Set(idle.map(({ error }) => error)), new Set(['GW_SCOPE_DENIED']))
  const [one, other] = [await guest(from('203.0.113.1')), await guest(from('203.0.113.2'))]
  const proof = await proofFor(one)
  const made = await Promise.all(
    [one, other].flatMap(token =>
      bought(20, 3).flatMap(headers => [make(token, undefined, headers), make(token, proof, headers)])
    )
  )
  t.equal(made.filter(({ status }) => status === 200).length, 1)
  t.equal(made.filter(({ error }) => error === 'GW_SCOPE_DENIED').length, 79)
  t.equal(sandbox.calls.length, 1)
  t.match(
    await make(one, await proofFor(one)),
    { status: 402, error: 'GW_CREDITS_EXHAUSTED' },
    'and its credits bound each session'
  )
})
