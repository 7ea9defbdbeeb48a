import { spawnSync } from 'node:child_process'
import { accessSync, constants, statSync } from 'node:fs'
import { delimiter, join } from 'node:path'

/**
 * What the tests need from the system, beside Node. Run before them (`pretest`): as root on Debian what is missing is
 * installed; anywhere else the run stops here and says what to install, rather than in the middle of a browser test.
 */
interface SystemPackage {
  /** What the tests do with it. */
  readonly for: string
  /** Debian's name of the package. */
  readonly debian: string
  /** An environment variable that names the program, and beats the search. */
  readonly variable: string
  /** Names it goes by on PATH; the first one found is used. */
  readonly programs: readonly string[]
}

const packages = {
  chromium: {
    for: 'browser tests',
    debian: 'chromium',
    variable: 'CHROMIUM_PATH',
    programs: ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable']
  },
  webkit: {
    for: 'tests of the client in WebKit',
    debian: 'webkit2gtk-driver',
    variable: 'WEBKIT_DRIVER_PATH',
    programs: ['WebKitWebDriver']
  },
  display: {
    for: 'tests of the client in WebKit',
    debian: 'xvfb',
    variable: 'XVFB_PATH',
    programs: ['Xvfb']
  },
  redis: {
    for: 'tests of the Redis store',
    debian: 'redis-server',
    variable: 'REDIS_SERVER_PATH',
    programs: ['redis-server', 'valkey-server']
  },
  nginx: {
    for: 'test of event streams behind a proxy',
    debian: 'nginx-light',
    variable: 'NGINX_PATH',
    programs: ['nginx']
  }
} as const satisfies Record<string, SystemPackage>

/** Where Chromium is. Throws, with what to install, when it is nowhere. */
export function chromiumPath (): string {
  return pathOf(packages.chromium)
}

/** Where the driver of WebKit is, and a display that nobody sees. Throws, with what to install, when one is nowhere. */
export function webkitPaths (): { readonly driver: string, readonly display: string } {
  return { driver: pathOf(packages.webkit), display: pathOf(packages.display) }
}

/** Where the server of Redis or Valkey is. Throws, with what to install, when it is nowhere. */
export function redisServerPath (): string {
  return pathOf(packages.redis)
}

/** Where nginx is. Throws, with what to install, when it is nowhere. */
export function nginxPath (): string {
  return pathOf(packages.nginx)
}

function pathOf (wanted: SystemPackage): string {
  const found = locate(wanted)
  if (found === undefined) throw new Error(advice([wanted]))
  return found
}

function locate ({ variable, programs }: SystemPackage): string | undefined {
  const named = process.env[variable]
  // A path that somebody named and that is wrong must not be papered over by another browser.
  if (named) return isProgram(named) ? named : undefined
  // Debian keeps servers where not everybody's PATH leads.
  const folders = [...(process.env.PATH ?? '').split(delimiter).filter(Boolean), '/usr/sbin']
  return programs.flatMap(program => folders.map(folder => join(folder, program))).find(isProgram)
}

function isProgram (path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return statSync(path).isFile()
  } catch {
    return false
  }
}

function advice (missing: readonly SystemPackage[]): string {
  const rows = missing.map(
    ({ for: use, debian, variable, programs }) =>
      `  ${debian}, for the ${use}: none of ${programs.join(', ')} on PATH, and ${variable} ` +
      (process.env[variable] ? 'names no program' : 'is not set')
  )
  return [
    'The tests need from this system:',
    ...rows,
    `On Debian, as root: apt-get update && apt-get install -y ${missing.map(({ debian }) => debian).join(' ')}`
  ].join('\n')
}

function install (missing: readonly SystemPackage[]): void {
  const names = missing.map(({ debian }) => debian)
  console.log(`installing for the tests: ${names.join(' ')}`)
  run('apt-get', ['update'])
  // Waits for another apt-get instead of failing beside it.
  run('apt-get', ['-o', 'DPkg::Lock::Timeout=120', 'install', '-y', '--no-install-recommends', ...names])
}

/** Runs a command; what it prints is shown only when it fails. */
function run (command: string, args: readonly string[]): void {
  const { status, error, stdout, stderr } = spawnSync(command, args, {
    encoding: 'utf8',
    env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: 10 * 60_000,
    maxBuffer: 64 * 1024 * 1024
  })
  if (status === 0) return
  throw new Error(`${command} ${args.join(' ')} failed (${error?.message ?? `exit ${status}`})\n${stdout}${stderr}`)
}

function missingPackages (): SystemPackage[] {
  return Object.values(packages).filter(wanted => locate(wanted) === undefined)
}

function main (): void {
  const missing = missingPackages()
  if (missing.length === 0) return
  const mayInstall = process.getuid?.() === 0 && isProgram('/usr/bin/apt-get') &&
    missing.every(({ variable }) => !process.env[variable])
  if (mayInstall) install(missing)
  const still = missingPackages()
  if (still.length > 0) throw new Error(advice(still))
}

if (import.meta.main) {
  try {
    main()
  } catch (error) {
    console.error(error instanceof Error ? error.message : error)
    process.exitCode = 1
  }
}
