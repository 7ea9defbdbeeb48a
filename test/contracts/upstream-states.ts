import type { Test } from 'tap'
import type { SubjectPart } from '../../src/domain/subject-data.ts'
import { openBooks, type OpenStore } from './open-books.ts'

/** Every UpstreamStates must pass this, whatever is behind it. */
export function upstreamStatesContract (t: Test, openStore: OpenStore): void {
  t.test('what the upstream keeps is the one subject\'s whose answer has told it', async t => {
    const { upstreamStates: it } = await openBooks(t, openStore)
    t.strictSame(await it.of('alice', ['resp_1']), [null])
    await it.remember('alice', ['resp_1', 'msg {1}:x'], { keyId: 'key 1', tokens: 12 })
    const known = { keyId: 'key 1', tokens: 12 }
    t.same(await it.of('alice', ['msg {1}:x', 'resp_2', 'resp_1']), [known, null, known])
    t.strictSame(await it.of('bob', ['resp_1']), [null])
    t.strictSame(await it.of('alice', ['RESP_1']), [null])
    t.strictSame(await it.of('alice', []), [])
  })

  t.test('it is found by whoever asks after it was told, and written anew', async t => {
    const { upstreamStates: it } = await openBooks(t, openStore)
    const told = it.remember('alice', ['resp_1'], { keyId: 'a', tokens: 900 })
    t.same(await it.of('alice', ['resp_1']), [{ keyId: 'a', tokens: 900 }])
    await told
    await it.remember('alice', ['resp_1'], { keyId: 'b', tokens: 0 })
    t.same(await it.of('alice', ['resp_1']), [{ keyId: 'b', tokens: 0 }])
  })

  t.test('an export shows it, and an erasure takes it away', async t => {
    const { upstreamStates: it, subjects } = await openBooks(t, openStore)
    await it.remember('alice', ['resp_1'], { keyId: 'a', tokens: 1 })
    await it.remember('bob', ['resp_1'], { keyId: 'a', tokens: 1 })
    const parts: SubjectPart[] = []
    for await (const part of subjects.partsOf('alice')) parts.push(part)
    t.same(parts, [{ kind: 'kept at the upstream', id: 'resp_1' }])
    await subjects.erase({ subject: 'alice', pseudonym: 'erased:1', beforeTask: async () => {} })
    t.strictSame(await it.of('alice', ['resp_1']), [null])
    t.same(await it.of('bob', ['resp_1']), [{ keyId: 'a', tokens: 1 }])
  })
}
