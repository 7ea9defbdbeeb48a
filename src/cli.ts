#!/usr/bin/env node
import { parseArgs } from 'node:util'

const usage = `Usage: apixo-gateway <command>

  start    the gateway (the same as npm start)
  demo     the gateway over a stand-in of APIXO: no key, no costs
  check    prints the effective settings and where each came from
  health   asks a running gateway whether it is ready; exit code 0 or 1
`
/** EX_USAGE of sysexits.h. */
const exitUsage = 64

const commands: Readonly<Record<string, () => Promise<number | undefined>>> = {
  async start () {
    await import('./main.ts')
    return undefined
  },

  async demo () {
    const [{ default: closeWithGrace }, { startDemo }] = await Promise.all([import('close-with-grace'), import('./demo.ts')])
    const demo = await startDemo({ port: Number(process.env.PORT || 8080), logLevel: process.env.LOG_LEVEL || 'warn' })
    closeWithGrace({ delay: 5000, logger: false }, demo.close)
    process.stdout.write(demo.instructions)
    return undefined
  },

  async check () {
    const { describeSettings, loadSettings, readDotEnv } = await import('./settings.ts')
    try {
      const cwd = process.cwd()
      const settings = loadSettings({ env: { ...readDotEnv(cwd), ...process.env }, cwd })
      process.stdout.write(`${describeSettings(settings)}\n`)
      return 0
    } catch (error) {
      process.stderr.write(`${(error as Error).message}\n`)
      return 78
    }
  },

  /** For the image's HEALTHCHECK: the image has no curl. */
  async health () {
    const { readDotEnv } = await import('./settings/dot-env.ts')
    const env = { ...readDotEnv(process.cwd()), ...process.env }
    const host = env.HOST || '127.0.0.1' // empty means unset, as in all settings
    const port = env.PORT || '8080'
    const reachable = host === '0.0.0.0' || host === '::' ? '127.0.0.1' : host
    try {
      const response = await fetch(`http://${reachable.includes(':') ? `[${reachable}]` : reachable}:${port}/readyz`, { signal: AbortSignal.timeout(2000) })
      process.stdout.write(`${await response.text()}\n`)
      return response.ok ? 0 : 1
    } catch (error) {
      process.stderr.write(`no gateway answers on port ${port}: ${(error as Error).message}\n`)
      return 1
    }
  }
}

const { positionals: [name, ...rest], values } = parseArgs({
  allowPositionals: true,
  strict: false,
  options: { help: { type: 'boolean', short: 'h' } }
})
const command = name !== undefined && rest.length === 0 && Object.hasOwn(commands, name) ? commands[name] : undefined
if (values.help === true) {
  process.stdout.write(usage)
} else if (command === undefined) {
  process.stderr.write(usage)
  process.exitCode = exitUsage
} else {
  try {
    process.exitCode = await command()
  } catch (error) {
    process.stderr.write(`apixo-gateway: ${(error as Error).message}\n`)
    process.exit(1)
  }
}
