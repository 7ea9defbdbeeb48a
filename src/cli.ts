import '#require-node' // a Node that strips types and yet is too old reads this first
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { type Command, exitCodeOf, UsageError } from './cli/command.ts'

interface Entry {
  /** Beside its name in the general help. */
  readonly about: string
  readonly load: () => Promise<Command>
}

/**
 * Every command, in the order of the help. Each is loaded when it is asked for: `health` runs every few seconds in a
 * container, and needs no database.
 */
const commands: Readonly<Record<string, Entry>> = {
  start: {
    about: 'the gateway (the same as npm start)',
    load: async () => (await import('./cli/server.ts')).start
  },
  demo: {
    about: 'the gateway over a stand-in of APIXO: no key, no costs',
    load: async () => (await import('./cli/server.ts')).demo
  },
  check: {
    about: 'prints the effective settings and where each came from',
    load: async () => (await import('./cli/server.ts')).check
  },
  health: {
    about: 'asks a running gateway whether it is ready; exit code 0 or 1',
    load: async () => (await import('./cli/server.ts')).health
  },
  token: {
    about: 'tokens for people who share one key, and invitations to have one',
    load: async () => (await import('./cli/access.ts')).token
  },
  session: {
    about: 'ends all sessions of a subject, or one',
    load: async () => (await import('./cli/access.ts')).session
  },
  subject: {
    about: 'hands over, or erases, all that is held of a subject',
    load: async () => (await import('./cli/subjects.ts')).subject
  },
  credits: {
    about: 'gives credits beyond the settings: to a subject, a pool, the gateway',
    load: async () => (await import('./cli/credits.ts')).credits
  },
  usage: {
    about: 'what was spent, by subject, model or day',
    load: async () => (await import('./cli/operator.ts')).usage
  },
  task: {
    about: 'tasks of everybody, what runs now, or one in full',
    load: async () => (await import('./cli/tasks.ts')).task
  },
  unknown: {
    about: 'submits and tasks without a known end; lets one of them go',
    load: async () => (await import('./cli/operator.ts')).unknown
  },
  verify: {
    about: 'holds the sums of the ledger against its tasks; exit code 0 or 1',
    load: async () => (await import('./cli/verify.ts')).verify
  },
  audit: {
    about: 'who did what: sessions, credits, settings, refusals',
    load: async () => (await import('./cli/operator.ts')).audit
  },
  alarms: {
    about: 'tries the server that alarms are sent to',
    load: async () => (await import('./cli/operator.ts')).alarms
  },
  'webhook-secret': {
    about: 'what a server checks the messages of the gateway with',
    load: async () => (await import('./cli/access.ts')).webhookSecret
  }
}

/** Where the words beside a name begin; a longer name stands apart, below the others. */
const [column, longColumn] = [9, 17]

function general (): string {
  const rows = Object.entries(commands).map(([name, { about }]) =>
    name.length < column ? `  ${name.padEnd(column)}${about}\n` : `\n  ${name.padEnd(longColumn)}${about}\n`)
  return `Usage: apixo-gateway <command>

${rows.join('')}
apixo-gateway <command> --help tells more; apixo-gateway --version, which one.
Exit codes: 0, 64 (wrong words), 69 (verify: no store), 78 (wrong settings),
1 (anything else).
`
}

const wantsHelp = (args: readonly string[]): boolean => args.includes('--help') || args.includes('-h')

async function run (name: string, args: readonly string[]): Promise<number | undefined> {
  const command = await commands[name]!.load()
  const usage = `Usage: apixo-gateway ${command.usage}`
  if (wantsHelp(args)) {
    process.stdout.write(usage)
    return 0
  }
  try {
    const { positionals, values } = parseArgs({
      args: [...args],
      allowPositionals: true,
      options: { ...command.options }
    })
    if (!(command.operands ?? [0]).includes(positionals.length)) {
      throw new UsageError('These are not the words of this command.')
    }
    const flags = new Set(Object.keys(values).filter(name => values[name] === true))
    const options = Object.fromEntries(Object.entries(values).filter(([name]) => !flags.has(name)))
    return await command.run({ operands: positionals, options: options as Record<string, string>, flags })
  } catch (error) {
    const code = exitCodeOf(error)
    process.stderr.write(`apixo-gateway: ${(error as Error).message}\n${code === 64 ? `\n${usage}` : ''}`)
    process.exit(code) // something that it had begun may still be open
  }
}

/** As package.json has it. */
function version (): string {
  const { version } = JSON.parse(readFileSync(join(import.meta.dirname, '../package.json'), 'utf8')) as {
    readonly version: string
  }
  return version
}

async function main ([name, ...args]: readonly string[]): Promise<number | undefined> {
  if (name !== undefined && Object.hasOwn(commands, name)) return await run(name, args)
  if (wantsHelp(process.argv)) {
    process.stdout.write(general())
    return 0
  }
  if (name === '--version' && args.length === 0) {
    process.stdout.write(`${version()}\n`)
    return 0
  }
  process.stderr.write(general())
  return 64
}

// Not awaited, as the bundle of the image is CommonJS, which can't.
main(process.argv.slice(2)).then(code => {
  process.exitCode = code
}, /* c8 ignore next: a command that can not even be loaded is a fault of ours */ error => { throw error })
