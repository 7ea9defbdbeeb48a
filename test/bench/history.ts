import { spawnSync } from 'node:child_process'
import { copyFileSync, existsSync, mkdirSync, readFileSync, rmSync, symlinkSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'

/**
 * An earlier version of this gateway from this repository's own history, to be measured beside today's: what it was is
 * then measured on this machine, at this moment, and not read from an old table.
 */
export interface Earlier {
  readonly version: string
  readonly commit: string
}

export const earlier: Earlier = { version: '0.3.0', commit: 'fe741b4' }

const root = join(import.meta.dirname, '../..')

/** Node strips no types below `node_modules`, so that this can not be a folder in there. */
const kept = join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'apixo-gateway-bench')

type Packages = Record<string, { readonly version?: string, readonly dev?: boolean, readonly optional?: boolean }>

/** Whether each package that a version needs for a run is one of ours, in the very version of its lockfile. */
export function fits (theirLockfile: string, ourLockfile: string): boolean {
  const packagesOf = (lockfile: string) => (JSON.parse(lockfile) as { packages: Packages }).packages
  const ours = packagesOf(ourLockfile)
  return Object.entries(packagesOf(theirLockfile))
    .filter(([folder, { dev, optional }]) => folder !== '' && dev !== true && optional !== true)
    .every(([folder, { version }]) => ours[folder]?.version === version)
}

/** Puts the files of that version into a folder. False: they are not in this clone, which is shallow. */
function extract (commit: string, folder: string): boolean {
  const found = spawnSync('git', ['cat-file', '-e', `${commit}^{commit}`], { cwd: root, stdio: 'ignore' })
  if (found.status !== 0) return false
  mkdirSync(folder, { recursive: true })
  const { status, stdout } = spawnSync('git', ['archive', commit], { cwd: root, maxBuffer: 2 ** 30 })
  if (status !== 0) return false
  return spawnSync('tar', ['-x', '-C', folder], { input: stdout }).status === 0
}

/**
 * The folder of a version that can be started, or a sentence why there is none. With our own packages where its
 * lockfile asks for the same; else with its own, if they were installed before or `install` allows it.
 */
export function checkOut (wanted: Earlier, folder: string, install: boolean): { readonly folder: string } | string {
  const { version, commit } = wanted
  const target = join(folder, version)
  if (!existsSync(target) && !extract(commit, target)) {
    rmSync(target, { recursive: true, force: true })
    return `${version} (${commit}) is not in this clone: \`git fetch --unshallow\` brings it`
  }
  const lockfile = readFileSync(join(target, 'package-lock.json'), 'utf8')
  const packages = fits(lockfile, readFileSync(join(root, 'package-lock.json'), 'utf8'))
    ? join(root, 'node_modules')
    : ownPackages(wanted, target, install)
  if (packages === null) return `${version} has packages of its own: run \`npm run bench -- --install\` once`
  if (!existsSync(join(target, 'node_modules'))) symlinkSync(packages, join(target, 'node_modules'))
  return { folder: target }
}

/** Its packages by its own lockfile, installed once and kept. */
function ownPackages ({ version, commit }: Earlier, files: string, install: boolean): string | null {
  const home = join(kept, `${version}-${commit}`)
  const packages = join(home, 'node_modules')
  if (existsSync(packages)) return packages
  if (!install) return null
  mkdirSync(home, { recursive: true })
  for (const file of ['package.json', 'package-lock.json']) copyFileSync(join(files, file), join(home, file))
  const args = ['ci', '--omit=dev', '--omit=optional', '--ignore-scripts', '--no-audit', '--no-fund']
  return spawnSync('npm', args, { cwd: home, stdio: 'inherit' }).status === 0 ? packages : null
}
