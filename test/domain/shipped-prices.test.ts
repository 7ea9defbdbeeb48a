import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { parse } from 'yaml'
import { caps, type CapRules } from '../../src/domain/caps.ts'
import type { PriceRules } from '../../src/domain/prices.ts'
import { pricing } from '../helpers/prices.ts'

const config = join(import.meta.dirname, '../../config')
const { prices, caps: capRules }: { readonly prices: PriceRules, readonly caps: CapRules } =
  parse(readFileSync(join(config, 'gateway.yaml'), 'utf8'))
const { models }: { readonly models: ReadonlyArray<{ readonly id: string, readonly category: string }> } =
  JSON.parse(readFileSync(join(config, 'models.json'), 'utf8'))

const priceOf = pricing(prices, {})
const creditsOf = (model: string, input: Readonly<Record<string, unknown>>) =>
  priceOf(model, { input }).microcredits / 1_000_000

type Grid = Readonly<Record<string, readonly unknown[]>>

const fluxModes = ['pro-text-to-image', 'pro-image-to-image', 'flex-text-to-image', 'flex-image-to-image']
const texts = ['text-to-video', 'image-to-video']
const seconds = (...durations: readonly number[]) => durations
const sizes = ['1K', '1k', '2K', '2k', '4K', '4k']

/** What the model pages document that may make a price; each field may be absent as well. */
const pages: Readonly<Record<string, Grid>> = {
  'nano-banana': { mode: ['text-to-image', 'image-to-image'], resolution: sizes },
  'nano-banana-pro': { mode: ['text-to-image', 'image-to-image'], resolution: sizes },
  'nano-banana-2': { mode: ['text-to-image', 'image-to-image'], resolution: sizes },
  'gpt-image-1': { mode: ['gpt-image-1'], num_images: [1, 2, 4] },
  'gpt-image-2': { mode: ['text-to-image', 'image-to-image'], resolution: sizes },
  'grok-image': { mode: ['text-to-image', 'image-to-image'] },
  'flux-2': { mode: fluxModes, resolution: sizes },
  flux2: { mode: fluxModes, resolution: sizes },
  'flux-kontext': { mode: ['pro', 'max'] },
  midjourney: { mode: ['text-to-image', 'image-to-image', 'image-edit', 'vary', 'upscale', 'reroll', 'enhance'] },
  'seedream-4-0': { resolution: sizes },
  'seedream-4-5': { resolution: sizes },
  'seedream-5-0': { resolution: sizes },
  'seedream-5-0-pro': { resolution: sizes },
  'qwen-image': { mode: ['text-to-image', 'image-to-image'] },
  'qwen-2-image': { mode: ['text-to-image', 'image-to-image'] },
  'wan-2-5-image': { mode: ['text-to-image', 'image-to-image'] },
  'wan-2-7-image': {
    mode: ['omni-image', 'omni-image-pro'], resolution: sizes, enable_sequential: [true, false], num_images: [1, 2, 4]
  },
  'minimax-image-01': { mode: ['text-to-image', 'image-to-image'] },
  'runway-gen4-image': { resolution: ['720p', '1080p'] },
  'runway-gen4-image-turbo': { resolution: ['720p', '1080p'] },
  'sora-2': { mode: texts, duration: seconds(4, 8, 12) },
  'sora-2-pro': {
    mode: texts,
    size: ['720*1280', '1280*720', '1024*1792', '1792*1024'],
    resolution: ['720p', '1080p'],
    duration: seconds(4, 8, 12)
  },
  'veo-3-1': { mode: ['fast', 'quality'], generationType: ['TEXT_2_VIDEO', 'REFERENCE_2_VIDEO'] },
  'kling-2-1': { mode: texts, duration: seconds(5, 10) },
  'kling-2-5-turbo-pro': { mode: texts, duration: seconds(5, 10) },
  'kling-2-6': { mode: texts, duration: seconds(5, 10), sound: [true, false] },
  'kling-3-0-std': { mode: [...texts, 'motion-control'], duration: seconds(3, 15) },
  'seedance-1-5-pro': { mode: texts, resolution: ['480p', '720p', '1080p'], duration: seconds(4, 12) },
  'seedance-2-0': {
    mode: ['text-to-video', 'first_and_last_frames', 'omni_reference'],
    resolution: ['480p', '720p', '1080p'],
    duration: seconds(4, 15)
  },
  'seedance-2-0-fast': { resolution: ['480p', '720p'], duration: seconds(4, 15) },
  'hailuo-2-3': { mode: texts, resolution: ['768p', '768P', '1080p', '1080P'], duration: seconds(6, 10) },
  'hailuo-2-3-fast': { mode: ['image-to-video'], resolution: ['768p', '768P', '1080p'], duration: seconds(6, 10) },
  'wan-2-5': { mode: texts, resolution: ['480p', '720p', '1080p'], duration: seconds(5, 10) },
  'wan-2-5-video': { mode: texts, resolution: ['480p', '720p', '1080p'], duration: seconds(5, 10) },
  'grok-video': { mode: texts, resolution: ['480p', '720p'], duration: seconds(6, 15) },
  'ltx-2-19b': { mode: texts, resolution: ['480p', '720p', '1080p'], duration: seconds(5, 20) },
  'vidu-q3': { mode: texts, resolution: ['360p', '540p', '720p', '1080p'], duration: seconds(4, 16) },
  happyHorse: { mode: texts, resolution: ['480p', '720p', '1080p'], duration: seconds(5, 15) },
  suno: { mode: ['V4', 'V4_5', 'V5', 'V5_5'], customMode: [true, false] }
}

