import { inspect } from 'node:util'
import t from 'tap'
import { memoized, Secret } from '../../src/domain/secret.ts'

t.test('a secret prints as [secret] wherever something prints it', async t => {
  const secret = new Secret('hunter2')
  for (const print of [
    `${secret}`,
    String(secret),
    JSON.stringify({ secret }),
    inspect({ secret }, { showHidden: true, depth: 9 }),
    inspect(secret)
  ]) {
    t.match(print, /\[secret\]/)
    t.notMatch(print, /hunter2/)
  }
  t.equal(secret.reveal(), 'hunter2')
  t.match(secret.fingerprint, /^[0-9a-f]{8}$/)
})

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
