import type { Test } from 'tap'
import type { Token, TokenSecret } from '../../src/domain/tokens.ts'
import { clock } from '../helpers/clock.ts'
import { pagesOf } from '../helpers/pages.ts'
import { openBooks, type OpenStore } from './open-books.ts'

const start = clock().now()
const dayMs = 86_400_000
const all = { cursor: null, limit: 10 }

export function tokenOf (more: Partial<Token> = {}): Token {
  return {
    id: 'abcdefghijk',
    subject: 'token:alice',
    plan: 'team',
    pool: null,
    models: ['sora-2*', 'suno'],
    scopes: ['tasks:read'],
    createdAt: start,
    ttlMs: 90 * dayMs,
    expiresAt: start + 90 * dayMs,
    isInvitation: false,
    secret: { hash: 'hash-1', issuedAt: start },
    previous: null,
    revokedAt: null,
    usedAt: null,
    ...more
  }
}

export const invitationOf = (more: Partial<Token> = {}): Token =>
  tokenOf({ isInvitation: true, expiresAt: start + 7 * dayMs, ...more })

const secretOf = (number: number, issuedAt = start + number): TokenSecret => ({ hash: `hash-${number}`, issuedAt })

/** Every TokenStore must pass this, whatever is behind it. */
export function tokenBookContract (t: Test, open: OpenStore): void {
  t.test('a token is found by its id, as it was created', async t => {
    const { tokens } = await openBooks(t, open)
    const odd = tokenOf({ id: 'b', pool: 'design', subject: 'token:o\'neil "ü" 😀 {x}', models: [], scopes: [] })
    await tokens.create(tokenOf())
    await tokens.create(odd)
    t.strictSame(await tokens.find('abcdefghijk'), tokenOf())
    t.strictSame(await tokens.find('b'), odd)
    for (const id of [
      '',
      'B',
      'abcdefghij',
      'list',
      'count',
      '%',
      '{tokens}',
      "'; DROP TABLE tokens; --",
      'x'.repeat(2000)
    ]) {
      t.equal(await tokens.find(id), null, JSON.stringify(id.slice(0, 30)))
      t.equal(await tokens.revoke(id, start), false)
      t.equal(await tokens.rotate(id, secretOf(2), start), null)
      t.equal(await tokens.accept(id, 'hash-1', secretOf(2)), null)
      await tokens.used(id, start)
    }
    t.same((await tokens.list(all)).items.map(({ id }) => id), ['b', 'abcdefghijk'], 'and none has come of that')
  })

  t.test('they are listed in pages, the newest first, which do not shift when more are created', async t => {
    const { tokens } = await openBooks(t, open)
    t.strictSame(await tokens.list(all), { items: [], next: null })
    for (let number = 0; number < 10; number++) await tokens.create(tokenOf({ id: `t${number}` }))
    const found: string[] = []
    for await (const { items } of pagesOf(cursor => tokens.list({ cursor, limit: 3 }))) {
      t.ok(items.length <= 3)
      found.push(...items.map(({ id }) => id))
      await tokens.create(tokenOf({ id: `later${found.length}` }))
    }
    t.same(found, [9, 8, 7, 6, 5, 4, 3, 2, 1, 0].map(number => `t${number}`))
    t.strictSame((await tokens.list({ cursor: null, limit: 100 })).next, null)
    t.strictSame(await tokens.list({ cursor: 'made up', limit: 3 }), { items: [], next: null })
  })

  t.test('a rotated token has a new secret, and the one before until its grace ends', async t => {
    const { tokens } = await openBooks(t, open)
    await tokens.create(tokenOf())
    const once = tokenOf({ secret: secretOf(2), previous: { ...secretOf(1, start), until: start + 1000 } })
    t.strictSame(await tokens.rotate('abcdefghijk', secretOf(2), start + 1000), once)
    t.strictSame(await tokens.find('abcdefghijk'), once)
    const twice = tokenOf({ secret: secretOf(3), previous: { ...secretOf(2), until: start + 2000 } })
    t.strictSame(await tokens.rotate('abcdefghijk', secretOf(3), start + 2000), twice, 'and there are two at the most')
  })

  t.test('what has ended is not rotated', async t => {
    const { tokens } = await openBooks(t, open)
    await tokens.create(tokenOf({ id: 'old', expiresAt: start + 10 }))
    await tokens.create(tokenOf({ id: 'gone' }))
    await tokens.create(invitationOf({ id: 'guest' }))
    t.ok(await tokens.rotate('old', secretOf(2, start + 9), start + 1000))
    t.equal(await tokens.rotate('old', secretOf(3, start + 10), start + 1000), null)
    t.equal(await tokens.revoke('gone', start + 5), true)
    t.equal(await tokens.rotate('gone', secretOf(2), start + 1000), null)
    t.equal(await tokens.rotate('guest', secretOf(2), start + 1000), null)
    t.match(await tokens.find('guest'), { isInvitation: true, secret: { hash: 'hash-1' } })
  })

  t.test('a token is revoked for good, from the first time on', async t => {
    const { tokens } = await openBooks(t, open)
    await tokens.create(tokenOf())
    t.equal(await tokens.revoke('abcdefghijk', start + 5), true)
    t.equal(await tokens.revoke('abcdefghijk', start + 50), true)
    t.strictSame(await tokens.find('abcdefghijk'), tokenOf({ revokedAt: start + 5 }))
    t.same((await tokens.list(all)).items, [tokenOf({ revokedAt: start + 5 })], 'and stays in the list')
  })

  t.test('an invitation is accepted once, by whoever has its hash, and the token lasts from then on', async t => {
    const { tokens } = await openBooks(t, open)
    await tokens.create(invitationOf())
    for (const wrong of ['', 'hash-2', 'HASH-1', '%']) {
      t.equal(await tokens.accept('abcdefghijk', wrong, secretOf(2)), null, wrong)
    }
    const accepted = tokenOf({ secret: secretOf(2, start + 500), expiresAt: start + 500 + 90 * dayMs })
    t.strictSame(await tokens.accept('abcdefghijk', 'hash-1', secretOf(2, start + 500)), accepted)
    t.strictSame(await tokens.find('abcdefghijk'), accepted)
    t.equal(await tokens.accept('abcdefghijk', 'hash-1', secretOf(3)), null)
    t.equal(await tokens.accept('abcdefghijk', 'hash-2', secretOf(3)), null, 'nor with the token\'s own')
    t.ok(await tokens.rotate('abcdefghijk', secretOf(4), start), 'it is a token like any other')
  })

  t.test('of many who accept one invitation at once, one does', async t => {
    const { tokens } = await openBooks(t, open)
    await tokens.create(invitationOf())
    const accepted = await Promise.all(
      Array.from({ length: 50 }, (_, number) => tokens.accept('abcdefghijk', 'hash-1', secretOf(number + 2)))
    )
    const [winner, ...more] = accepted.filter(token => token !== null)
    t.same(more, [])
    t.strictSame(await tokens.find('abcdefghijk'), winner)
  })

  t.test('an invitation that was revoked or has expired is not accepted', async t => {
    const { tokens } = await openBooks(t, open)
    await tokens.create(invitationOf({ id: 'revoked' }))
    await tokens.create(invitationOf({ id: 'late' }))
    await tokens.revoke('revoked', start)
    t.equal(await tokens.accept('revoked', 'hash-1', secretOf(2)), null)
    t.equal(await tokens.accept('late', 'hash-1', secretOf(2, start + 7 * dayMs)), null)
    t.ok(await tokens.accept('late', 'hash-1', secretOf(2, start + 7 * dayMs - 1)))
  })

  t.test('of many uses in a minute one is written down', async t => {
    const { tokens } = await openBooks(t, open)
    await tokens.create(tokenOf())
    const usedAt = async () => (await tokens.find('abcdefghijk'))?.usedAt
    await Promise.all([tokens.used('abcdefghijk', start), tokens.used('abcdefghijk', start)])
    t.equal(await usedAt(), start)
    for (const at of [start + 1, start + 59_999, start - 1000]) await tokens.used('abcdefghijk', at)
    t.equal(await usedAt(), start)
    await tokens.used('abcdefghijk', start + 60_000)
    t.equal(await usedAt(), start + 60_000)
  })

  t.test('a token outlives the housekeeping and its own end, for those who ask later who had one', async t => {
    const { tokens, time, tidyAll } = await openBooks(t, open)
    await tokens.create(tokenOf())
    time.advance(489 * dayMs)
    await tokens.create(tokenOf({ id: 'young', createdAt: time.now() }))
    await tidyAll()
    t.same((await tokens.list(all)).items.map(({ id }) => id), ['young', 'abcdefghijk'])
  })
}
