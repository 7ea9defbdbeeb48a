import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import t, { type Test } from 'tap'
import type { Task } from '../../src/domain/ledger.ts'
import type { ResultAnswer, ResultAsk } from '../../src/domain/results.ts'
import { systemClock } from '../../src/domain/time.ts'
import { copiesDirectory, forgetCopies, resultCache } from '../../src/features/results/copies.ts'
import { clock } from '../helpers/clock.ts'
import { until } from '../helpers/until.ts'

const dayMs = 86_400_000
const bytes = Buffer.from('0123456789')
const facts = {
  status: 200,
  contentType: 'image/png',
  length: 10,
  contentRange: null,
  acceptsRanges: true,
  etag: '"one"',
  lastModified: 'Thu, 15 Jan 2026 12:00:00 GMT'
} as const
const { signal } = new AbortController()

type Host = (index: number, ask: ResultAsk, signal: AbortSignal) => Promise<ResultAnswer | null>
const honest: Host = async () => ({ ...facts, body: Readable.from([bytes]) })

/** Copies in a folder of the test, of a host that does as told. `urls` is how many results the one task has. */
function scene (t: Test, host: Host = honest, { urls = 1, directory = join(t.testdir({}), 'results') } = {}) {
  const time = clock()
  const data = {
    state: 'success',
    resultJson: { resultUrls: Array.from({ length: urls }, (_, index) => `https://file.apixo.ai/${index}`) }
  }
  const task = {
    taskId: '../../etc/passwd',
    subject: 'app:alice',
    createdAt: time.now(),
    finalAnswer: Buffer.from(JSON.stringify({ code: 200, data }))
  } as Task
  const fetched: ResultAsk[] = []
  const troubles: unknown[] = []
  let closed = false
  const kept = resultCache({
    directory,
    results: {
      async fetch ({ index }, ask, signal) {
        fetched.push(ask)
        return await host(index, ask, signal)
      },
      async close () {
        closed = true
      }
    },
    taskOf: async id => (id === task.taskId ? task : null),
    retentionMs: 30 * dayMs,
    ...time,
    onTrouble: (error, taskId) => troubles.push([taskId, error])
  })
  t.teardown(() => kept.close())
  const get = (ask: ResultAsk = {}, index = 0) => kept.fetch({ url: '', task, index }, ask, signal)
  const files = () =>
    readdirSync(directory, { recursive: true, withFileTypes: true })
      .filter(entry => entry.isFile())
      .map(({ parentPath, name }) => join(parentPath, name))
      .sort()
  const text = async (answer: ResultAnswer | null) =>
    answer?.body == null ? null : Buffer.concat(await answer.body.toArray()).toString()
  /** Ends with every copy made: `keep` looks the task up first. */
  const keep = async (taskId = task.taskId) => {
    kept.keep(taskId)
    await new Promise(setImmediate)
    await kept.idle()
  }
  return { kept, time, task, fetched, troubles, get, files, text, keep, directory, isClosed: () => closed }
}

t.test(
  'the results of a task that has ended are copied, and answered from the copy when their host has forgotten them',
  async t => {
    let gone = false
    const { keep, get, text, fetched, files, directory, task } = scene(
      t,
      async (...args) => (gone ? null : await honest(...args)),
      { urls: 3 }
    )
    await keep()
    t.equal(fetched.length, 3)
    gone = true
    for (const index of [0, 1, 2]) {
      const answer = await get({}, index)
      t.match(answer, facts)
      t.equal(await text(answer), bytes.toString())
    }
    t.equal(await get({}, 3), null, 'there is no fourth')
    t.equal(fetched.length, 4)
    const name = createHash('sha256')
      .update(JSON.stringify([task.taskId, 'app:alice', 0]))
      .digest('hex')
    t.ok(files().includes(join(directory, '2026-01-15', name)), 'named by a hash, in the folder of its day')
    t.equal(files().length, 6)
    t.equal(statSync(files()[0]!).mode & 0o077, 0, 'nobody else can read it')
  }
)

t.test('a first view is answered from the host, and makes a copy', async t => {
  const { get, text, kept, fetched } = scene(t)
  t.equal(await text(await get({ range: 'bytes=0-0' })), bytes.toString())
  await kept.idle()
  t.equal(await text(await get({ range: 'bytes=2-3' })), '23')
  t.same(fetched, [{ range: 'bytes=0-0' }, {}], 'the copy is of the whole')
})

