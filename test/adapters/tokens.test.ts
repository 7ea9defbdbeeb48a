import t from 'tap'
import { redisStore } from '../../src/adapters/redis/store.ts'
import { Secret } from '../../src/domain/secret.ts'
import { terms } from '../contracts/open-books.ts'
import { invitationOf, tokenOf } from '../contracts/token-book.ts'
import { clock } from '../helpers/clock.ts'
import { redisServer } from '../helpers/redis-server.ts'
import { fileOf, lockHolder, open, storeDown, visit } from './sqlite-files.ts'

const dayMs = 86_400_000
const all = { cursor: null, limit: 10 }
const start = tokenOf().createdAt

t.test('in SQLite, what another process has written counts at once, and the other way round', async t => {
  const path = fileOf(t)
  const server = open(t, path)
  const operator = open(t, path, { role: 'operator' })
  await operator.tokens.create(tokenOf())
  t.match(await server.tokens.find('abcdefghijk'), { subject: 'token:alice' })
  await server.tokens.used('abcdefghijk', start)
  t.match((await operator.tokens.list(all)).items, [{ usedAt: start }])
  await operator.tokens.revoke('abcdefghijk', start)
  t.match(await server.tokens.find('abcdefghijk'), { revokedAt: start })
})

t.test('in SQLite, a use that was written down lately writes nothing', async t => {
  const path = fileOf(t)
  const { tokens } = open(t, path)
  await tokens.create(tokenOf())
  await tokens.used('abcdefghijk', start)
  const db = visit(t, path)
  const version = () => db.prepare('PRAGMA data_version').get()
  const before = version()
  for (let count = 0; count < 10; count++) await tokens.used('abcdefghijk', start + count)
  t.same(version(), before)
})

t.test('in SQLite, what ended long ago is forgotten when there is a new one', async t => {
  const { tokens } = open(t, ':memory:')
  await tokens.create(tokenOf({ id: 'old', expiresAt: start + dayMs }))
  await tokens.create(tokenOf({ id: 'new', createdAt: start + 401 * dayMs - 1, expiresAt: start + 500 * dayMs }))
  t.equal((await tokens.list(all)).items.length, 2)
  await tokens.create(tokenOf({ id: 'newer', createdAt: start + 401 * dayMs, expiresAt: start + 500 * dayMs }))
  t.same((await tokens.list(all)).items.map(({ id }) => id), ['newer', 'new'])
})

t.test('in SQLite, a file that is locked is a store that is down', async t => {
  const path = fileOf(t)
  const { tokens } = open(t, path)
  await tokens.create(invitationOf())
  const letGo = await lockHolder(t, path)
  await t.rejects(tokens.create(tokenOf({ id: 'other' })), storeDown)
  await t.rejects(tokens.accept('abcdefghijk', 'hash-1', { hash: 'hash-2', issuedAt: start }), storeDown)
  await t.rejects(tokens.used('abcdefghijk', start), storeDown)
  t.ok(await tokens.find('abcdefghijk'), 'it is still read')
  await letGo()
  t.ok(await tokens.accept('abcdefghijk', 'hash-1', { hash: 'hash-2', issuedAt: start }))
})

t.test('in Redis, tokens stand in one slot, end by themselves, and are off the list then', async t => {
  const server = await redisServer(t)
  const store = await redisStore({ url: new Secret(server.url), terms, now: clock().now, onLost: () => {} })
  t.teardown(() => store.close())
  const { tokens } = store
  for (let number = 0; number < 7; number++) await tokens.create(invitationOf({ id: `t${number}` }))
  t.strictSame((await server.admin.keys('gw:{*')).sort(), [
    'gw:{tokens}:count', 'gw:{tokens}:list', ...[0, 1, 2, 3, 4, 5, 6].map(number => `gw:{tokens}:t:t${number}`)
  ])
  const lasts = async (id: string) => Math.round(await server.admin.pttl(`gw:{tokens}:t:${id}`) / dayMs)
  t.equal(await lasts('t0'), 407)
  await tokens.accept('t0', 'hash-1', { hash: 'hash-2', issuedAt: start })
  t.equal(await lasts('t0'), 490)
  await server.admin.del('gw:{tokens}:t:t5', 'gw:{tokens}:t:t4', 'gw:{tokens}:t:t1')
  const page = await tokens.list({ cursor: null, limit: 2 })
  t.same(page.items.map(({ id }) => id), ['t6', 't3'])
  t.match(await tokens.list({ cursor: page.next, limit: 10 }), { items: [{ id: 't2' }, { id: 't0' }], next: null })
  t.same(await server.admin.zrange('gw:{tokens}:list', '0', '-1'), ['t0', 't2', 't3', 't6'])
})
