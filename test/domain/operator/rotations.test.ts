import t from 'tap'
import { type AuditEntry, rotations } from '../../../src/domain/audit.ts'
import { gatewayError } from '../../../src/errors.ts'

/** A trail in memory, which can be down, and which takes its time. */
function trail () {
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
  const audit = trail()
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
    const audit = trail()
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
