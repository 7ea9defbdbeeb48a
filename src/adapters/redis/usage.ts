import { Cluster, type Redis } from 'ioredis'
import type { UsageRow, UsageSpan } from '../../domain/ledger/records.ts'
import type { Commands } from './commands.ts'
import { type KeyNames, usageKey } from './key-names.ts'

type Sums = Omit<UsageRow, 'day' | 'subject' | 'model'>

const keysPerScan = 1000
const readAtOnce = 100

/** Walks over all keys (`SCAN` holds nobody up, but is not quick) and adds up nothing: the sums are kept with each task. */
export async function redisUsage ({ ask }: Commands, keys: KeyNames, { from, to }: UsageSpan): Promise<readonly UsageRow[]> {
  const names = await ask(client => namesLike(client, keys.usageOf(sharedStart(from, to))))
  const inSpan = names.filter(name => usageKey(name).day >= from && usageKey(name).day <= to)
  const rows: UsageRow[] = []
  for (let start = 0; start < inSpan.length; start += readAtOnce) {
    const found = await Promise.all(inSpan.slice(start, start + readAtOnce).map(async name =>
      rowsOf(name, await ask(client => client.hgetall(name)))))
    rows.push(...found.flat())
  }
  return rows.sort((one, other) =>
    inOrder(one.day, other.day) || inOrder(one.subject, other.subject) || inOrder(one.model, other.model))
}

async function namesLike (client: Redis | Cluster, pattern: string): Promise<string[]> {
  const found = new Set<string>() // a key may come twice
  for (const node of client instanceof Cluster ? client.nodes('master') : [client]) {
    let cursor = '0'
    do {
      const [next, names] = await node.scan(cursor, 'MATCH', pattern, 'COUNT', keysPerScan)
      for (const name of names) found.add(name)
      cursor = next
    } while (cursor !== '0')
  }
  return [...found]
}

function rowsOf (name: string, sums: Readonly<Record<string, string>>): UsageRow[] {
  const models = new Map<string, Partial<Record<keyof Sums, number>>>()
  for (const [field, sum] of Object.entries(sums)) {
    const [, what, model] = /^(\w+):(.*)$/s.exec(field)!
    models.set(model!, { ...models.get(model!), [what!]: Number(sum) })
  }
  return [...models].map(([model, sums]) =>
    ({ ...usageKey(name), model, tasks: 0, succeeded: 0, failed: 0, unknown: 0, microcredits: 0, ...sums }))
}

function sharedStart (one: string, other: string): string {
  const end = [...one].findIndex((character, index) => character !== other[index])
  return end === -1 ? one : one.slice(0, end)
}

function inOrder (one: string, other: string): number {
  return Number(one > other) - Number(one < other)
}
