import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import t, { type Test } from 'tap'
import { latestVersion, type Upgrade } from '../../src/adapters/sqlite/migrations.ts'
import type { Store } from '../../src/domain/store.ts'
import { answer } from '../contracts/open-books.ts'
import { clock } from '../helpers/clock.ts'
import { startGateway } from '../helpers/gateway.ts'
import { root } from '../helpers/program.ts'
import { claimed, fileOf, open, reserve, visit } from './sqlite-files.ts'

/** What the code of these versions had in its file at the end of one day, and the version of that file. */
const releases = { '0.3.0': 6, '0.4.0': 9 }
type Release = keyof typeof releases

const alice = 'app:alice'
const periodStart = Date.UTC(2026, 0, 1)
const all = { cursor: null, limit: 50 }
const january = { from: '2026-01-01', to: '2026-01-31' }
const time = clock(Date.UTC(2026, 0, 15, 12, 1))

function ledgerOf (t: Test, release: Release): string {
  const path = fileOf(t)
  const db = new DatabaseSync(path)
  db.exec(readFileSync(join(root, `test/helpers/ledger-${release}.sql`), 'utf8'))
  db.close()
  return path
}

function upgraded (t: Test, path: string): { readonly store: Store, readonly upgrades: readonly Upgrade[] } {
  const upgrades: Upgrade[] = []
  return { store: open(t, path, { now: time.now, onUpgrade: upgrade => upgrades.push(upgrade) }), upgrades }
}

/** All that is in it, but what a start writes. */
const contentOf = (path: string): unknown => {
  const db = new DatabaseSync(path, { readOnly: true })
  const names = db.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name").all()
  const content = names.map(({ name }) => [name, db.prepare(`SELECT * FROM ${name}`).all()])
  const version = db.prepare('PRAGMA user_version').get()
  db.close()
  return { content, version }
}

const schemaOf = (path: string): unknown => {
  const db = new DatabaseSync(path, { readOnly: true })
  const schema = db.prepare('SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name').all()
  db.close()
  return schema
}

for (const [release, version] of Object.entries(releases) as Array<[Release, number]>) {
  t.test(`a ledger of ${release} is brought up to date with all that is in it`, async t => {
    const { store } = upgraded(t, ledgerOf(t, release))
    const { ledger, accounts, records } = store
    t.equal(store.lost, 1)
    t.same((await records.tasksOf(alice, all)).items.map(({ id, taskId, stage, refunded }) => [
      id, taskId, stage, ...refunded ? ['refunded'] : []
    ]), [
      ['11', 'found after it was let go', 'claimed', 'refunded'],
      ['10', null, 'unknown', 'refunded'],
      ['9', null, 'unknown'],
      ['7', 'partly granted', 'claimed'],
      ['6', 'told', 'claimed'],
      ['4', 'running with a key', 'claimed'],
      ['3', 'running', 'claimed'],
      ['2', 'failed', 'settled', 'refunded'],
      ['1', 'done', 'settled']
    ])
    t.same(await accounts.balanceOf(alice, periodStart), { used: 100, granted: 25, unfinished: 5 })
    t.same(await accounts.balanceOf('app:guest', periodStart), { used: 5, granted: 0, unfinished: 1 })
    t.same(await accounts.balanceOf('app:bob', periodStart), { used: 5, granted: 0, unfinished: 0 })
    t.same(await accounts.spentIn('app:guest', 'guest-1'), { uses: 1, microcredits: 5 })
    t.same((await records.unknowns(all)).items.map(({ id }) => id), ['9', '12'])
    t.match(await records.usage(january), [
      { subject: alice, tasks: 9, succeeded: 1, failed: 1, unknown: 2, microcredits: 115 },
      { subject: 'app:bob', tasks: 1, unknown: 1, microcredits: 5 },
      { subject: 'app:guest', tasks: 1, microcredits: 5 }
    ].map(({ unknown, ...row }) => row))
    t.match(await store.idempotency.earlier(alice, { key: 'one', fingerprint: 'print' }), { kind: 'answered' })
    t.match(await store.callbackSecrets.reservationOf('hash'), { reservation: '6', task: { taskId: 'told' } })
    t.match(await store.deliveries.of('told'), { url: 'https://app.example/hook', nextAt: null })
    t.match(await ledger.taskOf('done'), { stage: 'settled', finalAnswer: /success/ })
    t.match(await store.audit.read(all), { items: [{ kind: 'grant', actor: 'cli' }] })

    for (const { taskId } of (await records.tasksOf(alice, all)).items) {
      if (taskId !== null) await ledger.settle({ taskId, state: 'failed', answer })
    }
    t.same(await accounts.balanceOf(alice, periodStart), { used: 15, granted: 35, unfinished: 0 }, 'two more refunds')
    t.equal(await records.release('9'), true)
    t.match(await accounts.balanceOf(alice, periodStart), { used: 15, granted: 40 })
    t.equal(await reserve(store), '13')
  })

  t.test(`a ledger of ${release} has the tables and indexes of a new one, and is whole`, async t => {
    const path = ledgerOf(t, release)
    await upgraded(t, path).store.close()
    const fresh = join(dirname(path), 'fresh.db')
    await open(t, fresh).close()
    t.same(schemaOf(path), schemaOf(fresh))
    const db = visit(t, path)
    t.same(db.prepare('PRAGMA foreign_key_check').all(), [])
    t.match(db.prepare('PRAGMA integrity_check').all(), [{ integrity_check: 'ok' }])
  })

  t.test(`what ${release} had stays in a copy, which its owner alone reads and no later start touches`, async t => {
    const path = ledgerOf(t, release)
    const before = contentOf(path)
    const first = upgraded(t, path)
    const copy = `${path}.version-${version}`
    t.same(first.upgrades, [{ from: version, to: latestVersion, copy }])
    t.equal(statSync(copy).mode & 0o777, 0o600)
    await first.store.close()
    const second = upgraded(t, path)
    t.same(second.upgrades, [])
    await claimed(second.store, 'new')
    t.same(contentOf(copy), before)
  })

  t.test(`a crash in the middle leaves the ledger of ${release} as it was, and the next start does it all`, async t => {
    const path = ledgerOf(t, release)
    const before = contentOf(path)
    const killed = spawnSync(process.execPath, ['--no-warnings', '--input-type=module', '-e', `
      import { DatabaseSync } from 'node:sqlite'
      import { sqliteStore } from './src/adapters/sqlite/store.ts'
      const { exec } = DatabaseSync.prototype
      DatabaseSync.prototype.exec = function (sql) {
        const end = sql.indexOf('PRAGMA user_version = ${latestVersion}')
        exec.call(this, end === -1 ? sql : sql.slice(0, end))
        if (end !== -1) process.kill(process.pid, 'SIGKILL')
      }
      sqliteStore({ path: process.argv[1], terms: {}, now: Date.now, synchronous: 'normal' })`, path], { cwd: root })
    t.equal(killed.signal, 'SIGKILL', killed.stderr.toString())
    const db = visit(t, path)
    t.match(db.prepare('PRAGMA user_version').get(), { user_version: latestVersion - 1 })
    db.close()
    if (version === latestVersion - 1) t.same(contentOf(path), before)
    const { store } = upgraded(t, path)
    t.match(await store.accounts.balanceOf(alice, periodStart), { used: 100, granted: 25, unfinished: 5 })
    t.equal((await store.records.tasksOf(alice, all)).items.length, 9)
  })
}

