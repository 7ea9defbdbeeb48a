import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { setTimeout as wait } from 'node:timers/promises'
import type { Test } from 'tap'
import type { Store } from '../../src/domain/store.ts'
import { systemClock } from '../../src/domain/time.ts'
import { createGateway } from '../../src/gateway.ts'
import { openStore } from '../../src/stores.ts'
import type { TestGateway } from './gateway.ts'
import { until } from './until.ts'

/**
 * A file for a store that outlives a gateway, which makes the test's own folder anew at each start. It goes with its
 * test.
 */
export function storeFile (t: Test): string {
  const folder = mkdtempSync(join(tmpdir(), 'gateway-store-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  return join(folder, 'gateway.db')
}

/** Nobody else can write to that store until what this returns is called, or the test has ended. */
export function holdStore (t: Test, path: string): () => void {
  const other = new DatabaseSync(path)
  t.teardown(() => other.close())
  other.exec('BEGIN IMMEDIATE')
  return () => other.exec('COMMIT')
}

/**
 * A submit that waits upstream gets its answer while nobody can write to the store, until its claim is given up. What
 * this resolves with lets the store go.
 */
export async function missedClaim (
  t: Test,
  path: string,
  { sandbox, time }: Pick<TestGateway, 'sandbox' | 'time'>
): Promise<() => void> {
  await until('the upstream has it', () => sandbox.waiting === 1)
  const letGo = holdStore(t, path)
  sandbox.release()
  await wait(100) // it is tried, and tried again
  time.advance(11_000)
  return letGo
}

/** `createGateway` with a part of its store replaced. */
export function overStore (replace: (store: Store) => Partial<Store>): typeof createGateway {
  return async (settings, options = {}) => {
    const { now = systemClock.now, elapsed = systemClock.elapsed } = options
    const store = await openStore(settings, { now, elapsed })
    return await createGateway(settings, { ...options, store: { ...store, ...replace(store) } })
  }
}
