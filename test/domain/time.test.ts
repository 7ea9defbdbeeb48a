import t from 'tap'
import { sliceMs, slices } from '../../src/domain/time.ts'
import { clock } from '../helpers/clock.ts'
import { crankedTimers } from '../helpers/timers.ts'

function scene () {
  const time = clock()
  const timers = crankedTimers(time)
  const done: string[] = []
  return { time, timers, done, it: slices({ timers, ...time }) }
}

t.test('what is quick is done at once, in the order in which it was asked for', async t => {
  const { it, done, timers } = scene()
  it.each(['a', 'b'], item => {
    done.push(item)
    if (item === 'a') it.each(['c'], item => { done.push(item) })
  })
  it.each([], () => t.fail('there is none'))
  t.strictSame(done, ['a', 'b', 'c'])
  t.equal(timers.waiting, 0)
})

t.test('what takes its time goes on after a pause, with the items there were', async t => {
  const { it, done, timers, time } = scene()
  const items = ['a', 'b']
  it.each(items, item => {
    done.push(item)
    time.advance(sliceMs)
  })
  items.push('c')
  it.each(['d'], item => { done.push(item) })
  t.strictSame(done, ['a'])
  timers.run()
  t.strictSame(done, ['a', 'b'])
  timers.run()
  t.strictSame(done, ['a', 'b', 'd'])
  t.equal(timers.waiting, 0)
})

t.test('an item that throws keeps nothing from the others', async t => {
  const { it, done, timers } = scene()
  t.throws(() => it.each(['a', 'b'], item => {
    if (item === 'a') throw new Error('no')
    done.push(item)
  }), { message: 'no' })
  t.strictSame(done, [])
  timers.run()
  t.strictSame(done, ['b'])
  t.equal(timers.waiting, 0)
})

t.test('what was forgotten is not done', async t => {
  const { it, done, timers, time } = scene()
  it.each(['a', 'b'], item => {
    done.push(item)
    time.advance(sliceMs)
  })
  it.clear()
  timers.run()
  it.each(['c'], item => { done.push(item) })
  t.strictSame(done, ['a', 'c'])
  t.equal(timers.waiting, 0)
})
