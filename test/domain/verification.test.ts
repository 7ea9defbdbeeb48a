import t from 'tap'
import type { Fault } from '../../src/domain/books.ts'
import { hourMs } from '../../src/domain/time.ts'
import { Findings, type LedgerBooks, verification } from '../../src/domain/verification.ts'
import { clock } from '../helpers/clock.ts'

const fault: Fault = { kind: 'owner', subject: 'app:alice', problem: 'task 1 is lost' }

/** A verification of books that a test has made, and what was told of it. */
function started (books: LedgerBooks, leads = async () => true) {
  const { elapsed, advance } = clock()
  const told: unknown[] = []
  const waits: number[] = []
  const it = verification({
    books,
    leads,
    elapsed,
    wait: async ms => { waits.push(ms) },
    onVerified: ({ count }, seconds) => told.push({ count, seconds }),
    onFailed: error => told.push(error)
  })
  return { ...it, advance, told, waits }
}

t.test('the books are looked through ten minutes after a start, and then every hour', async t => {
  const { runDue, advance, told, waits, close } = started({
    async verify (rest) {
      await rest()
      advance(2000)
      const found = new Findings()
      found.add([fault])
      return found
    }
  })
  const hourly = async (ms: number) => {
    advance(ms)
    await runDue()
    await new Promise(setImmediate)
  }
  await hourly(599_999)
  t.same(told, [])
  await hourly(1)
  t.same(told, [{ count: 1, seconds: 2 }])
  await hourly(hourMs - 2001)
  t.equal(told.length, 1)
  await hourly(1)
  t.equal(told.length, 2)
  t.same(waits, [12, 12], 'it rests for the sake of others')
  await close()
})

t.test('nobody waits for it, it runs once at a time, and on one of all replicas', async t => {
  const { promise, resolve } = Promise.withResolvers<Findings>()
  let runs = 0
  let isLeader = false
  const { runDue, advance, told, close } = started({ verify: () => { runs++; return promise } }, async () => isLeader)
  advance(hourMs)
  await runDue()
  t.equal(runs, 0)
  isLeader = true
  await runDue()
  advance(hourMs)
  await runDue()
  t.equal(runs, 1)
  resolve(new Findings())
  await close()
  t.equal(told.length, 1)
  await runDue()
  t.equal(runs, 1, 'it is closed')
})

t.test('one that fails is told of, and tried again', async t => {
  const error = new Error('the store is down')
  const { runDue, advance, told, close } = started({ verify: () => Promise.reject(error) })
  advance(hourMs)
  await runDue()
  await close()
  t.same(told, [error])
})

t.test('one that runs ends at its next rest when the gateway closes, and nothing is told of it', async t => {
  let rests = 0
  const { runDue, advance, told, close } = started({
    async verify (rest) {
      for (;; rests++) await rest()
    }
  })
  advance(hourMs)
  await runDue()
  await close()
  t.ok(rests < 3)
  t.same(told, [])
})

t.test('a thousand faults are told one by one, and more are counted', t => {
  const found = new Findings()
  for (let count = 0; count < 3; count++) found.add(Array<Fault>(400).fill(fault))
  t.equal(found.count, 1200)
  t.equal(found.faults.length, 1000)
  t.end()
})
