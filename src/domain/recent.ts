import { LRUCache } from 'lru-cache'

/**
 * The entries that were used last, at most so many. It takes memory as it fills: by its `max` alone a cache would set
 * aside all of it at once, which for 100,000 entries costs 10 ms and several megabytes of each start.
 */
export function recent<Value extends {}> (
  entries: number, options: Pick<LRUCache.Options<string, Value, unknown>, 'memoMethod'> = {}
): LRUCache<string, Value> {
  return new LRUCache({ ...options, maxSize: entries, sizeCalculation: () => 1 })
}
