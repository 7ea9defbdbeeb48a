import { setTimeout as wait } from 'node:timers/promises'

/** Resolves when the condition holds; throws, with what was waited for, when it does not in time. */
export async function until (what: string, holds: () => unknown, withinMs = 10_000): Promise<void> {
  const deadline = performance.now() + withinMs
  while (!await holds()) {
    if (performance.now() > deadline) throw new Error(`${withinMs} ms were not enough: ${what}`)
    await wait(5)
  }
}
