import t from 'tap'
import { load } from './fixture.ts'

t.test('whoever asks nothing of guests is told at every start', t => {
  const warnings = (guests: string) =>
    load(t, { yaml: `plans: { default: {}, guest: {} }\nguests: { ${guests} }\n` }).warnings
  t.match(warnings('enabled: true, proof: none'), [/^guests\.proof is none: .+\.$/])
  t.same(warnings('enabled: false, proof: none'), [], 'guests that are off cost nothing')
  t.same(warnings('enabled: true'), [])
  t.end()
})
