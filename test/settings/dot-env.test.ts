import { join } from 'node:path'
import t from 'tap'
import { readDotEnv, SettingsError } from '../../src/settings.ts'

t.test('variables are read from .env, and none without such a file', t => {
  const cwd = t.testdir({ '.env': '# a comment\nPORT=9000\nAPIXO_API_KEY="ak-one\nak-two"\n' })
  t.same(readDotEnv(cwd), { PORT: '9000', APIXO_API_KEY: 'ak-one\nak-two' })
  t.same(readDotEnv(join(cwd, 'elsewhere')), {})
  t.end()
})

t.test('a .env that can not be read is refused: its settings would be missed in silence', t => {
  const cwd = t.testdir({ '.env': {} })
  t.throws(
    () => readDotEnv(cwd),
    new SettingsError([
      {
        setting: '.env',
        source: join(cwd, '.env'),
        problem: 'can not be read (EISDIR)',
        expected: 'a text file, or none'
      }
    ])
  )
  t.end()
})
