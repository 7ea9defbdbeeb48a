import t from 'tap'
import { alarmBoard } from '../../src/domain/alarms.ts'
import { ceilings } from '../../src/domain/ceilings.ts'
import type { KeyStatus } from '../../src/domain/key-ring.ts'
import {
  balanceWatch, ceilingsEveryMs, ceilingWatch, leastRefusals, probeEveryMs, refusalWatch, windowMs
} from '../../src/features/alarms/watches.ts'
import { clock } from '../helpers/clock.ts'
import { wholeKey, wholeKeyStatus } from '../helpers/whole.ts'

function scene () {
  const time = clock()
  const ignore = (): void => {}
  const board = alarmBoard({ log: { info: ignore, warn: ignore, error: ignore }, now: time.now, elapsed: time.elapsed })
  return { time, board, on: () => board.active().map(({ kind, about, fields }) => ({ kind, about, fields })) }
}

/** Keys with balances, which a probe finds out. */
function balances (start: Readonly<Record<string, number>>) {
  const { time, board, on } = scene()
  const upstream = new Map(Object.entries(start))
  const ring = new Map<string, KeyStatus>(Object.keys(start).map(keyId => [keyId, wholeKeyStatus({ keyId })]))
  const probed: string[] = []
  let isLeading = true
  const look = balanceWatch({
    keys: {
      states: () => [...ring.values()],
      byId: wholeKey,
      async verify ({ id }) {
        probed.push(id)
        ring.set(id, { ...ring.get(id)!, balance: upstream.get(id)! })
        return 'fine'
      }
    },
    alarms: board,
    below: 20,
    leads: async () => isLeading,
    elapsed: time.elapsed
  })
  return { time, on, ring, upstream, probed, look, setLeading: (value: boolean) => { isLeading = value } }
}

t.test('a key with less money than the operator wants is an alarm, until it has more', async t => {
  const { time, on, upstream, look, probed } = balances({ rich: 100, poor: 19.99, even: 20 })
  await look()
  t.same(on(), [], 'nothing is known yet')
  await look()
  const text = { kind: 'upstream-balance', about: 'poor', fields: { keyId: 'poor', balance: 19.99, below: 20 } }
  t.same(on(), [text])
  upstream.set('poor', 50)
  time.advance(probeEveryMs - 1)
  await look()
  t.same(probed, ['rich', 'poor', 'even'], 'each is asked once in its time')
  time.advance(1)
  await look()
  await look()
  t.equal(probed.length, 6)
  t.same(on(), [])
})

t.test('a key that leaves, or a replica that leads no more, takes its alarm along', async t => {
  const { on, ring, look, setLeading, probed } = balances({ one: 1, two: 2 })
  await look()
  await look()
  t.same(on().map(({ about }) => about), ['one', 'two'])
  ring.set('one', { ...ring.get('one')!, state: 'draining' })
  await look()
  t.same(on().map(({ about }) => about), ['two'])
  setLeading(false)
  await look()
  t.same(on(), [])
  t.equal(probed.length, 2)
})

/** Windows with so many refusals each. */
async function after (counts: readonly number[]) {
  const { time, board, on } = scene()
  let total = 7
  const look = refusalWatch({ alarms: board, refusals: () => total, elapsed: time.elapsed })
  for (const count of counts) {
    time.advance(windowMs / 2)
    total += count
    await look()
    time.advance(windowMs / 2)
    await look()
  }
  return on()
}

t.test('refusals are unusual when they are many, and many times as many as in the hour before', async t => {
  const quiet = [2, 0, 1]
  t.match(await after([...quiet, leastRefusals]), [{ kind: 'refusals', fields: { refusals: leastRefusals, usual: 1 } }])
  t.same(await after([...quiet, leastRefusals - 1]), [], 'few are never unusual')
  t.same(await after([20, 20, 20, 100]), [], 'five times as many are not')
  t.match(await after([20, 20, 20, 101]), [{ fields: { usual: 20 } }])
  t.same(await after([...quiet, 500, 3]), [], 'and over with the next window that is as usual')
  t.same(await after([0, 0, 5000]), [], 'before a quarter of an hour nobody knows what is usual')
  t.same(await after([...quiet, ...Array.from({ length: 14 }, () => 500)]), [], 'what goes on for an hour is usual')
})

/** A gateway with a day's ceiling, and a pool that is prepaid. */
function levels () {
  const { time, board, on } = scene()
  const open = { zone: 'UTC', resetHour: 0 }
  const set = ceilings({
    gateway: { ...open, ceilings: { day: 100 } }, pools: { film: { ...open, ceilings: { none: 50 } } }, plans: {}
  })!
  const used = new Map<string, number>()
  const reads: number[] = []
  let isLeading = true
  const look = ceilingWatch({
    ceilings: {
      all: set.all,
      async stateOf (holds) {
        reads.push(holds.length)
        return holds.map(({ account, limit }) => ({ used: (used.get(account) ?? 0) * 1e6, limit }))
      }
    },
    alarms: board,
    leads: async () => isLeading,
    now: time.now,
    elapsed: time.elapsed
  })
  const after = async (ms: number) => {
    time.advance(ms)
    await look()
    return on().map(({ about, fields }) => `${about}: ${fields['percent']} %`)
  }
  return { time, board, used, reads, after, setLeading: (value: boolean) => { isLeading = value } }
}

t.test('80, 90 and 100 % of a ceiling are an alarm, until its window ends or it is higher', async t => {
  const { board, used, after } = levels()
  used.set('gateway', 79.9)
  t.same(await after(0), [])
  used.set('gateway', 80)
  used.set('pool:film', 51)
  t.same(await after(ceilingsEveryMs), ['gateway day:2026-01-15: 80 %', 'pool:film none: 102 %'])
  const [gateway, film] = board.active()
  t.match(gateway, { grade: 80, fields: { account: 'gateway', resetsAt: '2026-01-16T00:00:00.000Z' } })
  t.match(film, { grade: 100, fields: { account: 'pool:film', window: 'none', resetsAt: null } })
  used.set('gateway', 99.9)
  t.same(await after(ceilingsEveryMs), ['gateway day:2026-01-15: 99 %', 'pool:film none: 102 %'])
  t.match(board.active()[0], { grade: 90, count: 2 })
  used.set('pool:film', 39)
  t.same(await after(ceilingsEveryMs), ['gateway day:2026-01-15: 99 %'])
  used.set('gateway', 0)
  t.same(await after(12 * 3_600_000), [], 'the next day')
})

t.test('the ceilings are looked at once a minute, by the replica that leads', async t => {
  const { used, reads, after, setLeading } = levels()
  used.set('gateway', 100)
  t.equal((await after(0)).length, 1)
  await after(ceilingsEveryMs - 1)
  t.same(reads, [2])
  setLeading(false)
  t.same(await after(1), [])
  t.same(reads, [2, 0])
})

t.test('a prepaid pool that was given nothing is used up', async t => {
  const { time, board } = scene()
  const film = { zone: 'UTC', resetHour: 0, ceilings: { none: 0 } }
  const set = ceilings({ gateway: { ...film, ceilings: {} }, pools: { film }, plans: {} })!
  const look = ceilingWatch({
    ceilings: { all: set.all, stateOf: async holds => holds.map(() => ({ used: 0, limit: 0 })) },
    alarms: board,
    leads: async () => true,
    now: time.now,
    elapsed: time.elapsed
  })
  await look()
  t.match(board.active(), [{ about: 'pool:film none', grade: 100 }])
})
