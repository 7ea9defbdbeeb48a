import { join } from 'node:path'
import { parseEnv } from 'node:util'
import type { Environment } from './environment.ts'
import { type ReadFile, readText, reasonOf, SettingsError } from './problems.ts'

/**
 * The variables in the `.env` file of a folder, none when there is no such file. The real environment wins: `{
 * ...readDotEnv(cwd), ...process.env }`. Throws a `SettingsError` when the file is there and can not be read.
 */
export function readDotEnv (cwd: string, readFile: ReadFile = readText): Environment {
  const path = join(cwd, '.env')
  try {
    return parseEnv(readFile(path))
  } catch (error) {
    const reason = reasonOf(error)
    if (reason === 'ENOENT') return {}
    const problem = `can not be read (${reason})`
    throw new SettingsError([{ setting: '.env', source: path, problem, expected: 'a text file, or none' }])
  }
}
