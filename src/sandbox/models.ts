/**
 * The task models the sandbox knows: every id that APIXO's model pages name. The list moves often, so
 * `SandboxOptions.models` adds to it. Both `flux-2` and `flux2` are here because the pages disagree.
 *
 * @see https://apixo.ai/docs/models/image and its neighbours `video` and `audio`
 */
export const sandboxModels: readonly string[] = [
  'nano-banana', 'nano-banana-pro', 'nano-banana-2', 'gpt-image-1', 'gpt-image-2', 'grok-image', 'flux-2', 'flux2',
  'flux-kontext', 'midjourney', 'seedream-4-0', 'seedream-4-5', 'seedream-5-0', 'seedream-5-0-pro', 'qwen-image',
  'qwen-2-image', 'wan-2-5-image', 'wan-2-7-image', 'minimax-image-01', 'runway-gen4-image',
  'runway-gen4-image-turbo',
  'sora-2', 'sora-2-pro', 'veo-3-1', 'kling-2-1', 'kling-2-5-turbo-pro', 'kling-2-6', 'kling-3-0-std',
  'seedance-1-5-pro', 'seedance-2-0', 'seedance-2-0-fast', 'hailuo-2-3', 'hailuo-2-3-fast', 'wan-2-5',
  'wan-2-5-video', 'grok-video', 'ltx-2-19b', 'vidu-q3', 'happyHorse',
  'suno'
]

/** What each accepted task costs here, in USD. Real prices differ by model and routing; a flat one is easy to check. */
export const priceUsd = 0.03

/** How many results a model makes when nobody says: Midjourney draws four pictures, Suno gives two tracks. */
const usualResults: Readonly<Record<string, number>> = { midjourney: 4, suno: 2 }

/** How many results this request gets, or `null` when `num_images` is not a whole number from 1 to 4. */
export function resultCount (model: string, numImages: unknown): number | null {
  if (numImages === undefined) return usualResults[model] ?? 1
  const good = Number.isInteger(numImages) && Number(numImages) >= 1 && Number(numImages) <= 4
  return good ? Number(numImages) : null
}
