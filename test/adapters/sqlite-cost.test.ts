import { readFileSync, statSync } from 'node:fs'
import { StatementSync } from 'node:sqlite'
import t, { type Test } from 'tap'
import type { Store } from '../../src/domain/store.ts'
import { answer, sent } from '../contracts/open-books.ts'
import { fileOf, open, reserve, visit } from './sqlite-files.ts'

const subjects = 200
const answered = { status: 200, contentType: 'application/json', body: answer }

/** Submits of as many subjects at once, from the reservation to the word that their answers were delivered. */
async function submit (store: Store, count: number, first: number): Promise<void> {
  const turns = Array.from({ length: count }, async (_, index) => {
    const number = first + index
    const subject = `app:${(number * 7919) % subjects}`
    const repeat = { fingerprint: `${number}`.padStart(43, '0'), call: `call ${number}`, arrivedAt: 0 }
    const id = await reserve(store, { subject, repeat })
    await store.ledger.advance(id, sent)
    const taskId = `task ${(number * 104_729) % 1_000_003}`
    await store.ledger.advance(id, { to: 'claimed', taskId, answer: answered })
    store.repeats.delivered(id)
  })
  await Promise.all(turns)
}

interface Cost { readonly pages: number, readonly statements: number }

/** What one of so many submits at once costs, in a file that has some already. */
async function costOf (t: Test, atOnce: number): Promise<Cost> {
  const path = fileOf(t)
  const store = open(t, path)
  await submit(store, 3000, 0)
  await store.tidy()
  const db = visit(t, path)
  const rounds = Math.ceil(480 / atOnce)
  db.prepare('PRAGMA wal_checkpoint(TRUNCATE)').get()
  const spies = (['run', 'get'] as const).map(
    name => t.capture(StatementSync.prototype, name, StatementSync.prototype[name])
  )
  for (let round = 0; round < rounds; round++) await submit(store, atOnce, 3000 + round * atOnce)
  const statements = spies.flatMap(spy => spy()).length
  for (const spy of spies) spy.restore()
  const frames = (statSync(`${path}-wal`).size - 32) / (24 + readFileSync(path).readUInt16BE(16))
  return { pages: frames / (rounds * atOnce), statements: statements / (rounds * atOnce) }
}

t.test('a submit alone writes five pages of the log, and runs a statement a step and the word of its delivery', async t => {
  const { pages, statements } = await costOf(t, 1)
  t.ok(pages < 5, `${pages} pages`)
  t.ok(statements <= 3 + 2 * 2, `${statements} statements, two transactions among them`)
})

t.test('of twelve at once each writes less than two pages: those of the others are the same', async t => {
  const { pages, statements } = await costOf(t, 12)
  t.ok(pages < 2, `${pages} pages`)
  t.ok(statements < 3.5, `${statements} statements`)
})