t.test('a copy that a crash left half done is made anew', async t => {
  const path = ledgerOf(t, '0.4.0')
  writeFileSync(`${path}.version-9.unfinished`, 'half of it')
  const { store } = upgraded(t, path)
  t.equal(store.lost, 1)
  await store.close()
  t.same(readdirSync(dirname(path)).filter(name => name.includes('version')), [`${basename(path)}.version-9`])
})

t.test('a copy that the disk has no room for in the end leaves nothing behind', async t => {
  const path = ledgerOf(t, '0.4.0')
  const db = visit(t, path)
  db.exec(`WITH RECURSIVE counted (id) AS (VALUES (1) UNION ALL SELECT id + 1 FROM counted WHERE id < 10000)
    INSERT INTO audit (at, kind, actor, detail) SELECT 0, 'grant', 'cli', '"' || hex(zeroblob(300)) || '"' FROM counted`)
  db.close()
  const before = contentOf(path)
  const start = `
    import { sqliteStore } from './src/adapters/sqlite/store.ts'
    sqliteStore({ path: process.argv[1], terms: {}, now: Date.now, synchronous: 'normal' })`
  // No file may be longer than that many blocks of 512 bytes.
  const { status, stderr } = spawnSync('sh', ['-c', 'ulimit -f 2000; exec "$0" "$@"',
    process.execPath, '--no-warnings', '--input-type=module', '-e', start, path], { cwd: root })
  t.equal(status, 1)
  t.match(stderr.toString(), /the ledger \S+ can not be opened: /)
  t.same(readdirSync(dirname(path)).filter(name => name.includes('version')), [])
  t.same(contentOf(path), before)
  t.equal(upgraded(t, path).upgrades.length, 1)
})

t.test('a ledger for whose copy there is no room is left as it was, and the start says how much it takes', async t => {
  const path = ledgerOf(t, '0.4.0')
  const before = contentOf(path)
  const folders: string[] = []
  const freeBytes = (folder: string) => {
    folders.push(folder)
    return 200_000
  }
  t.throws(() => open(t, path, { freeBytes }), {
    message: `the ledger ${path} can not be opened: it has version 9, and to bring it to ${latestVersion} needs 1 MB free ` +
      'beside it for a copy and the work: there are 1 MB'
  })
  t.same(folders, [dirname(path)])
  t.notOk(existsSync(`${path}.version-9`))
  t.same(contentOf(path), before)
})

t.test('a new ledger, and one that is up to date, are not copied', async t => {
  const path = fileOf(t)
  for (let start = 0; start < 2; start++) {
    const { store, upgrades } = upgraded(t, path)
    await store.close()
    t.same(upgrades, [])
  }
  t.same(readdirSync(dirname(path)).filter(name => name.includes('version')), [])
})

t.test('the log names the copy that was kept, and what the file was and is', async t => {
  const path = ledgerOf(t, '0.4.0')
  const copy = `${path}.version-9`
  await t.test('at the start of a gateway', async t => { // whose settings have a folder of their own
    const { log } = await startGateway(t, { store: path, time: clock(time.now()) })
    t.match(log.filter(({ copy }) => copy !== undefined), [{ level: 40, copy, from: 9, to: latestVersion }])
  })
  t.ok(existsSync(copy))
})
