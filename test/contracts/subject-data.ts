import type { Test } from 'tap'
import type { Task } from '../../src/domain/ledger.ts'
import type { SubjectPart } from '../../src/domain/subject-data.ts'
import type { Token } from '../../src/domain/tokens.ts'
import { answer, openBooks, type OpenStore, periodStart, terms } from './open-books.ts'
import { tokenOf } from './token-book.ts'

const [subject, other, pseudonym] = ['app:alice', 'app:bob', 'erased:0123456789ab']
const dayMs = 86_400_000
const all = { cursor: null, limit: 100 }
const ever = { from: '2000-01-01', to: '2100-01-01' }

/** Every SubjectData must pass this, whatever is behind it. */
export function subjectDataContract (t: Test, open: OpenStore): void {
  t.test('what no other part of a store can tell of a subject is exported, and of nobody else', async t => {
    const books = await filled(t, open)
    const { subjects, at, time } = books
    const kinds = (parts: readonly SubjectPart[]) => [...new Set(parts.map(({ kind }) => kind))].sort()
    const parts = await partsOf(subjects.partsOf(subject))
    t.same(kinds(parts), ['extra', 'grant', 'granted', 'idempotency key', 'period', 'session'])
    t.match(parts.find(({ kind }) => kind === 'grant'), { credits: 0.000007, at: '2026-01-15T12:00:00.000Z' })
    t.match(parts.find(({ kind }) => kind === 'extra'), { credits: 0.000009, until: '2026-01-16T12:00:00.000Z' })
    t.match(parts.find(({ kind }) => kind === 'granted'), { left: 0.000007 })
    t.match(parts.find(({ kind }) => kind === 'idempotency key'), { key: 'key {1}', status: 200, answer: 'said' })
    const key = { key: 'still open', fingerprint: 'print' }
    await books.ledger.advance(await books.reserve({ idempotency: key }), { to: 'sent', keyId: 'key-1' })
    t.match((await partsOf(subjects.partsOf(subject))).filter(({ kind }) => kind === 'idempotency key').at(-1), {
      key: 'still open', status: null, answer: null
    })
    t.match(parts.find(({ kind }) => kind === 'session'), { session: 'se:ssion', uses: 1 })
    t.match(parts.find(({ kind }) => kind === 'period'), { start: new Date(periodStart).toISOString() })
    t.same(await partsOf(subjects.partsOf('app:carol')), [])
    t.equal(await subjects.unfinishedOf(subject), 1)
    await at('reserved')
    t.equal(await subjects.unfinishedOf(subject), 2)
    time.advance(1)
    await at('claimed', {}, 'still')
    t.equal(await subjects.unfinishedOf(subject), 3)
    t.equal(await subjects.unfinishedOf(other), 1)
  })

  t.test('an erased subject has nothing, and others have what they had', async t => {
    const { subjects, records, ledger, accounts, audit, revocations, tokens, idempotency } = await filled(t, open)
    const told: Task[] = []
    const usage = await records.usage(ever)
    const erased = await subjects.erase({ subject, pseudonym, beforeTask: async task => { told.push(task) } })
    t.strictSame(erased, { tasks: 3, tokens: 1, auditEntries: 2 })
    t.match(told, [{ taskId: 'one', subject, finalAnswer: answer }], 'those with an answer, before they went')
    t.same(await partsOf(subjects.partsOf(subject)), [])
    t.same((await records.tasksOf(subject, all)).items, [])
    for (const taskId of ['one', 'two']) t.equal(await ledger.taskOf(taskId), null)
    t.equal(await idempotency.earlier(subject, { key: 'key {1}', fingerprint: 'print' }), null)
    t.match(await accounts.balanceOf(subject, periodStart), { used: 0, granted: 0, unfinished: 0 })
    t.equal(await revocations.isRevoked({ id: 'old', subject, issuedAt: 1000 }), true, 'its sessions stay ended')
    t.equal(await revocations.isRevoked({ id: 'new', subject, issuedAt: 1001 }), false)
    t.equal(await revocations.endedBefore(subject), 1000)
    t.equal(await tokens.find(tokenOf({ id: 'A1b2C3d4E5f' }).id), null)
    t.same((await tokens.list(all)).items.map(({ subject }: Token) => subject), [other])
    t.same((await audit.read(all)).items.map(({ subject, actor }) => [subject, actor]).sort(), [
      [other, 'issuer'], [pseudonym, 'issuer'], [pseudonym, pseudonym]
    ].sort())

    // What stays for the books.
    const renamed = usage.map(row => row.subject === subject ? { ...row, subject: pseudonym } : row)
    t.same(await records.usage(ever), renamed.reverse(), 'in the order of the names')
    t.match(await partsOf(subjects.partsOf(pseudonym)), [{ kind: 'granted' }, { kind: 'grant' }, { kind: 'extra' }])
    t.match(await accounts.balanceOf(pseudonym, periodStart), { granted: 7 })

    // Nobody else.
    t.match(await ledger.taskOf('of bob'), { subject: other })
    t.match(await accounts.balanceOf(other, periodStart), { unfinished: 1 })
  })

  t.test('a long audit trail bears the name nowhere after an erasure', async t => {
    const { subjects, audit, time } = await filled(t, open)
    const entry = { at: time.now(), kind: 'mint', actor: 'issuer', subject, detail: {} } as const
    await audit.append(Array.from({ length: 600 }, () => entry))
    await audit.append([{ ...entry, actor: subject, subject: other }])
    const { auditEntries } = await subjects.erase({ subject, pseudonym, beforeTask: async () => {} })
    t.equal(auditEntries, 603)
    const { items } = await audit.read({ cursor: null, limit: 1000 })
    t.equal(items.some(it => it.subject === subject || it.actor === subject), false)
    t.match(items.find(({ actor }) => actor === pseudonym), { subject: other }, 'and others keep theirs')
  })

  t.test('what was erased once is erased again without harm, and one that comes back begins anew', async t => {
    const { subjects, records, accounts, at } = await filled(t, open)
    const beforeTask = async () => {}
    await subjects.erase({ subject, pseudonym, beforeTask })
    const usage = await records.usage(ever)
    t.strictSame(await subjects.erase({ subject, pseudonym: 'erased:other', beforeTask }), {
      tasks: 0, tokens: 0, auditEntries: 0
    })
    t.same(await records.usage(ever), usage)
    await at('settled', { microcredits: 3 }, 'again')
    t.match(await accounts.balanceOf(subject, periodStart), { used: 3, granted: 0 })
    t.match(await subjects.erase({ subject, pseudonym: 'erased:other', beforeTask }), { tasks: 1 })
    t.match((await records.usage(ever)).filter(({ subject }) => subject.startsWith('erased:')).map(({ tasks }) => tasks), [3, 1])
  })

  t.test('a task that begins during an erasure keeps its owner, its slot and its charge', async t => {
    const { subjects, ledger, accounts, at } = await filled(t, open)
    let id = ''
    const beforeTask = async () => { id = await at('claimed', { microcredits: 5 }, 'late') }
    await subjects.erase({ subject, pseudonym, beforeTask })
    t.equal(await ledger.taskOf('one'), null)
    t.match(await ledger.taskOf('late'), { subject, stage: 'claimed' })
    t.match(await accounts.balanceOf(subject, periodStart), { unfinished: 1 })
    t.equal(await subjects.unfinishedOf(subject), 1)
    t.equal(await ledger.advance(id, { to: 'claimed', taskId: 'late' }), true)
    t.equal(await ledger.settle({ taskId: 'late', state: 'success', answer }), true)
    await subjects.erase({ subject, pseudonym: 'erased:other', beforeTask: async () => {} })
    t.equal(await ledger.taskOf('late'), null)
    t.same(await partsOf(subjects.partsOf(subject)), [])
  })

  t.test('an erasure that was broken off is finished by the next, and counts nothing twice', async t => {
    const { subjects, records, at } = await filled(t, open)
    for (let count = 0; count < 120; count++) await at('settled', {}, `more ${count}`)
    const total = (rows: ReadonlyArray<{ readonly tasks: number, readonly microcredits: number }>) =>
      rows.reduce((sum, { tasks, microcredits }) => [sum[0]! + tasks, sum[1]! + microcredits], [0, 0])
    const before = total(await records.usage(ever))
    let left = 70
    await t.rejects(subjects.erase({
      subject, pseudonym, beforeTask: async () => { if (left-- === 0) throw new Error('the disk is full') }
    }), { message: 'the disk is full' })
    t.same(total(await records.usage(ever)), before)
    await subjects.erase({ subject, pseudonym: 'erased:other', beforeTask: async () => {} })
    t.same((await records.tasksOf(subject, all)).items, [])
    t.same(total(await records.usage(ever)), before)
    t.equal((await records.usage(ever)).some(row => row.subject === subject), false)
  })
}

