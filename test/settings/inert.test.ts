import t from 'tap'
import { load } from './fixture.ts'

t.test('who sets what this version does nothing with is told, by name', t => {
  const { warnings } = load(t, { env: { GATEWAY_STATIC_DIR: 'web' }, files: { 'web/index.html': '' } })
  t.same(warnings.map(warning => warning.split(' ')[0]), ['GATEWAY_STATIC_DIR'])
  t.end()
})

t.test('the settings that ship are all of effect', t => {
  t.same(load(t).warnings, [])
  t.end()
})
