import { join } from 'node:path'
import type { Test } from 'tap'
import { apiKey, issuerToken, sessionSecret } from './gateway.ts'
import { type Program, root, startProgram } from './program.ts'

export interface ProcessOptions {
  /** Where `.env`, the config file and the ledger are looked for. */
  readonly cwd: string
  readonly env?: Readonly<Record<string, string>>
  /** From the root of the project. */
  readonly script?: string
  readonly args?: readonly string[]
}

/** A program of ours, with its two outputs apart. */
export interface GatewayProgram extends Program {
  readonly stdout: string
  readonly stderr: string
}

/** A gateway that listens, in a process of its own. */
export interface GatewayProcess extends GatewayProgram {
  readonly origin: string
}

const settings = /^(?:APIXO_|GATEWAY_|HOST$|PORT$|LOG_LEVEL$)/

/** Takes away what this process has of settings: a developer's own must not change a test. */
function withoutSettings (): Record<string, undefined> {
  return Object.fromEntries(Object.keys(process.env).filter(name => settings.test(name)).map(name => [name, undefined]))
}

/** Runs a script of ours, which may well end by itself. */
export function runScript (
  t: Test,
  { cwd, env = {}, script = 'src/main.ts', args = [] }: ProcessOptions
): GatewayProgram {
  const program = startProgram(t, ['node', join(root, script), ...args], { cwd, env: { ...withoutSettings(), ...env } })
  t.teardown(async () => {
    program.child.kill('SIGKILL')
    await program.ended // or it may write into the folder that the test takes away
  })
  const said = { stdout: '', stderr: '' }
  for (const stream of ['stdout', 'stderr'] as const) {
    program.child[stream]!.on('data', text => {
      said[stream] += text
    })
  }
  return {
    ...program,
    get stdout () {
      return said.stdout
    },
    get stderr () {
      return said.stderr
    }
  }
}

/** All that a gateway needs, over this upstream; the working directory has a gateway.yaml. */
export function gatewayEnvironment (baseUrl: string): Record<string, string> {
  return {
    APIXO_API_KEY: apiKey,
    APIXO_BASE_URL: baseUrl,
    GATEWAY_SESSION_SECRET: sessionSecret,
    GATEWAY_ISSUER_TOKEN: issuerToken,
    GATEWAY_STORE: 'sqlite:./gateway.db',
    GATEWAY_CONFIG: 'gateway.yaml',
    PORT: '0'
  }
}

/** Resolves when it listens; rejects, with what it said, when it ends instead. */
export async function startProcess (t: Test, options: ProcessOptions): Promise<GatewayProcess> {
  const program = runScript(t, options)
  const [, origin] = await program.says(/listening on (http:[^"\s]+)/)
  return Object.defineProperties({ origin: origin! }, Object.getOwnPropertyDescriptors(program)) as GatewayProcess
}