async function partsOf (parts: AsyncIterable<SubjectPart>): Promise<readonly SubjectPart[]> {
  const found: SubjectPart[] = []
  for await (const part of parts) found.push(part)
  return found
}

/** A store in which one subject has one of all that there is, and somebody else has something. */
async function filled (t: Test, open: OpenStore) {
  const books = await openBooks(t, open)
  const { accounts, ledger, audit, revocations, tokens, at, reserve, time } = books
  await accounts.grant({ subject, microcredits: 7 })
  await books.ceilings.raise({ account: `subject:${subject}`, microcredits: 9, until: time.now() + dayMs })
  const session = { id: 'se:ssion', uses: 9, creditLimit: null, expiresAt: time.now() + terms.retentionMs }
  await at('settled', { session, deliverTo: 'https://app.test/alice' }, 'one')
  const id = await reserve({ idempotency: { key: 'key {1}', fingerprint: 'print' } })
  await ledger.advance(id, { to: 'sent', keyId: 'key-1', callbackHash: 'hash' })
  const said = { status: 200, contentType: 'text/plain', body: Buffer.from('said') }
  await ledger.advance(id, { to: 'claimed', taskId: 'two', answer: said })
  await ledger.giveUp('two')
  await at('unknown', { repeat: { fingerprint: 'again', call: 'call', arrivedAt: 0 } })
  await at('claimed', { subject: other }, 'of bob')
  await audit.append([
    { at: time.now(), kind: 'mint', actor: 'issuer', subject, detail: { session: 'old' } },
    { at: time.now(), kind: 'mint', actor: 'issuer', subject: other, detail: {} },
    { at: time.now(), kind: 'revoke', actor: subject, subject, detail: { session: 'old' } }
  ])
  await revocations.revokeSubject(subject, 1000, time.now() + terms.retentionMs)
  await tokens.create(tokenOf({ id: 'A1b2C3d4E5f', subject }))
  await tokens.create(tokenOf({ id: 'A1b2C3d4E5g', subject: other }))
  return books
}
