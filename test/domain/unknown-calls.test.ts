import t from 'tap'
import { localUnknownCalls, unknownMs } from '../../src/domain/unknown-calls.ts'
import { clock } from '../helpers/clock.ts'

t.test('one process remembers an unknown outcome for half a minute from when it was told last', async t => {
  const time = clock()
  const it = localUnknownCalls(time.elapsed)
  it.remember('one')
  time.advance(unknownMs - 1)
  t.equal(it.has('one'), true)
  it.remember('one')
  time.advance(unknownMs - 1)
  t.equal(it.has('one'), true)
  time.advance(1)
  t.equal(it.has('one'), false)
})
