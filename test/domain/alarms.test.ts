import t from 'tap'
import { type Alarm, alarmBoard, benchWatch, passingMs, storeWatch } from '../../src/domain/alarms.ts'
import { clock } from '../helpers/clock.ts'
import { wholeKeyStatus } from '../helpers/whole.ts'

/** A board, its clock, and what it has written into the log. */
function scene () {
  const time = clock()
  const lines: Array<readonly [string, object, string]> = []
  const write = (level: string) => (fields: object, text: string) => { lines.push([level, fields, text]) }
  const log = { info: write('info'), warn: write('warn'), error: write('error') }
  return { time, lines, board: alarmBoard({ log, now: time.now, elapsed: time.elapsed }) }
}

const benched: Alarm = { kind: 'key-benched', about: 'k1', fields: { keyId: 'k1', state: 'refused' }, text: 'it is benched' }
const unknown: Alarm = { kind: 'unknown-outcome', about: '', fields: { count: 1 }, text: 'it may have been accepted' }

t.test('an alarm is on from when it is raised until it is cleared, and each raise is a line of the log', async t => {
  const { time, lines, board } = scene()
  const since = time.now()
  board.raise(benched)
  time.advance(passingMs * 100)
  board.raise({ ...benched, fields: { keyId: 'k1', state: 'empty' } }, 'warn')
  t.match(board.active(), [{ ...benched, fields: { state: 'empty' }, since, count: 2 }])
  board.clear('key-benched', 'k1')
  board.clear('key-benched', 'k1')
  t.same(board.active(), [])
  t.same(lines, [
    ['error', { alarm: 'key-benched', keyId: 'k1', state: 'refused' }, 'it is benched'],
    ['warn', { alarm: 'key-benched', keyId: 'k1', state: 'empty' }, 'it is benched'],
    ['info', { over: 'key-benched', about: 'k1' }, 'an alarm is over']
  ])
})

t.test('one that nobody can say the end of is over when none has come for a while', async t => {
  const { time, board } = scene()
  board.raise(unknown)
  time.advance(passingMs - 1)
  board.raise(unknown)
  time.advance(passingMs - 1)
  t.match(board.active(), [{ kind: 'unknown-outcome', count: 2 }])
  time.advance(1)
  t.same(board.active(), [])
  board.raise(unknown)
  t.match(board.active(), [{ count: 1, since: time.now() }], 'the next one is a new one')
})

t.test('alarms about two things are two', async t => {
  const { board } = scene()
  board.raise(benched)
  board.raise({ ...benched, about: 'k2' })
  board.clear('key-benched', 'k1')
  t.match(board.active(), [{ about: 'k2' }])
})

t.test('what is looked at again and again is said once, and again when it is worse', async t => {
  const { lines, board } = scene()
  const at = (grade: number) => ({ kind: 'ceiling', about: 'pool:film day', grade, fields: { grade }, text: 'used' }) as const
  board.set(at(80), false)
  t.same(lines, [])
  for (const grade of [80, 80, 90, 90]) board.set(at(grade), true)
  t.match(board.active(), [{ grade: 90, count: 2 }])
  t.equal(lines.length, 2)
  board.set(at(90), false)
  board.set(at(90), false)
  t.same(board.active(), [])
  t.equal(lines.length, 3)
})

t.test('a store that does not answer is an alarm until it does', async t => {
  const { lines, board } = scene()
  let isDown = false
  const look = storeWatch(async () => { if (isDown) throw new Error('down') }, board)
  await look()
  isDown = true
  await t.rejects(look(), { message: 'down' })
  await t.rejects(look(), { message: 'down' })
  t.match(board.active(), [{ kind: 'store-down', count: 1 }])
  board.raise({ kind: 'store-gone', about: '', fields: {}, text: 'it is another one' })
  isDown = false
  await look()
  t.same(board.active(), [])
  t.same(lines.map(([level]) => level), ['error', 'error', 'info', 'info'])
})

t.test('a benched key that has left the ring is no alarm any more', async t => {
  const { board } = scene()
  const ring = new Map([['k1', 'refused'], ['k2', 'refused']] as ReadonlyArray<['k1' | 'k2', 'refused' | 'draining']>)
  const states = () => Array.from(ring, ([keyId, state]) => wholeKeyStatus({ keyId, state }))
  const look = benchWatch({ states }, board)
  await look()
  board.raise({ kind: 'key-gone', about: 'k3', fields: {}, text: 'it is gone' })
  for (const about of ['k1', 'k2', 'k3']) board.raise({ ...benched, about })
  await look()
  t.match(board.active(), [{ kind: 'key-gone' }, { about: 'k1' }, { about: 'k2' }])
  ring.set('k2', 'draining')
  await look()
  t.match(board.active(), [{ kind: 'key-gone' }, { about: 'k1' }])
})
