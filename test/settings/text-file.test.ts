import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { isLasting, readText, InvalidSetting } from '../../src/settings/problems.ts'
import { gatewayEnvironment } from '../helpers/gateway-process.ts'
import { root } from '../helpers/program.ts'
import { apiKey, load, problemsOf } from './fixture.ts'

function namedPipe (t: Test): string {
  const path = join(t.testdir({}), 'pipe')
  execFileSync('mkfifo', [path])
  return path
}

t.test('a file is read up to its bound, and no further', async t => {
  const path = join(t.testdir({ 'a.txt': 'ключ\n'.repeat(10_000) }), 'a.txt')
  t.equal(readText(path), 'ключ\n'.repeat(10_000))
  t.equal(readText(path, 90_000).length, 50_000)
  t.throws(() => readText(path, 89_999), new InvalidSetting('has more than 89999 bytes'))
  t.throws(() => readText(`${path}.gone`), { code: 'ENOENT' })
  t.throws(() => readText(t.testdirName), { code: 'EISDIR' })
  t.equal(readText('/dev/null'), '')
})

t.test('a file without an end is refused at once, wherever it is named', t => {
  t.match(problemsOf(t, { env: { APIXO_API_KEY: '', APIXO_API_KEY_FILE: '/dev/zero' } }), [
    { setting: 'APIXO_API_KEY', problem: /^APIXO_API_KEY_FILE names no readable file \(has more than 65536 bytes; / }
  ])
  t.match(problemsOf(t, { env: { GATEWAY_CONFIG: '/dev/zero' } }), [
    { setting: 'GATEWAY_CONFIG', problem: 'can not be read (has more than 4194304 bytes)' }
  ])
  t.match(
    problemsOf(t, { yaml: 'plans: { default: {} }\nguests: { proof: turnstile, turnstileSecretFile: /dev/zero }' }),
    [{ setting: 'guests.turnstileSecretFile', problem: 'names no readable file (has more than 65536 bytes)' }]
  )
  t.end()
})

t.test('a pipe is waited for, but not for ever', async t => {
  const path = namedPipe(t)
  t.throws(() => readText(path, 10, 20), new InvalidSetting('does not come to an end'), 'nobody writes to it')
  const end = openSync(path, 'r+')
  writeSync(end, 'half of')
  t.throws(
    () => readText(path, 10, 20),
    new InvalidSetting('does not come to an end'),
    'whoever writes to it does not end'
  )
  closeSync(end)
  const writer = spawn('sh', ['-c', `sleep 0.1; printf "${apiKey}" > "${path}"`])
  t.equal(readText(path), apiKey)
  await once(writer, 'close')
})

t.test('a pipe has said all: nobody follows what becomes of it', async t => {
  t.notOk(isLasting(namedPipe(t)))
  t.notOk(isLasting('/dev/zero'))
  t.ok(isLasting(import.meta.filename))
  t.ok(isLasting('/nowhere/at/all'), 'it may come back')
  const { secretFiles, apiKeys } = load(t, {
    env: { APIXO_API_KEY: '', APIXO_API_KEY_FILE: 'run/key' },
    files: { 'run/key': apiKey }
  })
  t.same([apiKeys.length, secretFiles.size], [1, 1])
})

t.test('a secret may come on standard input', async t => {
  const cwd = t.testdir({ 'gateway.yaml': 'plans: { default: {} }', 'models.json': '{"models":[]}' })
  const { APIXO_API_KEY, ...env } = gatewayEnvironment('http://127.0.0.1:1')
  const command = `printf "%s\\n" "$KEY" | APIXO_API_KEY_FILE=/dev/stdin '${process.execPath}' '${join(root, 'src/cli.ts')}' check`
  const stdout = execFileSync('sh', ['-c', command], {
    cwd,
    env: { PATH: process.env.PATH, KEY: APIXO_API_KEY, ...env },
    encoding: 'utf8'
  })
  t.match(stdout, /^APIXO_API_KEY +sha256:[0-9a-f]{8} +\(from \/dev\/stdin\)$/m)
})
