import t from 'tap'
import { altchaProofs } from '../../src/adapters/guest-proofs.ts'
import { Secret } from '../../src/domain/secret.ts'
import { clock } from '../helpers/clock.ts'
import { decode, encode, solve } from '../helpers/proofs.ts'

const [one, other] = [
  new Secret('a-session-secret-of-32-bytes-and-more'),
  new Secret('another-session-secret-of-32-bytes')
]
const ip = '192.0.2.1'
const proofsOf = (secrets: readonly Secret[] = [one], time = clock()) => ({
  ...altchaProofs({ secrets: { current: secrets }, now: time.now }),
  time
})

t.test('a solved challenge is a proof, for what it was made for', async t => {
  const { challenge, verify, time } = proofsOf()
  const proof = await solve(await challenge('alice'))
  const good = await verify(proof, 'alice', ip)
  t.match(good, { id: /^[0-9a-f]{64}$/, expiresAt: time.now() + 300_000 })
  for (const purpose of ['bob', 'session', '', 'Alice']) t.equal(await verify(proof, purpose, ip), null, purpose)
  const next = await solve(await challenge('alice'))
  t.not((await verify(next, 'alice', ip))?.id, good?.id, 'each has an id of its own')
})

t.test('a proof is good for five minutes, of our clock', async t => {
  const { challenge, verify, time } = proofsOf()
  const proof = await solve(await challenge('alice'))
  time.advance(299_999)
  t.not(await verify(proof, 'alice', ip), null)
  time.advance(1)
  t.equal(await verify(proof, 'alice', ip), null)
})

t.test('however a proof is written, its id is one', async t => {
  const { challenge, verify } = proofsOf()
  const proof = await solve(await challenge('alice'))
  const good = await verify(proof, 'alice', ip)
  const { challenge: { parameters, signature }, solution } = decode(proof)
  const reversed = Object.fromEntries(Object.entries(parameters).reverse())
  const otherwise = [
    {
      challenge: { parameters, signature },
      solution: { ...solution, counter: solution.counter + 1, time: 1, more: 'x' }
    },
    { solution, challenge: { signature, parameters: reversed }, more: 'x' }
  ]
  for (const payload of otherwise) t.same(await verify(encode(payload), 'alice', ip), good)
  t.same(await verify(`${proof.slice(0, 8)}\n${proof.slice(8)}`, 'alice', ip), good)
  t.same(await verify(Buffer.from(proof, 'base64').toString('base64url'), 'alice', ip), good)
})

t.test('nothing else is a proof', async t => {
  const { challenge, verify } = proofsOf()
  const made = await challenge('alice') as any
  const { solution } = decode(await solve(made))
  const { parameters } = made
  const later = { ...parameters.data, expiresAt: parameters.data.expiresAt + 1 }
  const easy = { ...parameters, cost: 1, keyPrefix: '00' }
  delete easy.keySignature
  const forged: readonly unknown[] = [
    { challenge: made, solution: { ...solution, derivedKey: `${parameters.keyPrefix}${'0'.repeat(32)}` } },
    { challenge: made, solution: { ...solution, derivedKey: parameters.keyPrefix } },
    { challenge: made, solution: { counter: solution.counter } },
    { challenge: made, solution: { ...solution, derivedKey: solution.derivedKey.toUpperCase() } },
    { challenge: { ...made, signature: undefined }, solution },
    { challenge: { ...made, signature: made.signature.toUpperCase() }, solution },
    { challenge: { ...made, signature: [...made.signature] }, solution },
    { challenge: { ...made, signature: { length: 64 } }, solution },
    { challenge: { ...made, parameters: { ...parameters, data: later } }, solution },
    {
      challenge: { ...made, parameters: { ...parameters, data: { ...parameters.data, purpose: 'session' } } },
      solution
    },
    { challenge: { ...made, parameters: { ...parameters, expiresAt: 1 } }, solution },
    { challenge: { ...made, parameters: { ...parameters, expiresAt: 9e9 } }, solution },
    { challenge: { ...made, parameters: easy }, solution },
    { challenge: made },
    { solution },
    {},
    [],
    null,
    1,
    'x',
    { challenge: null, solution: null },
    { challenge: { parameters: null } }
  ]
  for (const payload of forged) {
    t.equal(await verify(encode(payload), 'alice', ip), null, JSON.stringify(payload)?.slice(0, 90))
  }
  for (const text of ['', 'x', '{}', 'a.b.c', encode({ challenge: made, solution }).slice(1), '='.repeat(100)]) {
    t.equal(await verify(text, 'alice', ip), null, text.slice(0, 20))
  }
  t.equal(await verify(encode({ challenge: made, solution, more: 'x'.repeat(4096) }), 'alice', ip), null, 'too long')
  t.not(await verify(encode({ challenge: made, solution }), 'alice', ip), null, 'but the real one is')
})

t.test('a challenge of another gateway is not solved here, one of a secret that is still known is', async t => {
  const proof = await solve(await proofsOf([one]).challenge('alice'))
  t.equal(await proofsOf([other]).verify(proof, 'alice', ip), null)
  t.not(await proofsOf([other, one]).verify(proof, 'alice', ip), null)
})