t.test('a copy is answered in parts, under conditions, and says when there is no such part', async t => {
  const { keep, get, text, fetched } = scene(t)
  await keep()
  const cases: ReadonlyArray<readonly [ask: ResultAsk, status: number, range: string | null, body: string | null]> = [
    [{ range: 'bytes=0-3' }, 206, 'bytes 0-3/10', '0123'],
    [{ range: 'bytes=8-' }, 206, 'bytes 8-9/10', '89'],
    [{ range: 'bytes=8-99' }, 206, 'bytes 8-9/10', '89'],
    [{ range: 'bytes=-3' }, 206, 'bytes 7-9/10', '789'],
    [{ range: 'bytes=-99' }, 206, 'bytes 0-9/10', '0123456789'],
    [{ range: 'bytes=10-' }, 416, 'bytes */10', null],
    [{ range: 'bytes=-0' }, 416, 'bytes */10', null],
    [{ range: 'bytes=3-2' }, 416, 'bytes */10', null],
    [{ range: 'bytes=0-3', ifRange: '"one"' }, 206, 'bytes 0-3/10', '0123'],
    [{ range: 'bytes=0-3', ifRange: facts.lastModified }, 206, 'bytes 0-3/10', '0123'],
    [{ range: 'bytes=0-3', ifRange: '"two"' }, 200, null, '0123456789'],
    [{ ifNoneMatch: '"two", W/"one"' }, 304, null, null],
    [{ ifNoneMatch: '*', range: 'bytes=0-3' }, 304, null, null],
    [{ ifNoneMatch: '"two"' }, 200, null, '0123456789']
  ]
  for (const [ask, status, contentRange, body] of cases) {
    const answer = await get(ask)
    t.match(answer, { status, contentRange }, JSON.stringify(ask))
    t.equal(await text(answer), body)
    if (body !== null) t.equal(answer!.length, body.length)
  }
  t.equal(fetched.length, 1)
})

t.test('a host without a tag for its file never finds it unchanged', async t => {
  const { keep, get } = scene(t, async () => ({ ...facts, etag: null, body: Readable.from([bytes]) }))
  await keep()
  const answer = await get({ ifNoneMatch: '*' })
  t.match(answer, { status: 200, etag: null })
  answer!.body!.destroy()
})

t.test('what is kept already, or gone already, is not copied', async t => {
  const { keep, fetched, files } = scene(t)
  await keep()
  await keep()
  t.equal(fetched.length, 1)
  t.equal(files().length, 2)
  const gone = scene(t, async () => null, { directory: join(t.testdirName, 'gone') })
  await gone.keep()
  t.equal(gone.fetched.length, 1)
  t.same(gone.troubles, [])
  t.equal(await gone.get(), null)
})

t.test('two copies are made at a time, and each once', async t => {
  const held: Array<() => void> = []
  const { kept, get, fetched, task } = scene(
    t,
    async (...args) => {
      await new Promise<void>(resolve => held.push(resolve))
      return await honest(...args)
    },
    { urls: 5 }
  )
  kept.keep(task.taskId)
  kept.keep(task.taskId)
  await until('two are under way', () => held.length === 2)
  const view = get()
  await until('nobody who looks has to wait for them', () => held.length === 3)
  t.equal(fetched.length, 3)
  const turn = setInterval(() => held.splice(0).forEach(goOn => goOn()), 1)
  t.teardown(() => clearInterval(turn))
  ;(await view)!.body!.destroy()
  await kept.idle()
  t.equal(fetched.length, 6)
})

t.test('half of a copy is none: it is taken away, told, and tried again at the next call', async t => {
  let breaks = true
  const { keep, get, kept, files, troubles, text, task } = scene(t, async (...args) => {
    if (!breaks) return await honest(...args)
    return {
      ...facts,
      body: Readable.from(
        (async function * () {
          yield bytes
          throw new Error('cut')
        })()
      )
    }
  })
  await keep()
  t.match(troubles, [[task.taskId, { message: 'cut' }]])
  t.same(files(), [])
  breaks = false
  ;(await get())!.body!.destroy()
  await kept.idle()
  breaks = true
  t.equal(await text(await get()), bytes.toString())
})

