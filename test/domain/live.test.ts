import t from 'tap'
import { memoized } from '../../src/domain/secret.ts'

t.test('what is made of a live value is made once, and anew when that is another', async t => {
  const live = { current: ['one'] }
  let made = 0
  const it = memoized(live, ([first]) => {
    made++
    return `${first}!`
  })
  t.same([it.current, it.current, made], ['one!', 'one!', 1])
  live.current = ['two']
  t.same([it.current, it.current, made], ['two!', 'two!', 2])
})
