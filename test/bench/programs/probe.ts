import { createHook } from 'node:async_hooks'
import { rmSync } from 'node:fs'
import { createServer } from 'node:http'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { GCProfiler, getHeapStatistics } from 'node:v8'

/**
 * Loaded before a program that is looked into (`node --import`). What can not be seen from outside is asked for at a
 * Unix socket: how long the loop was held, how much was allocated, how many promises and timers were made. It does
 * nothing before it is asked.
 */
const resolutionMs = 1
const loop = monitorEventLoopDelay({ resolution: resolutionMs })
const created = new Map<string, number>()
const hook = createHook({
  init (_id, type) { created.set(type, (created.get(type) ?? 0) + 1) }
})
let profiler: GCProfiler | null = null
let usedAtStart = 0

const answers: Readonly<Record<string, () => unknown>> = {
  '/loop/start': () => { loop.enable() },
  /** Milliseconds that the longest hold since the last answer took. */
  '/loop/read': () => {
    const maxMs = loop.max / 1e6 - resolutionMs
    loop.reset()
    return maxMs
  },
  '/loop/stop': () => { loop.disable() },
  '/heap/start': () => {
    profiler = new GCProfiler()
    profiler.start()
    usedAtStart = getHeapStatistics().used_heap_size
  },
  /** Bytes allocated on V8's heap since the start: what each collection found on top of what the last one left. */
  '/heap/stop': () => {
    let [allocated, left] = [0, usedAtStart]
    for (const { beforeGC, afterGC } of profiler!.stop()!.statistics) {
      allocated += beforeGC.heapStatistics.usedHeapSize - left
      left = afterGC.heapStatistics.usedHeapSize
    }
    return allocated + getHeapStatistics().used_heap_size - left
  },
  '/resources/start': () => {
    created.clear()
    hook.enable()
  },
  /** How many of each kind, by the names of `node:async_hooks`. */
  '/resources/stop': () => {
    hook.disable()
    return Object.fromEntries(created)
  }
}

const server = createServer((request, response) => {
  response.end(JSON.stringify(answers[request.url!]?.() ?? null))
})
const socketPath = process.env.BENCH_PROBE!
rmSync(socketPath, { force: true }) // of the start before, which process.exit() has left behind
server.listen(socketPath)
server.unref()