t.test('a copy that somebody has cut short or whose facts are lost is fetched again', async t => {
  const { keep, get, kept, files, text, fetched } = scene(t)
  await keep()
  const [file, facts] = files() as [string, string]
  truncateSync(file, 3)
  t.equal(await text(await get()), bytes.toString())
  await kept.idle()
  t.equal(fetched.length, 3)
  t.equal(readFileSync(file, 'utf8'), bytes.toString(), 'and mended')
  writeFileSync(facts, 'no json')
  t.equal(await text(await get()), bytes.toString())
  await kept.idle()
})

t.test('a task that is not there, or a store that is down, keeps nothing and hurts nobody', async t => {
  const { keep, troubles, fetched, kept } = scene(t)
  await keep('another')
  t.same([troubles, fetched], [[], []])
  const down = resultCache({
    directory: t.testdirName,
    results: kept,
    taskOf: async () => {
      throw new Error('down')
    },
    retentionMs: 1,
    ...systemClock,
    onTrouble: (error, taskId) => troubles.push([taskId, error])
  })
  down.keep('x')
  await new Promise(setImmediate)
  t.match(troubles, [['x', { message: 'down' }]])
})

t.test('a folder that can not be written to is told, and results are fetched as if nothing was kept', async t => {
  const directory = join(t.testdir({ results: 'a file' }), 'results')
  const { keep, get, text, troubles } = scene(t, honest, { directory })
  await keep()
  t.match(troubles, [['../../etc/passwd', { code: /^E/ }]])
  t.equal(await text(await get()), bytes.toString())
})

t.test(
  "copies are forgotten after their retention, a day's at a time, and nothing else in the folder is touched",
  async t => {
    const { keep, kept, time, directory, files } = scene(t)
    await kept.tidy()
    await keep()
    mkdirSync(join(directory, 'mine'))
    writeFileSync(join(directory, 'mine', 'note'), 'x')
    time.advance(32 * dayMs)
    await kept.tidy()
    t.equal(files().length, 3)
    time.advance(dayMs / 2 - 3_600_000)
    await kept.tidy()
    t.equal(files().length, 3, 'the day is not over')
    time.advance(3_600_000)
    await kept.tidy()
    t.same(files(), [join(directory, 'mine', 'note')])
    writeFileSync(join(directory, 'mine', 'note'), 'x')
    mkdirSync(join(directory, '2020-01-01'))
    await kept.tidy()
    t.ok(readdirSync(directory).includes('2020-01-01'), 'it looks once an hour')
  }
)

t.test('a stop ends the copies under way, without a word, and what they come from', async t => {
  const { kept, get, isClosed, troubles, files, fetched, task } = scene(t, async (_index, _ask, signal) => {
    const body = new Readable({ read () {} })
    body.push(bytes)
    signal.addEventListener('abort', () => body.destroy())
    return { ...facts, body }
  })
  kept.keep(task.taskId)
  await until('it is under way', () => fetched.length === 1)
  await kept.close()
  t.equal(isClosed(), true)
  t.same([troubles, files()], [[], []])
  ;(await get())!.body!.destroy()
  await kept.idle()
  t.same(files(), [], 'and none is begun')
})

t.test('copies of one task can be deleted, with what is written beside them, and none is no fault', async t => {
  const directory = join(t.testdir({}), 'results')
  const { kept, task, files } = scene(t, honest, { urls: 2, directory })
  kept.keep(task.taskId)
  await until('two copies and their facts', () => existsSync(directory) && files().length === 4)
  await kept.idle()
  const other = join(directory, 'another')
  writeFileSync(other, '')
  await forgetCopies(directory, task)
  t.same(files(), [other])
  await forgetCopies(directory, task)
  t.same(files(), [other])
})

t.test('copies lie beside the file of the ledger, or where the gateway was started', t => {
  t.equal(copiesDirectory({ kind: 'sqlite', path: '/data/gateway.db' }), '/data/results')
  for (const place of [{ kind: 'sqlite', path: ':memory:' }, { kind: 'redis' }]) {
    t.equal(copiesDirectory(place), join(process.cwd(), 'data/results'))
  }
  t.end()
})
