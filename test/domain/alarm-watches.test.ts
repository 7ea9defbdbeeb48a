import t from 'tap'
import { alarmBoard } from '../../src/domain/alarms.ts'
import type { KeyStatus } from '../../src/domain/key-ring.ts'
import {
  balanceWatch, leastRefusals, probeEveryMs, refusalWatch, windowMs
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
