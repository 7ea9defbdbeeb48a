import t from 'tap'
import { hashOf, idIn, isHashOf, isTokenId, isTokenLike, newTokenId, printSecret } from '../../../src/domain/tokens.ts'

t.test('a token is a text that a search for secrets finds, and a double click selects', async t => {
  for (let count = 0; count < 100; count++) {
    const id = newTokenId()
    t.match(printSecret('apx', id), /^apx_[0-9A-Za-z]{11}_[0-9A-Za-z]{49}$/)
    t.match(printSecret('apxi', id), /^apxi_[0-9A-Za-z]{11}_[0-9A-Za-z]{49}$/)
  }
})

t.test('no two are alike, and both say whose they are', async t => {
  const id = newTokenId()
  const [one, other] = [printSecret('apx', id), printSecret('apx', id)]
  t.not(one, other)
  t.same([idIn('apx', one), idIn('apx', other)], [id, id])
  t.not(newTokenId(), newTokenId())
  t.ok(isTokenId(id))
  for (const odd of ['', `${id}x`, id.slice(1), id.replace(/.$/, '-'), '3f2b8c1e-7f0a-4a54-8a3f-1d2e3f4a5b6c']) {
    t.notOk(isTokenId(odd), odd)
  }
})

t.test('a text that was never printed, or lost a character, is told apart without a look-up', async t => {
  const token = printSecret('apx', newTokenId())
  for (let index = 0; index < token.length; index++) {
    t.equal(idIn('apx', token.slice(0, index) + token.slice(index + 1)), null, `without character ${index}`)
    t.equal(
      idIn('apx', token.slice(0, index) + (token[index] === 'x' ? 'y' : 'x') + token.slice(index + 1)),
      null,
      `with another character ${index}`
    )
  }
  for (const odd of [
    '',
    'apx',
    'apx_',
    `${token}\n`,
    `${token}x`,
    ` ${token}`,
    token.toUpperCase(),
    'apx_'.repeat(100_000)
  ]) { t.equal(idIn('apx', odd), null) }
})

t.test('the secret of a link is no token, and a token opens no link', async t => {
  const id = newTokenId()
  const [token, link] = [printSecret('apx', id), printSecret('apxi', id)]
  t.same([idIn('apx', link), idIn('apxi', token), idIn('apxi', link)], [null, null, id])
  t.same([isTokenLike(token), isTokenLike(link), isTokenLike('eyJhbGciOiJIUzI1NiJ9.e30.x')], [true, false, false])
})

t.test('what is kept is a hash of the whole, which opens nothing', async t => {
  const token = printSecret('apx', newTokenId())
  const secret = { hash: hashOf(token), issuedAt: 0 }
  t.match(secret.hash, /^[\w-]{43}$/)
  t.ok(isHashOf(token, secret))
  t.notOk(isHashOf(secret.hash, secret))
  t.notOk(isHashOf(printSecret('apx', newTokenId()), secret))
})
