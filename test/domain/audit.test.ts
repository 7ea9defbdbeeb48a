import t from 'tap'
import {
  type AuditEntry, type AuditTrail, rejectionCounter, rotations, settingsRecord
} from '../../src/domain/audit.ts'
import { gatewayError } from '../../src/errors.ts'
import { clock } from '../helpers/clock.ts'

const now = () => 1000

/** A trail in memory, which can be down. */
function trail () {
  const entries: AuditEntry[] = []
  const it = {
    entries,
    isDown: false,
    async append (more: readonly AuditEntry[]) {
      if (it.isDown) throw gatewayError('GW_STORE_DOWN')
      entries.unshift(...more.toReversed())
    },
    async read ({ cursor, limit }: { cursor: string | null, limit: number }) {
      const start = Number(cursor)
      return {
        items: entries.slice(start, start + limit),
        next: start + limit < entries.length ? String(start + limit) : null
      }
    }
  } satisfies AuditTrail & Record<string, unknown>
  return it
}

const mint: AuditEntry = { at: 1, kind: 'mint', actor: 'issuer', subject: 'app:alice', detail: {} }

t.test('refusals to more subjects than there are rows are counted without their names', async t => {
  const audit = trail()
  const time = clock()
  const refused = rejectionCounter({ trail: audit, now, elapsed: time.elapsed, maxRows: 2 })
  for (const name of ['a', 'b', 'c', 'd', 'a']) refused.count('GW_RATE_LIMITED', 'admit', `app:${name}`)
  refused.count('GW_RATE_LIMITED', 'admit', null)
  await refused.flush()
  t.strictSame(
    audit.entries.toReversed().map(({ subject, detail }) => [subject, detail.count]),
    [
      ['app:a', 2],
      ['app:b', 1],
      [null, 3]
    ]
  )
  time.advance(3_600_000)
  await refused.flush()
  refused.count('GW_RATE_LIMITED', 'admit', 'app:c')
  await refused.flush()
  t.match(
    audit.entries[0],
    {
      at: 1000,
      kind: 'refusals',
      actor: 'gateway',
      subject: 'app:c',
      detail: { code: 'GW_RATE_LIMITED', count: 1, admit: 1 }
    },
    'the next hour begins anew'
  )
})

t.test('of one code and subject there is a row at once, and then one an hour', async t => {
  const audit = trail()
  const time = clock()
  const refused = rejectionCounter({ trail: audit, now, elapsed: time.elapsed, maxRows: 10 })
  for (let round = 0; round < 720; round++) {
    for (let count = 0; count < 10; count++) refused.count('GW_BAD_SESSION', 'authenticate', null)
    await refused.flush()
    time.advance(5000)
  }
  refused.count('GW_BAD_SESSION', 'receive', null)
  await refused.flush()
  t.strictSame(audit.entries.map(({ detail }) => detail.count), [7191, 10])
  for (let count = 0; count < 3; count++) refused.count('GW_BAD_SESSION', 'authenticate', null)
  await refused.flush()
  t.equal(audit.entries.length, 2)
  await refused.flush(true)
  t.strictSame(audit.entries[0]!.detail, { code: 'GW_BAD_SESSION', count: 3, authenticate: 3 }, 'a stop loses none')
  await refused.flush(true)
  t.equal(audit.entries.length, 3)
})

t.test('refusals outlive a store that is down, with those that come meanwhile', async t => {
  const audit = trail()
  const refused = rejectionCounter({ trail: audit, now, elapsed: () => 0, maxRows: 10 })
  refused.count('GW_BAD_REQUEST', 'authorize', 'app:a')
  refused.count('GW_BAD_REQUEST', 'receive', 'app:a')
  audit.isDown = true
  const flushed = refused.flush()
  refused.count('GW_BAD_REQUEST', 'authorize', 'app:a')
  await t.rejects(flushed, { code: 'GW_STORE_DOWN' })
  audit.isDown = false
  await refused.flush()
  await refused.flush()
  t.strictSame(
    audit.entries.map(({ detail }) => detail),
    [{ code: 'GW_BAD_REQUEST', count: 3, authorize: 2, receive: 1 }]
  )
})

const settings = (more: Readonly<Record<string, string>> = {}) =>
  new Map(Object.entries({ PORT: '8080', HOST: '127.0.0.1', ...more }))

