import type { Command } from './command.ts'

export const command: Command = {
  usage: `start

  Starts the gateway, with the settings of the environment, of .env and of
  config/gateway.yaml. SIGTERM stops it.
`,
  async run () {
    await import('../main.ts')
    return undefined
  }
}
