import { readDotEnv } from '../settings/environment/dot-env.ts'
import type { Command } from './command.ts'

/** For the image's HEALTHCHECK: the image has no curl. */
export const command: Command = {
  usage: `health

  Asks the gateway at HOST and PORT whether it is ready. Exit code 0 or 1.
`,
  async run () {
    const env = { ...readDotEnv(process.cwd()), ...process.env }
    const host = env.HOST || '127.0.0.1' // empty means unset, as in all settings
    const port = env.PORT || '8080'
    const reachable = host === '0.0.0.0' || host === '::' ? '127.0.0.1' : host
    try {
      const authority = `${reachable.includes(':') ? `[${reachable}]` : reachable}:${port}`
      const response = await fetch(`http://${authority}/readyz`, { signal: AbortSignal.timeout(2000) })
      process.stdout.write(`${await response.text()}\n`)
      return response.ok ? 0 : 1
    } catch (error) {
      process.stderr.write(`no gateway answers on port ${port}: ${(error as Error).message}\n`)
      return 1
    }
  }
}
