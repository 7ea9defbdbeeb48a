#!/usr/bin/env node
import { parseArgs } from 'node:util'
import { type Command, exitCodeOf, UsageError } from './cli/command.ts'

const general = `Usage: apixo-gateway <command>

  start    the gateway (the same as npm start)
  demo     the gateway over a stand-in of APIXO: no key, no costs
  check    prints the effective settings and where each came from
  health   asks a running gateway whether it is ready; exit code 0 or 1
  token    tokens for people who share one key, and invitations to have one
  session  ends all sessions of a subject, or one
  credits  gives a subject credits beyond its plan
  usage    what was spent, by subject, model or day
  unknown  submits and tasks without a known end; lets one of them go
  audit    who did what: sessions, credits, settings, refusals

  webhook-secret   what a server checks the messages of the gateway with

apixo-gateway <command> --help tells more.
Exit codes: 0, 64 (wrong words), 78 (wrong settings), 1 (anything else).
`

/** Each is loaded when it is asked for: `health` runs every few seconds in a container, and needs no database. */
const commands: Readonly<Record<string, () => Promise<{ readonly command: Command }>>> = {
  start: () => import('./cli/start.ts'),
  demo: () => import('./cli/demo.ts'),
  check: () => import('./cli/check.ts'),
  health: () => import('./cli/health.ts'),
  token: () => import('./cli/token.ts'),
  session: () => import('./cli/session.ts'),
  credits: () => import('./cli/credits.ts'),
  usage: () => import('./cli/usage.ts'),
  unknown: () => import('./cli/unknown.ts'),
  audit: () => import('./cli/audit.ts'),
  'webhook-secret': () => import('./cli/webhook-secret.ts')
}

const wantsHelp = (args: readonly string[]): boolean => args.includes('--help') || args.includes('-h')

async function run (name: string, args: readonly string[]): Promise<number | undefined> {
  const { command } = await commands[name]!()
  const usage = `Usage: apixo-gateway ${command.usage}`
  if (wantsHelp(args)) {
    process.stdout.write(usage)
    return 0
  }
  try {
    const { positionals, values } = parseArgs({ args: [...args], allowPositionals: true, options: { ...command.options } })
    if (!(command.operands ?? [0]).includes(positionals.length)) throw new UsageError('These are not the words of this command.')
    return await command.run({ operands: positionals, options: values as Record<string, string | undefined> })
  } catch (error) {
    const code = exitCodeOf(error)
    process.stderr.write(`apixo-gateway: ${(error as Error).message}\n${code === 64 ? `\n${usage}` : ''}`)
    process.exit(code) // something that it had begun may still be open
  }
}

const [name, ...args] = process.argv.slice(2)
if (name !== undefined && Object.hasOwn(commands, name)) {
  process.exitCode = await run(name, args)
} else if (wantsHelp(process.argv)) {
  process.stdout.write(general)
} else {
  process.stderr.write(general)
  process.exitCode = 64
}
