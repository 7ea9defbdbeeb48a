import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import type { Test } from 'tap'

export const root = join(import.meta.dirname, '../..')

/** A program of ours in a process of its own. It and what it has started are killed when its test ends. */
export interface Program {
  readonly child: ChildProcess
  /** All it has written so far, standard output and standard error together. */
  output (): string
  /** Resolves with the first match in what it writes; rejects when it ends before that. */
  says (pattern: RegExp): Promise<RegExpExecArray>
  /** Its exit code, when it has ended and all its output is here; the signal's name if one has killed it. */
  readonly ended: Promise<number | NodeJS.Signals | null>
}

export interface ProgramOptions {
  readonly cwd: string
  /** On top of the test's own; `undefined` takes one away. */
  readonly env?: Readonly<Record<string, string | undefined>>
}

/** Starts a command; `node` is the Node that runs the test. */
export function startProgram (
  t: Test,
  [command, ...args]: readonly [string, ...string[]],
  { cwd, env = {} }: ProgramOptions
): Program {
  const child = spawn(command === 'node' ? process.execPath : command, args, {
    cwd, env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'], detached: true
  })
  t.teardown(() => killAll(child))
  let output = ''
  let hasEnded = false
  const changed = new EventTarget()
  const note = (text: string): void => {
    output += text
    changed.dispatchEvent(new Event('change'))
  }
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', note)
  const ended = once(child, 'close').then(([code, signal]) => {
    hasEnded = true
    note('')
    return code ?? signal
  })

  return {
    child,
    output: () => output,
    async says (pattern) {
      for (;;) {
        const found = pattern.exec(output)
        if (found !== null) return found
        if (hasEnded) throw new Error(`it ended without ${pattern}:\n${output}`)
        await once(changed, 'change')
      }
    },
    ended
  }
}

/** The whole process group: npm and a shell may stand between us and the program. */
function killAll ({ pid }: ChildProcess): void {
  if (pid === undefined) return // it never started
  try {
    process.kill(-pid, 'SIGKILL')
  } catch { /* all of it has ended */ }
}
