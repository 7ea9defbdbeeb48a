import type { Reply } from './gateway.ts'
import { until } from './until.ts'

/** Callers who never stop, and what became of all they asked. */
export function load (workers: number, ask: (worker: number) => Promise<Reply>) {
  const replies: Reply[] = []
  const stop = new AbortController()
  const running = Array.from({ length: workers }, async (_, worker) => {
    while (!stop.signal.aborted) replies.push(await ask(worker))
  })
  return {
    replies,
    failed: () => replies.filter(({ status }) => status !== 200).map(({ status, text }) => `${status} ${text}`),
    async more (count = 20) {
      const enough = replies.length + count
      await until(`${count} more answers`, () => replies.length >= enough)
    },
    async end () {
      stop.abort()
      await Promise.all(running)
    }
  }
}