function * inputsOf (grid: Grid): Generator<Readonly<Record<string, unknown>>> {
  const [first, ...rest] = Object.entries(grid)
  if (first === undefined) return yield {}
  const [name, values] = first
  for (const input of inputsOf(Object.fromEntries(rest))) {
    yield input
    for (const value of values) yield { ...input, [name]: value }
  }
}

/** Fields that say how many of them are made, and how much of it. */
const counts = new Set(['duration', 'num_images'])

t.test('every model that makes tasks has a price of its own, and a page here', async t => {
  const tasks = models.filter(({ category }) => category !== 'text').map(({ id }) => id)
  t.strictSame(tasks.filter(id => !(id in prices)), [])
  t.strictSame(tasks.filter(id => !(id in pages)), [])
})

t.test('whoever leaves out what makes the price, or writes it otherwise, pays no less', async t => {
  const wrong: unknown[] = []
  for (const [model, grid] of Object.entries(pages)) {
    for (const input of inputsOf(grid)) {
      const credits = creditsOf(model, input)
      if (!(credits > 0)) wrong.push({ model, input, credits })
      for (const name of Object.keys(input)) {
        const { [name]: value, ...less } = input
        if (creditsOf(model, less) < credits) wrong.push({ model, input, without: name })
        if (counts.has(name)) continue
        for (const odd of [null, 7, [value], `${String(value)} `, String(value).toUpperCase()]) {
          if (creditsOf(model, { ...input, [name]: odd }) < credits) wrong.push({ model, input, name, odd })
        }
      }
    }
  }
  t.strictSame(wrong, [])
})

t.test('more seconds and more pictures cost more, in proportion', async t => {
  const wrong: unknown[] = []
  for (const [model, grid] of Object.entries(pages)) {
    for (const name of Object.keys(grid).filter(name => counts.has(name))) {
      for (const input of inputsOf({ ...grid, [name]: [] })) {
        const one = creditsOf(model, { ...input, [name]: 1 })
        for (const count of grid[name] as number[]) {
          const expected = Math.round(one * count * 1e6) / 1e6
          if (creditsOf(model, { ...input, [name]: count }) !== expected) wrong.push({ model, input, name, count })
        }
      }
    }
  }
  t.strictSame(wrong, [])
})

t.test('the caps let through all that the pages document, and no clip that is shorter and priced as that', async t => {
  const enforce = caps(capRules)
  for (const [model, grid] of Object.entries(pages)) {
    for (const input of inputsOf(grid)) t.strictSame(enforce(model, { input: { ...input } }), [], model)
  }
  for (const [model, duration] of [['sora-2', 3.9], ['Sora-2-Pro', 1], ['wan-2-5', 1], ['wan-2-5-video', 4]] as const) {
    t.throws(() => enforce(model, { input: { duration } }), { code: 'GW_BAD_REQUEST' }, model)
  }
  t.throws(() => enforce('seedance-2-0', { input: { prompt: 'a fox --rs 1080p --dur 10' } }), { code: 'GW_BAD_REQUEST' })
})

t.test('the prices of APIXO and of the makers are those of the table, in cents of which a credit has three', async t => {
  const usd: ReadonlyArray<readonly [model: string, input: Readonly<Record<string, unknown>>, atLeast: number]> = [
    ['nano-banana', {}, 0.03],
    ['gpt-image-2', {}, 0.02],
    ['flux-2', { mode: 'pro-text-to-image' }, 0.05],
    ['flux-2', {}, 0.13],
    ['suno', { mode: 'V5' }, 0.12],
    ['wan-2-7-image', { mode: 'omni-image', num_images: 1 }, 0.024],
    ['wan-2-7-image', { mode: 'omni-image', enable_sequential: false }, 0.096],
    ['wan-2-7-image', { mode: 'omni-image-pro', num_images: 3 }, 0.18],
    ['wan-2-7-image', { mode: 'omni-image-pro', enable_sequential: true, num_images: 12 }, 0.72],
    ['wan-2-7-image', {}, 0.72],
    ['wan-2-5-video', { resolution: '480p', duration: 5 }, 0.2],
    ['wan-2-5-video', { resolution: '480p', duration: 10 }, 0.4],
    ['wan-2-5-video', { resolution: '720p', duration: 5 }, 0.4],
    ['wan-2-5-video', { resolution: '720p' }, 0.8],
    ['wan-2-5-video', { resolution: '1080p', duration: 5 }, 0.7],
    ['wan-2-5-video', {}, 1.4],
    ['sora-2', { duration: 4 }, 0.4],
    ['sora-2-pro', { mode: 'text-to-video', size: '1280*720', duration: 4 }, 1.2],
    ['sora-2-pro', { mode: 'image-to-video', resolution: '720p', duration: 12 }, 3.6],
    ['sora-2-pro', { mode: 'text-to-video', size: '1792*1024', resolution: '720p', duration: 12 }, 6],
    ['sora-2-pro', {}, 6]
  ]
  for (const [model, input, atLeast] of usd) {
    const price = creditsOf(model, input) * 0.03
    const name = `${model} ${JSON.stringify(input)}: $${price.toFixed(3)} for $${atLeast}`
    t.ok(price >= atLeast - 1e-9 && price <= atLeast * 1.5 + 0.001, name)
  }
  t.equal(creditsOf('a-model-of-tomorrow', {}), 40, 'what is not known may be a film')
})
