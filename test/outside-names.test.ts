import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { session, token, webhookSecret } from '../src/cli/access.ts'
import { credits } from '../src/cli/credits.ts'
import { audit, unknown, usage } from '../src/cli/operator.ts'
import { check, demo, health, start } from '../src/cli/server.ts'
import { errorTable } from '../src/errors.ts'
import { environmentVariables } from '../src/settings.ts'
import { cliWords, keysOf, type OutsideNames, outsideNames, redisNames, sqliteNames } from './helpers/outside-names.ts'
import { root } from './helpers/program.ts'
import { redisServer } from './helpers/redis-server.ts'
import { storeFile } from './helpers/store-file.ts'

const read = (path: string) => JSON.parse(readFileSync(join(root, path), 'utf8'))
/** What version 0.3.0 showed of itself, in the same day of a gateway's life. */
const recorded: OutsideNames = read('test/names-0.3.0.json')

/** Of 0.3.0, what is not among these. */
const gone = (kind: string, names: readonly string[]): string[] => {
  if (recorded[kind] === undefined) throw new Error(`nothing was recorded of ${kind}`)
  return recorded[kind].filter(name => !names.includes(name))
}

t.test('settings and errors of 0.3.0 have their names', async t => {
  t.strictSame(gone('variables', environmentVariables.map(({ name }) => name)), [])
  t.strictSame(gone('settings', [...keysOf(read('config/gateway.schema.json'))]), [])
  t.strictSame(gone('errors', errorTable.map(({ code, status }) => `${code} ${status}`)), [])
})

t.test('the command line knows the words of 0.3.0', async t => {
  const commands = { audit, check, credits, demo, health, session, start, token, unknown, usage, webhookSecret }
  t.strictSame(gone('cli', Object.values(commands).flatMap(({ usage }) => cliWords(usage))), [])
})

t.test('a day of a gateway shows the names of 0.3.0, over SQLite', async t => {
  const file = storeFile(t)
  const names = await outsideNames(t, { file })
  for (const kind of ['routes', 'fields', 'log', 'audit', 'metrics']) t.strictSame(gone(kind, names[kind]!), [], kind)
  t.strictSame(gone('sqlite', sqliteNames(file)), [])
})

t.test('and over Redis', async t => {
  const { url } = await redisServer(t)
  const names = await outsideNames(t, { url })
  for (const kind of ['routes', 'fields', 'log', 'audit', 'metrics']) t.strictSame(gone(kind, names[kind]!), [], kind)
  t.strictSame(gone('redis', await redisNames(url)), [])
})
