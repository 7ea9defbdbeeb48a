import t from 'tap'
import { sqliteStore } from '../../src/adapters/sqlite/store.ts'
import { issueTimes } from '../../src/domain/session.ts'
import { personalTokens, readTokenRequest } from '../../src/features/tokens/token-admin.ts'
import { invitations } from '../../src/features/tokens/tokens.ts'
import { terms } from '../contracts/open-books.ts'
import { clock } from '../helpers/clock.ts'

const rules = { plans: { default: {}, team: {} }, pools: ['design'], maxTtlSeconds: 90 * 86_400 }

t.test('what is not said is the most that is permitted', async t => {
  t.strictSame(readTokenRequest({ subject: 'alice' }, rules), {
    subject: 'token:alice',
    plan: 'default',
    pool: null,
    ttlMs: 90 * 86_400_000,
    models: ['*'],
    scopes: ['tasks:write', 'tasks:read', 'llm']
  })
  t.strictSame(
    readTokenRequest({ subject: 'bob', plan: 'team', pool: 'design', ttlSeconds: 60, models: ['sora-2*'], scopes: ['llm', 'llm'] }, rules),
    {
      subject: 'token:bob',
      plan: 'team',
      pool: 'design',
      ttlMs: 60_000,
      models: ['sora-2*'],
      scopes: ['llm']
    }
  )
})

t.test('where there is no pool a wish for one is told that', async t => {
  t.throws(() => readTokenRequest({ subject: 'a', pool: 'sales' }, { ...rules, pools: [] }), {
    message: 'There is no pool "sales": the config file has none.'
  })
})

t.test('a wish that makes no sense is refused, and the message names what to change', async t => {
  for (const [wish, why] of [
    [{ subject: '' }, /^subject must be a name/],
    [{ subject: 'a\nb' }, /^subject/],
    [{ subject: '\ud800' }, /^subject/],
    [{ subject: 'x'.repeat(129) }, /^subject/],
    [{ subject: 'token:alice' }, 'subject must be the name alone: "alice".'],
    [{ subject: 'a', plan: 'gold' }, 'There is no plan "gold": plans are "default", "team".'],
    [{ subject: 'a', plan: 'toString' }, /no plan/],
    [{ subject: 'a', pool: 'sales' }, 'There is no pool "sales": pools are "design".'],
    [
      { subject: 'a', ttlSeconds: 0 },
      /^ttl must be from 1 second to 90 days, the longest that sessions\.maxTtlSeconds permits\.$/
    ],
    [{ subject: 'a', ttlSeconds: 90 * 86_400 + 1 }, /^ttl/],
    [{ subject: 'a', ttlSeconds: 1.5 }, /^ttl/],
    [{ subject: 'a', ttlSeconds: NaN }, /^ttl/],
    [{ subject: 'a', models: ['a b'] }, /^models must be names or globs such as sora-2\*: "a b" is none\.$/],
    [{ subject: 'a', models: [''] }, /^models/],
    [{ subject: 'a', models: Array(101).fill('a') }, /^models must be at most 100/],
    [{ subject: 'a', scopes: ['admin'] }, /^scopes must be some of tasks:write, tasks:read, llm/]
  ] as const) {
    t.throws(
      () => readTokenRequest(wish, rules),
      { code: 'GW_BAD_REQUEST', message: why },
      JSON.stringify(wish).slice(0, 60)
    )
  }
  t.throws(() => readTokenRequest({ subject: 'a', ttlSeconds: 0 }, { ...rules, maxTtlSeconds: 100 }), {
    message: /to 100 seconds/
  })
})

function openTokens (publicUrl: string | undefined = 'https://ai.example') {
  const time = clock()
  const store = sqliteStore({ path: ':memory:', terms, now: time.now, synchronous: 'normal' })
  t.teardown(() => store.close())
  const office = {
    ...store,
    trail: store.audit,
    now: time.now,
    times: issueTimes({ revocations: store.revocations, now: time.now })
  }
  return {
    time,
    store,
    desk: personalTokens({ ...office, ...rules, actor: 'cli', publicUrl }),
    accept: invitations(office)
  }
}

