import t from 'tap'
import { categoryOf, intervalBy, type Model, priceList } from '../../../src/domain/policy.ts'

const models: readonly Model[] = [
  { id: 'nano-banana', category: 'image' },
  { id: 'happyHorse', category: 'video' },
  { id: 'suno', category: 'audio' },
  { id: 'gpt-5.4', category: 'text' }
]

t.test('a model is asked about as often as its category allows, whatever the case of its name', async t => {
  const intervalOf = intervalBy({ image: 1, video: 2, audio: 3, '*': 4 }, models)
  t.strictSame(['nano-banana', 'HAPPYHORSE', 'suno', 'gpt-5.4', 'unknown'].map(intervalOf), [1, 2, 3, 4, 4])
  t.equal(categoryOf(models)('Suno'), 'audio')
  t.equal(categoryOf([])('suno'), null)
})

t.test('a price is that of the first rule for such a model, else one credit', async t => {
  const tokens = { inputPerMillion: 300, outputPerMillion: 1500 }
  const seconds = { credits: 2, per: 'input.duration', default: 8, onFailed: 'charge' as const }
  const priceOf = priceList({ 'HAPPY*': seconds, 'gpt-*': tokens, 'suno*': tokens, '*': 5 })
  const [image, video, audio, text] = models as [Model, Model, Model, Model]
  t.strictSame([image, video, audio, text].map(priceOf), [{ credits: 5 }, seconds, { credits: 5 }, tokens])
  t.strictSame([image, text].map(priceList({})), [{ credits: 1 }, null])
})
