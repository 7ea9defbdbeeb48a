import '#require-node' // a Node that strips types and yet is too old reads this first
import { parseArgs } from 'node:util'
import { startSandbox } from './sandbox.ts'

/**
 * The sandbox as a process of its own, for containers and benchmarks. Each option is also a variable: `--task-ms` is
 * `SANDBOX_TASK_MS`. Prints its origin as one line when it listens; SIGTERM and SIGINT end it.
 */
const { env } = process
const { values } = parseArgs({
  options: {
    port: { type: 'string', default: env.SANDBOX_PORT ?? '0' },
    host: { type: 'string', default: env.SANDBOX_HOST ?? '127.0.0.1' },
    // Separated by commas. The default is no secret: it opens nothing but this stand-in.
    keys: { type: 'string', default: env.SANDBOX_KEYS ?? 'sandbox-key' },
    'task-ms': { type: 'string', default: env.SANDBOX_TASK_MS ?? '6000' },
    'public-origin': { type: 'string', default: env.SANDBOX_PUBLIC_ORIGIN ?? '' }
  }
})

async function main (): Promise<void> {
  const sandbox = await startSandbox({
    port: Number(values.port),
    host: values.host,
    keys: values.keys.split(',').map((key) => key.trim()),
    taskMs: Number(values['task-ms']),
    ...values['public-origin'] && { publicOrigin: values['public-origin'] },
    // A benchmark shall not run out of money, nor of memory.
    balanceUsd: 1_000_000,
    recordCalls: 100,
    recordTasks: 100_000
  })
  for (const signal of ['SIGTERM', 'SIGINT']) {
    process.once(signal, () => {
      sandbox.close().catch(console.error)
    })
  }
  console.log(sandbox.origin)
}

// Not awaited, as the bundle of the image is CommonJS, which can't.
main().catch(/* c8 ignore next: its port is taken */ error => { throw error })
