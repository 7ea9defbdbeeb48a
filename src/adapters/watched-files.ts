import { watch as watchFolder } from 'node:fs'
import { stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import type { Timers } from '../domain/time.ts'

export interface WatchedFilesOptions {
  readonly paths: readonly string[]
  /** Told when one of them is another than before, is gone or is back, and once at the beginning. It must not throw. */
  readonly onChange: () => void
  readonly timers: Timers
  readonly watch?: WatchFolder
}

/** What is needed of Node's `watch`. It throws when the system can watch no more. */
export type WatchFolder = (path: string, options: { readonly persistent: false }, onEvent: () => void) => FolderWatch

export interface FolderWatch {
  on (event: 'error', stopped: () => void): this
  close (): void
}

export interface WatchedFiles {
  close (): void
}

/** A change counts when it has stood for so long, ms: half of a file that is being written is nobody's secret. */
export const settleMs = 100
/**
 * The files are looked at so often without a word from the system, ms: a network file system says nothing of others'
 * work.
 */
export const pollMs = 2000

/**
 * Watches files that are written in place, renamed over, or swapped by a link on the way to them, as editors and
 * Kubernetes do. Their folders are watched, for a watch on a file stays with it when another takes its name.
 */
export function watchedFiles ({ paths, onChange, timers, watch = watchFolder }: WatchedFilesOptions): WatchedFiles {
  let told: string | null = null
  let seen: string | null = null
  let isClosed = paths.length === 0
  let isLooking = false
  let isAwake = false
  let stopTimer = (): void => {}

  const after = (ms: number): void => {
    stopTimer()
    stopTimer = timers.after(ms, look)
  }
  /** However much goes on in a folder, there is one look every `settleMs`, and one at a time. */
  const wake = (): void => {
    if (isAwake || isClosed) return
    isAwake = true
    if (!isLooking) after(settleMs)
  }
  const folders = [...new Set(paths.map(path => dirname(path)))].map(path => watchedFolder(path, wake, watch))

  const look = async (): Promise<void> => {
    isLooking = true
    isAwake = false
    await Promise.all(folders.map(folder => folder.renew()))
    const stamp = (await Promise.all(paths.map(stampOf))).join()
    isLooking = false
    if (isClosed) return
    const isNew = stamp !== told
    const hasSettled = stamp === seen
    seen = stamp
    if (isNew && hasSettled) {
      told = stamp
      onChange()
    }
    after(isAwake || (isNew && !hasSettled) ? settleMs : pollMs)
  }

  wake()
  return {
    close () {
      isClosed = true
      stopTimer()
      for (const folder of folders) folder.close()
    }
  }
}

/** A folder under watch, and the one that takes its place. */
function watchedFolder (path: string, onEvent: () => void, watch: WatchFolder) {
  let watcher: FolderWatch | undefined
  let watched: string | null = null
  let isClosed = false
  const stop = (): void => {
    watcher?.close()
    watched = null
  }
  return {
    async renew (): Promise<void> {
      const found = await stat(path).then(({ dev, ino }) => `${dev}:${ino}`, () => null)
      if (isClosed || found === watched) return
      stop()
      try {
        watcher = watch(path, { persistent: false }, onEvent).on('error', stop)
        watched = found
      } catch { /* no such folder, or too many watches: the files are looked at now and then all the same */ }
    },
    close (): void {
      isClosed = true
      stop()
    }
  }
}

/** What changes with a file's content and mode. Links are followed: it is the file at their end that counts. */
async function stampOf (path: string): Promise<string> {
  try {
    const { size, mtimeNs, ctimeNs } = await stat(path, { bigint: true })
    return `${size}:${mtimeNs}:${ctimeNs}`
  } catch (error) {
    return String((error as NodeJS.ErrnoException).code)
  }
}
