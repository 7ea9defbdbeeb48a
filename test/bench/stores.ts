import { mkdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { sqliteStore } from '../../src/adapters/sqlite/store.ts'
import { cpus, freePort, type Running, start } from './process.ts'
import { gateway } from './gateways.ts'
import type { Stage, Target } from './targets.ts'

const dayMs = 86_400_000

/** `npm run bench -- --stores`: the same gateway with other ledgers, and with none. */
export async function startStores (stage: Stage, tasks: number, callers: number): Promise<Target[]> {
  const redis = stage.started(await startRedis(stage))
  const full = join(stage.folder, `${tasks}-tasks.db`)
  const targets = [
    await gateway(stage, {
      name: 'no ledger',
      command: [join(import.meta.dirname, 'programs/no-ledger.ts')],
      store: 'sqlite::memory:'
    }, callers),
    await gateway(stage, { name: 'SQLite' }, callers),
    await gateway(stage, {
      name: `SQLite, ${tasks} tasks`,
      store: `sqlite:${full}`,
      prepare: async () => fill(full, tasks)
    }, callers),
    await gateway(stage, { name: 'Redis', store: `redis://127.0.0.1:${redis.port}` }, callers)
  ]
  console.log(`${tasks} tasks are a file of ${Math.round(statSync(full).size / 1e6)} MB`)
  return targets
}

/** As the compose file runs it, but on this machine's disk. It shares a processor with load and upstream. */
export async function startRedis ({ folder }: Pick<Stage, 'folder'>): Promise<Running> {
  const port = await freePort()
  const home = join(folder, 'redis')
  mkdirSync(home)
  return await start({
    name: 'redis',
    command: [
      'redis-server',
      '--port',
      String(port),
      '--bind',
      '127.0.0.1',
      '--dir',
      home,
      '--save',
      '',
      '--appendonly',
      'yes',
      '--appendfsync',
      'everysec',
      '--maxmemory-policy',
      'noeviction'
    ],
    cpu: cpus.others,
    port,
    readyPath: null,
    env: {},
    cwd: home,
    logFile: join(folder, 'redis.log')
  })
}

/** A ledger of finished tasks of a thousand subjects, made over the thirty days before now. */
export function fill (path: string, tasks: number): void {
  const terms = { reservedMs: 1, sentMs: 1, giveUpMs: 1, refundsPerPeriod: 1, retentionMs: 30 * dayMs }
  sqliteStore({ path, terms, synchronous: 'normal', now: Date.now }).close().catch(() => {})
  const db = new DatabaseSync(path)
  const began = Date.now() - 29 * dayMs
  db.exec('BEGIN')
  const task =
    db.prepare(`INSERT INTO tasks (id, subject, operation, model, key_id, stage, task_id, microcredits, refundable, period_start,
      created_at, lease_until, ended_at, state)
    VALUES (?, ?, 'generateTask', 'nano-banana', 'key-1', 'settled', ?, 1000000, 1, ?, ?, ?, ?, 'success')`)
  const answer = db.prepare('INSERT INTO answers (id, body) VALUES (?, ?)')
  const body = (taskId: string) =>
    Buffer.from(
      JSON.stringify({
        code: 200,
        message: 'success',
        data: {
          taskId,
          state: 'success',
          resultJson: `{"resultUrls":["https://file.apixo.ai/temp/${taskId}.png"]}`,
          costTime: 12_500
        }
      })
    )
  for (let id = 1; id <= tasks; id++) {
    const at = began + Math.floor(id / tasks * 29 * dayMs)
    // No order in them, as in the ones that were seen.
    const taskId = `${(Math.imul(id, 0x9e3779b1) >>> 0).toString(16).padStart(8, '0')}${id.toString(16).padStart(24, '0')}`
    task.run(id, `app:filler-${id % 1000}`, taskId, at - (at % dayMs), at, at, at + 15_000)
    answer.run(id, body(taskId))
  }
  db.exec('COMMIT; PRAGMA wal_checkpoint(TRUNCATE)')
  db.close()
}
