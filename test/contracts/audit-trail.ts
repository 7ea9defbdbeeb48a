import type { Test } from 'tap'
import type { AuditEntry } from '../../src/domain/audit.ts'
import { pagesOf } from '../helpers/pages.ts'
import { type Fixture, openBooks, type OpenStore } from './open-books.ts'

const entryOf = (more: Partial<AuditEntry> = {}): AuditEntry =>
  ({ at: Date.UTC(2026, 0, 15), kind: 'mint', actor: 'issuer', subject: 'app:alice', detail: {}, ...more })

/** Every AuditTrail must pass this, whatever is behind it. */
export function auditTrailContract (t: Test, open: OpenStore): void {
  t.test('what was written is read again, the newest first', async t => {
    const books = await openBooks(t, open)
    const entries = [
      entryOf({ kind: 'mint', detail: { models: 'a,b', ttlSeconds: 60, cookie: false, plan: null } }),
      entryOf({ kind: 'revoke', actor: "o'neil \"quoted\" \\ 😀 ä", subject: null, at: 1 }),
      entryOf({ kind: 'grant', detail: { microcredits: 2 ** 53 - 1, 'odd name': '</script>\n\0' } })
    ]
    await books.audit.append([])
    t.same(await books.audit.read({ cursor: null, limit: 10 }), { items: [], next: null })
    await books.audit.append(entries.slice(0, 2))
    await books.audit.append(entries.slice(2))
    t.same(await books.audit.read({ cursor: null, limit: 10 }), { items: entries.toReversed(), next: null })
  })

  t.test('it is read in pages, which do not shift when more is written', async t => {
    const { audit } = await openBooks(t, open)
    await audit.append(Array.from({ length: 10 }, (_, at) => entryOf({ at })))
    const found: number[] = []
    for await (const { items } of pagesOf(cursor => audit.read({ cursor, limit: 3 }))) {
      t.ok(items.length <= 3)
      found.push(...items.map(({ at }) => at))
      await audit.append([entryOf({ at: 100 })])
    }
    t.same(found, [9, 8, 7, 6, 5, 4, 3, 2, 1, 0])
  })

  t.test('nothing is lost when many write at once, and what is written together stays together', async t => {
    const { audit }: Fixture = await openBooks(t, open)
    await Promise.all(
      Array.from({ length: 50 }, (_, at) =>
        audit.append([entryOf({ at, actor: 'first' }), entryOf({ at, actor: 'second' })])
      )
    )
    const { items } = await audit.read({ cursor: null, limit: 200 })
    t.same(
      items.map(({ at }) => at).sort((a, b) => a - b),
      Array.from({ length: 100 }, (_, index) => Math.floor(index / 2))
    )
    for (let index = 0; index < 100; index += 2) {
      t.match([items[index], items[index + 1]], [{ actor: 'second' }, { actor: 'first', at: items[index]!.at }])
    }
  })

  t.test('the trail survives the housekeeping', async t => {
    const { audit, time, tidyAll } = await openBooks(t, open)
    await audit.append([entryOf({ at: time.now() })])
    time.advance(399 * 86_400_000)
    await audit.append([entryOf({ at: time.now() })])
    await tidyAll()
    t.equal((await audit.read({ cursor: null, limit: 10 })).items.length, 2)
  })

  t.test(
    'what the operator did, what callers did and what was refused are one trail, in the order in which they happened',
    async t => {
      const { audit } = await openBooks(t, open)
      const kinds: ReadonlyArray<readonly [AuditEntry['kind'], string]> = [
        ['grant', 'admin'],
        ['mint', 'issuer'],
        ['refusals', 'gateway'],
        ['revoke', 'cli'],
        ['revoke', 'app:alice'],
        ['settings', 'gateway'],
        ['accept', 'token:bob'],
        ['create', 'cli']
      ]
      const entries = Array.from({ length: 40 }, (_, at) =>
        entryOf({ at, kind: kinds[at % kinds.length]![0], actor: kinds[at % kinds.length]![1] })
      )
      await audit.append(entries.slice(0, 7))
      for (const entry of entries.slice(7)) await audit.append([entry])
      const found: AuditEntry[] = []
      for await (const { items } of pagesOf(cursor => audit.read({ cursor, limit: 7 }))) found.push(...items)
      t.same(found, entries.toReversed())
    }
  )
}
