import t from 'tap'
import { sqliteStore } from '../../../src/adapters/sqlite/store.ts'
import { isKnownSession } from '../../../src/domain/admin.ts'
import { clock } from '../../helpers/clock.ts'

t.test('the audit trail is read to its end for a session that it may speak of', async t => {
  const terms = { reservedMs: 1, sentMs: 1, giveUpMs: 1, refundsPerPeriod: 1, retentionMs: 1 }
  const store = sqliteStore({ path: ':memory:', synchronous: 'normal', terms, ...clock() })
  t.teardown(() => store.close())
  const { audit } = store
  const minted = Array.from({ length: 501 }, (_, number) => ({
    at: number, kind: 'mint', actor: 'issuer', subject: 'app:alice', detail: { session: `session-${number}` }
  } as const))
  await audit.append(minted)
  t.equal(await isKnownSession({ audit }, 'session-0'), true, 'the oldest, on the second page')
  t.equal(await isKnownSession({ audit }, 'session-501'), false)
})