t.test('a grace and the life of a link have their bounds', async t => {
  const { desk } = openTokens()
  const { id } = await desk.create({ subject: 'alice' })
  for (const seconds of [-1, 0.5, 30 * 86_400 + 1, NaN]) {
    await t.rejects(desk.rotate(id, seconds), {
      code: 'GW_BAD_REQUEST',
      message: /^grace must be from 0 seconds to 30 days\.$/
    })
  }
  for (const seconds of [0, 59, 30 * 86_400 + 1]) {
    await t.rejects(desk.invite({ subject: 'bob' }, seconds), {
      code: 'GW_BAD_REQUEST',
      message: /^valid must be from 60 seconds to 30 days\.$/
    })
  }
  await t.rejects(
    personalTokens({
      ...openTokens().store,
      ...rules,
      trail: openTokens().store.audit,
      actor: 'cli',
      publicUrl: undefined,
      now: Date.now,
      times: { next: async () => 0 }
    }).invite({ subject: 'bob' }),
    { code: 'GW_BAD_REQUEST', message: /GATEWAY_PUBLIC_URL/ }
  )
})

t.test('what a token is in the list follows its life', async t => {
  const { desk, accept, time, store } = openTokens()
  const states = async () =>
    Object.fromEntries((await desk.list({ limit: 10 })).items.map(({ subject, state }) => [subject.slice(6), state]))
  t.strictSame(await desk.list({ limit: 10 }), { items: [], next: null })
  const { id } = await desk.create({ subject: 'alice', ttlSeconds: 3600 })
  const { id: other } = await desk.create({ subject: 'carol' })
  await desk.create({ subject: 'dave' })
  const { link } = await desk.invite({ subject: 'bob', ttlSeconds: 86_400 })
  t.strictSame(await states(), { alice: 'active', bob: 'invited', carol: 'active', dave: 'active' })
  t.ok(await accept(link.split('#')[1]!))
  await desk.revoke(other)
  await store.revocations.revokeSubject('token:dave', time.now(), time.now() + 1e9)
  time.advance(3_600_000)
  t.strictSame(await states(), { alice: 'expired', bob: 'active', carol: 'revoked', dave: 'revoked' })
  t.equal(await desk.rotate(id), null)
  t.equal(await desk.revoke('nobody'), false)
})

t.test('two rotations in one instant leave two secrets that are told apart', async t => {
  const { desk, store } = openTokens()
  const { id } = await desk.create({ subject: 'alice' })
  await desk.rotate(id)
  await desk.rotate(id)
  const { secret, previous } = (await store.tokens.find(id))!
  t.ok(secret.issuedAt > previous!.issuedAt)
})

t.test('a deed is in the audit trail before it is done, and holds nothing secret', async t => {
  const { desk, accept, store } = openTokens()
  const { id, token } = await desk.create({
    subject: 'alice',
    plan: 'team',
    ttlSeconds: 60,
    models: ['a', 'b*'],
    scopes: ['llm']
  })
  const rotated = await desk.rotate(id, 0)
  await desk.revoke(id)
  const { link, id: invited } = await desk.invite({ subject: 'bob' })
  const accepted = await accept(link.split('#')[1]!)
  const { items } = await store.audit.read({ cursor: null, limit: 10 })
  t.match(items.toReversed(), [
    {
      kind: 'create',
      actor: 'cli',
      subject: 'token:alice',
      detail: { token: id, plan: 'team', ttlSeconds: 60, models: 2, scopes: 'llm' }
    },
    { kind: 'rotate', actor: 'cli', subject: 'token:alice', detail: { token: id, graceSeconds: 0 } },
    { kind: 'revoke', actor: 'cli', subject: 'token:alice', detail: { token: id } },
    { kind: 'invite', actor: 'cli', subject: 'token:bob', detail: { token: invited } },
    { kind: 'accept', actor: 'token:bob', subject: 'token:bob', detail: { token: invited } }
  ])
  const all = JSON.stringify([items, await desk.list({ limit: 10 })])
  for (const secret of [token, rotated!.token, link, accepted!.text]) t.notOk(all.includes(secret.slice(-49)))
})
