import t from 'tap'
import { operator } from '../../../src/domain/admin.ts'
import type { AuditEntry } from '../../../src/domain/audit.ts'
import type { TaskRecord } from '../../../src/domain/records.ts'
import { gatewayError } from '../../../src/errors.ts'

/** An operator over so many unknown tasks in memory, and what was written and done, in order. */
function over (count: number, down: { audit?: boolean } = {}) {
  const tasks = Array.from({ length: count }, (_, index): TaskRecord => ({
    id: `id-${index}`,
    subject: 'app:alice',
    taskId: null,
    operation: 'generateTask',
    model: 'suno',
    stage: 'unknown',
    state: null,
    microcredits: 1,
    refunded: false,
    createdAt: 0,
    endedAt: null
  }))
  const done: string[] = []
  const it = operator({
    now: () => 0,
    actor: 'cli',
    trail: {
      async append ([entry]: readonly AuditEntry[]) {
        if (down.audit === true) throw gatewayError('GW_STORE_DOWN')
        done.push(`noted ${entry!.kind}`)
      },
      read: async () => ({ items: [], next: null })
    },
    revocations: { revoke: async () => true, revokeSubject: async () => {} },
    times: { end: async () => 0 },
    tokens: { find: async () => null, revoke: async () => false },
    accounts: {
      async grant ({ microcredits }) {
        done.push('granted')
        return microcredits
      }
    },
    records: {
      async unknowns ({ cursor, limit }) {
        const end = Number(cursor) + limit
        return { items: tasks.slice(Number(cursor), end), next: end < tasks.length ? String(end) : null }
      },
      async release (id) {
        done.push(`released ${id}`)
        return true
      },
      usage: async () => []
    }
  })
  return { it, done }
}

t.test('a deed is written down before it is done', async t => {
  const { it, done } = over(1)
  t.equal(await it.grant('app:alice', 12.5), 12.5)
  t.equal(await it.release('id-0'), true)
  t.same(done, ['noted grant', 'granted', 'noted release', 'released id-0'])
})

t.test('what can not be written down is not done', async t => {
  const { it, done } = over(1, { audit: true })
  await t.rejects(it.grant('app:alice', 1), { code: 'GW_STORE_DOWN' })
  await t.rejects(it.release('id-0'), { code: 'GW_STORE_DOWN' })
  t.same(done, [])
})

t.test(
  'one of very many unknown tasks is found, and what is none of them is neither written down nor released',
  async t => {
    const { it, done } = over(1203)
    t.equal(await it.release('id-1202'), true)
    t.equal(await it.release('id-1203'), false)
    t.same(done, ['noted release', 'released id-1202'])
  }
)

t.test('instants are shown as texts, and credits as credits', async t => {
  const { items, next } = await over(3).it.unknowns({ limit: 1 })
  t.strictSame(items, [
    {
      id: 'id-0',
      subject: 'app:alice',
      taskId: null,
      operation: 'generateTask',
      model: 'suno',
      credits: 0.000001,
      createdAt: '1970-01-01T00:00:00.000Z',
      endedAt: null
    }
  ])
  t.type(next, 'string')
})

t.test('a subject without its issuer is refused with what was probably meant', async t => {
  const { it } = over(0)
  for (const [subject, hint] of [
    ['bob', 'app:bob'],
    ['bob the builder', 'app:bob the builder'],
    [':bob', 'app:alice'],
    ['', 'app:alice'],
    ['x'.repeat(160), 'app:alice']
  ] as const) {
    await t.rejects(it.grant(subject, 1), {
      code: 'GW_BAD_REQUEST',
      message: `subject must have its stored form, issuer and name: ${hint}.`
    })
  }
  for (const subject of ['app:bob', 'https://id.example/:00-11', 'token:x', 'guest:ä', `app:${'😀'.repeat(128)}`]) {
    await t.resolves(it.grant(subject, 1), subject)
  }
})

t.test('credits are numbers above zero, counted to the millionth', async t => {
  const { it } = over(0)
  for (const credits of [0, -1, NaN, Infinity, 100_000_000.1, 1e-7, 1.0000001]) {
    await t.rejects(it.grant('app:a', credits), { code: 'GW_BAD_REQUEST', message: /^credits must/ }, String(credits))
  }
  for (const credits of [0.1, 0.3, 1e-6, 74.87, 100_000_000, 99_999_999.999999]) {
    t.equal(await it.grant('app:a', credits), credits)
  }
})
