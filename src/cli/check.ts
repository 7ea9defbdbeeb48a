import type { Command } from './command.ts'

export const command: Command = {
  usage: `check

  Prints the settings in force and where each came from, secrets as
  fingerprints, and on standard error what a start would warn of. Exit code 78
  when the gateway would not start with them.
`,
  async run () {
    const { describeSettings, loadSettings, readDotEnv } = await import('../settings.ts')
    const cwd = process.cwd()
    const settings = loadSettings({ env: { ...readDotEnv(cwd), ...process.env }, cwd })
    process.stdout.write(`${describeSettings(settings)}\n`)
    for (const warning of settings.warnings) process.stderr.write(`warning: ${warning}\n`)
    return 0
  }
}
