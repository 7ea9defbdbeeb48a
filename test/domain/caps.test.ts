import t from 'tap'
import { caps } from '../../src/domain/caps.ts'

t.test('caps hold before anything is spent, whatever the case of the model', async t => {
  const enforce = caps({
    'sora-2*': { 'input.duration': { min: 4, max: 12 }, 'input.size.kind': { oneOf: ['720p', 1080] } }
  })
  const hold = (model: string, input: Record<string, unknown>) => enforce(model, { input })
  t.doesNotThrow(() => hold('sora-2', { duration: 4, size: { kind: '720p' } }))
  t.doesNotThrow(() => hold('sora-2', {}), 'what is absent is the model\'s own default')
  for (const size of ['big', ['720p'], null, 7]) t.doesNotThrow(() => hold('sora-2', { size }))
  t.doesNotThrow(() => hold('veo-3-1', { duration: 99 }))
  for (const input of [
    { duration: 3 },
    { duration: 13 },
    { duration: '8' },
    { duration: Infinity },
    { size: { kind: '1080' } }
  ]) {
    t.throws(() => hold('Sora-2', input), { code: 'GW_BAD_REQUEST', message: /input\./ }, JSON.stringify(input))
  }
})
