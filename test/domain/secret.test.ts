import { inspect } from 'node:util'
import t from 'tap'
import { Secret } from '../../src/domain/secret.ts'

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
