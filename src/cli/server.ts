import { once } from 'node:events'
import type { IncomingMessage } from 'node:http'
import { readDotEnv } from '../settings/dot-env.ts'
import type { Command } from './command.ts'

export const start: Command = {
  usage: `start

  Starts the gateway, with the settings of the environment, of .env and of
  config/gateway.yaml. SIGTERM stops it.
`,
  async run () {
    await import('../main.ts')
    return undefined
  }
}

export const demo: Command = {
  usage: `demo

  Starts the gateway over a stand-in of APIXO: no key, no settings, no costs. It
  says what to type next. PORT (8080), LOG_LEVEL (warn) and
  GATEWAY_ALLOWED_ORIGINS are read from the environment.
`,
  async run () {
    const [{ default: closeWithGrace }, { startDemo }] = await Promise.all([
      import('close-with-grace'),
      import('../demo.ts')
    ])
    const { PORT, LOG_LEVEL, GATEWAY_ALLOWED_ORIGINS: allowedOrigins } = process.env
    const demo = await startDemo({ port: Number(PORT || 8080), logLevel: LOG_LEVEL || 'warn', allowedOrigins })
    closeWithGrace({ delay: 5000, logger: false }, demo.close)
    process.stdout.write(demo.instructions)
    return undefined
  }
}

export const check: Command = {
  usage: `check

  Prints the settings in force and where each came from, secrets as
  fingerprints, and on standard error what a start would warn of. Exit code 78
  when the gateway would not start with them.
`,
  async run () {
    const [{ describeSettings, processSettings }, { missingParts }] = await Promise.all([
      import('../settings.ts'),
      import('../features/pages/files.ts')
    ])
    const settings = processSettings()
    process.stdout.write(`${describeSettings(settings)}\n`)
    for (const warning of [...settings.warnings, missingParts() ?? []].flat()) {
      process.stderr.write(`warning: ${warning}\n`)
    }
    return 0
  }
}

/**
 * Not by `fetch`, nor by an import of `node:http`, which reads all getters of that module: each loads Node's own
 * undici, 13 MB, in a process that a container starts every few seconds.
 */
async function get (url: string): Promise<{ readonly statusCode: number, readonly text: string }> {
  const request = process.getBuiltinModule('node:http').get(url, { signal: AbortSignal.timeout(2000) })
  const [response] = await once(request, 'response') as [IncomingMessage]
  const chunks = await response.toArray() as Buffer[]
  return { statusCode: response.statusCode!, text: Buffer.concat(chunks).toString('utf8') }
}

/** For the image's HEALTHCHECK: the image has no curl. */
export const health: Command = {
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
      const { statusCode, text } = await get(`http://${authority}/readyz`)
      process.stdout.write(`${text}\n`)
      return statusCode === 200 ? 0 : 1
    } catch (error) {
      process.stderr.write(`no gateway answers on port ${port}: ${(error as Error).message}\n`)
      return 1
    }
  }
}
