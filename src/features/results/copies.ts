import { createHash, randomUUID } from 'node:crypto'
import { createWriteStream } from 'node:fs'
import { type FileHandle, mkdir, open, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import type { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import type { Task, TaskLedger } from '../../domain/ledger.ts'
import {
  type ByteRange, byteRange, freedPieces, namesTag, type ResultAnswer, type ResultAsk, type ResultRef,
  type ResultSource, resultUrls
} from '../../domain/results.ts'
import { type Clock, dayMs, hourMs } from '../../domain/time.ts'

/** Where the copies are: beside the ledger's file, or where the gateway was started. */
export function copiesDirectory (store: { readonly kind: string, readonly path?: string }): string {
  return store.kind === 'sqlite' && store.path !== undefined && store.path !== ':memory:'
    ? join(dirname(store.path), 'results')
    : resolve('data/results')
}

interface KeptResultsOptions extends Clock {
  /** Made when the first result is kept. Nobody else writes into it. */
  readonly directory: string
  /** Where results come from, and are fetched from while there is no copy. */
  readonly results: ResultSource
  readonly taskOf: TaskLedger['taskOf']
  /** How long a copy is kept at least, from the day its task was made. */
  readonly retentionMs: number
  /** Told when a copy could not be made; the next call for that result tries again. */
  readonly onTrouble: (error: unknown, taskId: string) => void
}

/** Results with copies on the disk of this machine: served from there, and longer than the upstream keeps them. */
export interface KeptResults extends ResultSource {
  /** Copies the results of a task that has ended, in the background. Nobody waits for it, and it never throws. */
  keep (taskId: string): void
  /** Forgets copies that are past their retention. It looks once an hour at most. */
  tidy (): Promise<void>
  /** Resolves when no copy is being made. */
  idle (): Promise<void>
}

/** Copies made at a time, and results that wait for their turn; one more is copied when somebody asks for it. */
const maxCopies = 2
const maxWaiting = 10_000
/** Read from the disk at a time, and written to it at a time, of one result: each time is a turn of the thread pool. */
const pieceBytes = 262_144

/**
 * Copies lie in one folder a day, by the day their task was made, so that forgetting is the removal of folders; they
 * are named by a hash, so that no upstream chooses a path. A copy is there when its file is, which gets its name last:
 * readers never see half of one, and a crash leaves nothing but a file that goes with its folder.
 */
export function resultCache (options: KeptResultsOptions): KeptResults {
  const { results, taskOf, directory, now, elapsed, onTrouble } = options
  const copies = copier(options)
  let tidiedAt = -Infinity

  const keepAll = async (taskId: string): Promise<void> => {
    const task = await taskOf(taskId)
    if (task !== null) for (const [index, url] of resultUrls(task).entries()) copies.enqueue({ url, task, index })
  }

  return {
    async fetch (result, ask, signal) {
      const kept = await openCopy(pathOf(directory, result))
      if (kept !== null) return await answerFrom(kept, ask)
      const answer = await results.fetch(result, ask, signal)
      if (answer !== null) copies.enqueue(result)
      return answer
    },
    keep (taskId) {
      keepAll(taskId).catch((error: unknown) => onTrouble(error, taskId))
    },
    idle: copies.idle,
    async tidy () {
      if (elapsed() - tidiedAt < hourMs) return
      tidiedAt = elapsed()
      // A task may run for a day, and a day is not over at once.
      await forgetBefore(directory, dayOf(now() - options.retentionMs - 2 * dayMs))
    },
    async close () {
      await copies.close()
      await results.close()
    }
  }
}

/** Makes copies in the background, a few at a time and each once. */
function copier ({ results, directory, onTrouble }: KeptResultsOptions) {
  const ended = new AbortController()
  const waiting = new Map<string, ResultRef>()
  const copying = new Map<string, Promise<void>>()

  const copyNext = (): void => {
    const [path, result] = waiting.entries().next().value ?? []
    if (path === undefined || copying.size >= maxCopies) return
    waiting.delete(path)
    copying.set(path, copy(results, result!, path, ended.signal)
      .catch((error: unknown) => { if (!ended.signal.aborted) onTrouble(error, result!.task.taskId) })
      .finally(() => {
        copying.delete(path)
        copyNext()
      }))
  }

  return {
    enqueue (result: ResultRef): void {
      const path = pathOf(directory, result)
      if (ended.signal.aborted || copying.has(path) || waiting.size >= maxWaiting) return
      waiting.set(path, result)
      copyNext()
    },
    async idle (): Promise<void> {
      while (copying.size > 0) await Promise.all(copying.values())
    },
    async close (): Promise<void> {
      ended.abort()
      waiting.clear()
      await Promise.all(copying.values())
    }
  }
}

/** What is written down beside a copy. */
interface Facts extends Pick<ResultAnswer, 'contentType' | 'etag' | 'lastModified'> { readonly bytes: number }
interface Copy { readonly file: FileHandle, readonly facts: Facts }

function pathOf (directory: string, { task, index }: ResultRef): string {
  const name = createHash('sha256').update(JSON.stringify([task.taskId, task.subject, index])).digest('hex')
  return join(directory, dayOf(task.createdAt), name)
}

function dayOf (at: number): string {
  return new Date(at).toISOString().slice(0, 10)
}

async function copy (results: ResultSource, result: ResultRef, path: string, signal: AbortSignal): Promise<void> {
  const earlier = await openCopy(path)
  if (earlier !== null) return await earlier.file.close()
  const answer = await results.fetch(result, {}, signal)
  if (answer?.body == null) return // gone already
  const half = `${path}.${randomUUID()}`
  try {
    await mkdir(join(path, '..'), { recursive: true, mode: 0o700 })
    const file = createWriteStream(half, { flags: 'wx', mode: 0o600, highWaterMark: pieceBytes })
    await pipeline(answer.body, file, { signal })
    const { contentType, etag, lastModified } = answer
    await writeFile(
      `${path}.json`,
      JSON.stringify({ contentType, etag, lastModified, bytes: file.bytesWritten } satisfies Facts),
      { mode: 0o600 }
    )
    await rename(half, path)
  } catch (error) {
    answer.body.destroy()
    await rm(half, { force: true })
    throw error
  }
}

/** `null` when there is no copy, or none that can be read: then it is as if there were none. */
async function openCopy (path: string): Promise<Copy | null> {
  const file = await open(path).catch(() => null)
  if (file === null) return null
  try {
    const facts = JSON.parse(await readFile(`${path}.json`, 'utf8')) as Facts
    if ((await file.stat()).size === facts.bytes) return { file, facts }
  } catch { /* as good as none */ }
  await file.close()
  return null
}

/** A copy is answered as its host would have done (RFC 9110 sections 13.1.2, 13.1.5 and 14.2). */
async function answerFrom (
  { file, facts: { bytes, ...facts } }: Copy,
  { range, ifRange, ifNoneMatch }: ResultAsk
): Promise<ResultAnswer> {
  const answer = { ...facts, acceptsRanges: true, contentRange: null, length: null, body: null }
  if (ifNoneMatch !== undefined && facts.etag !== null && namesTag(ifNoneMatch, facts.etag)) {
    await file.close()
    return { ...answer, status: 304 }
  }
  const isSame =
    ifRange === undefined || ifRange === facts.lastModified || (ifRange === facts.etag && !ifRange.startsWith('W/'))
  if (range === undefined || !isSame) return { ...answer, status: 200, length: bytes, body: read(file) }
  const part = byteRange(range, bytes)
  if (part === null) {
    await file.close()
    return { ...answer, status: 416, contentRange: `bytes */${bytes}` }
  }
  const { start, end } = part
  return {
    ...answer,
    status: 206,
    length: end - start + 1,
    contentRange: `bytes ${start}-${end}/${bytes}`,
    body: read(file, part)
  }
}

function read (file: FileHandle, part?: ByteRange): Readable {
  return freedPieces(file.createReadStream({ ...part, highWaterMark: pieceBytes }))
}

/** Deletes the copies of a task from a directory of copies, where there are any. */
export async function forgetCopies (directory: string, task: Task): Promise<void> {
  for (const [index, url] of resultUrls(task).entries()) {
    const path = pathOf(directory, { url, task, index })
    for (const file of [path, `${path}.json`]) await rm(file, { force: true })
  }
}

async function forgetBefore (directory: string, day: string): Promise<void> {
  const folders = await readdir(directory).catch(() => [])
  for (const folder of folders) {
    if (/^\d{4}-\d\d-\d\d$/.test(folder) && folder < day) {
      await rm(join(directory, folder), { recursive: true, force: true })
    }
  }
}
