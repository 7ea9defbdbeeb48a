import type { Command } from './command.ts'

export const command: Command = {
  usage: `demo

  Starts the gateway over a stand-in of APIXO: no key, no settings, no costs. It
  says what to type next. PORT (8080) and LOG_LEVEL (warn) are read from the
  environment.
`,
  async run () {
    const [{ default: closeWithGrace }, { startDemo }] = await Promise.all([import('close-with-grace'), import('../demo.ts')])
    const demo = await startDemo({ port: Number(process.env.PORT || 8080), logLevel: process.env.LOG_LEVEL || 'warn' })
    closeWithGrace({ delay: 5000, logger: false }, demo.close)
    process.stdout.write(demo.instructions)
    return undefined
  }
}