t.test('settings are written once, and again only when they are others', async t => {
  const audit = trail()
  const start = async (shown = settings()) => {
    const record = settingsRecord(audit, shown, now)
    await record.write()
    await record.write()
  }
  await start()
  await start(new Map([...settings()].toReversed()))
  t.equal(audit.entries.length, 1, 'in any order')
  t.match(audit.entries[0], { kind: 'settings', actor: 'gateway', subject: null, detail: { changed: null } })
  await audit.append(Array.from({ length: 1200 }, () => mint))
  await start(settings({ PORT: '9090', LOG_LEVEL: 'warn' }))
  const { digest, snapshot, ...changes } = audit.entries[0]!.detail
  t.strictSame(changes, { changed: 2, LOG_LEVEL: 'absent -> warn', PORT: '8080 -> 9090' }, 'found behind other entries')
  await start(settings())
  t.match(audit.entries[0]!.detail, { changed: 2, LOG_LEVEL: 'warn -> absent', PORT: '9090 -> 8080' })
  t.equal(audit.entries.filter(({ kind }) => kind === 'settings').length, 3)
})

t.test('settings that could not be written are tried again', async t => {
  const audit = trail()
  const record = settingsRecord(audit, settings(), now)
  audit.isDown = true
  await t.rejects(record.write(), { code: 'GW_STORE_DOWN' })
  audit.isDown = false
  await record.write()
  t.equal(audit.entries.length, 1)
})

t.test('a list of settings too long to keep is kept as a digest, and a long value is cut', async t => {
  const audit = trail()
  const long = settings({ 'plans.default.models': 'x'.repeat(70_000) })
  await settingsRecord(audit, settings(), now).write()
  await settingsRecord(audit, long, now).write()
  const { detail } = audit.entries[0]!
  t.match(detail, { changed: 1, snapshot: null })
  t.equal(String(detail['plans.default.models']).length, 'absent -> '.length + 200)
  await settingsRecord(audit, long, now).write()
  t.equal(audit.entries.length, 2, 'the digest says that they are the same')
  await settingsRecord(audit, settings(), now).write()
  t.match(audit.entries[0]!.detail, { changed: null, snapshot: String }, 'and no more than that they are others')
})

t.test('many changes are counted, and the first hundred written out', async t => {
  const audit = trail()
  await settingsRecord(audit, settings(), now).write()
  await settingsRecord(
    audit,
    settings(Object.fromEntries(Array.from({ length: 150 }, (_, index) => [`prices.model-${index}`, '1']))),
    now
  ).write()
  const { detail } = audit.entries[0]!
  t.equal(detail.changed, 150)
  t.equal(Object.keys(detail).length, 103)
})

t.test('the search for earlier settings ends', async t => {
  let pages = 0
  const endless: AuditTrail = {
    append: async () => {},
    async read () {
      pages++
      return { items: [mint], next: 'more' }
    }
  }
  await settingsRecord(endless, settings(), now).write()
  t.ok(pages <= 200)
})

/** A trail in memory, which can be down, and which takes its time. */
function trailOfRotations () {
  const it = {
    entries: [] as AuditEntry[],
    isDown: false,
    async append (more: readonly AuditEntry[]) {
      await null
      if (it.isDown) throw gatewayError('GW_STORE_DOWN')
      it.entries.push(...more)
    }
  }
  return it
}

const rotation = (setting: string) => ({ setting, inUse: ['00000002', '00000001'], gone: ['00000000'] })
const down = { code: 'GW_STORE_DOWN' }

t.test('which secrets have come and gone is written down at once, by fingerprint', async t => {
  const audit = trailOfRotations()
  const { write, flush } = rotations(audit, () => 1000)
  await write(rotation('APIXO_API_KEY'))
  await write({ setting: 'guests.turnstileSecretFile', inUse: ['00000003'], gone: [] })
  await flush()
  const entry = { at: 1000, kind: 'secret', actor: 'gateway', subject: null } as const
  t.strictSame(audit.entries, [
    {
      ...entry,
      detail: { setting: 'APIXO_API_KEY', inUse: 'sha256:00000002, sha256:00000001', gone: 'sha256:00000000' }
    },
    { ...entry, detail: { setting: 'guests.turnstileSecretFile', inUse: 'sha256:00000003', gone: null } }
  ])
})

t.test(
  'while the trail is down rotations are kept, in their order and with their time, and then written once',
  async t => {
    const audit = trailOfRotations()
    let at = 1000
    const { write, flush } = rotations(audit, () => at++)
    audit.isDown = true
    await t.rejects(write(rotation('a')), down)
    await t.rejects(write(rotation('b')), down)
    await t.rejects(flush(), down)
    audit.isDown = false
    await Promise.all([flush(), write(rotation('c')), flush(), write(rotation('d'))])
    await flush()
    t.strictSame(
      audit.entries.map(({ at, detail }) => [at, detail.setting]),
      [
        [1000, 'a'],
        [1001, 'b'],
        [1002, 'c'],
        [1003, 'd']
      ]
    )
  }
)
