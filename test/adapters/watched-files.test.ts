import { EventEmitter } from 'node:events'
import {
  appendFileSync, chmodSync, type FSWatcher, mkdirSync, readFileSync, renameSync, rmSync, symlinkSync, truncateSync,
  unlinkSync, watch, writeFileSync
} from 'node:fs'
import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import t, { type Test } from 'tap'
import {
  pollMs, settleMs, watchedFiles, type WatchedFilesOptions, type WatchFolder
} from '../../src/adapters/watched-files.ts'
import { systemTimers } from '../../src/domain/time.ts'
import { clock } from '../helpers/clock.ts'
import { crankedTimers } from '../helpers/timers.ts'
import { until } from '../helpers/until.ts'

/** A folder with a file that is watched, and all contents it had when a change was told. */
function watched (
  t: Test,
  options: Partial<WatchedFilesOptions> & { readonly tree?: Parameters<Test['testdir']>[0] } = {}
) {
  const { tree = { secret: 'one' }, ...more } = options
  const folder = t.testdir(tree)
  const path = join(folder, 'secret')
  const told: string[] = []
  const files = watchedFiles({
    paths: [path],
    onChange: () => told.push(contentOf(path)),
    timers: systemTimers,
    ...more
  })
  t.teardown(() => files.close())
  return { folder, path, told, files }
}

function contentOf (path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    return (error as NodeJS.ErrnoException).code!
  }
}

/** In what way a program brings a new text into a file. */
const ways: ReadonlyArray<readonly [title: string, change: (path: string, text: string) => void]> = [
  ['written over', (path, text) => writeFileSync(path, text)],
  ['appended to', (path, text) => appendFileSync(path, text)],
  ['renamed over', (path, text) => {
    writeFileSync(`${path}.new`, text)
    renameSync(`${path}.new`, path)
  }],
  ['moved away and made anew, as editors do that keep a copy', (path, text) => {
    renameSync(path, `${path}~`)
    writeFileSync(path, text)
    unlinkSync(`${path}~`)
  }],
  ['another that is as long', (path) => writeFileSync(path, contentOf(path).split('').reverse().join(''))]
]

t.test('a change is told within a second, in whatever way it is made, each time', async t => {
  for (const [title, change] of ways) {
    await t.test(title, async t => {
      const { path, told } = watched(t)
      await until('the beginning is told', () => told.length === 1, 1000)
      for (const text of ['two', 'three', 'four']) {
        change(path, text)
        const now = contentOf(path)
        await until(`${text} is told`, () => told.at(-1) === now, 1000)
      }
      t.equal(told.length, 4, 'once')
    })
  }
})

t.test('the swap of a link on the way to the file is a change, as Kubernetes makes it', async t => {
  const { folder, told } = watched(t, {
    tree: {
      '..one': { secret: 'one' },
      '..data': t.fixture('symlink', '..one'),
      secret: t.fixture('symlink', '..data/secret')
    }
  })
  await until('the beginning is told', () => told.length === 1)
  for (const [before, next] of [['..one', '..two'], ['..two', '..three']] as const) {
    mkdirSync(join(folder, next))
    writeFileSync(join(folder, next, 'secret'), next)
    symlinkSync(next, join(folder, '..data_tmp'))
    renameSync(join(folder, '..data_tmp'), join(folder, '..data'))
    rmSync(join(folder, before), { recursive: true })
    await until(next, () => told.at(-1) === next)
  }
  t.same(told, ['one', '..two', '..three'])
})

t.test('a file that is gone, is back, or may no longer be read is told, once each', async t => {
  const { path, told } = watched(t)
  await until('the beginning is told', () => told.length === 1)
  unlinkSync(path)
  await until('it is gone', () => told.length === 2)
  mkdirSync(path)
  await until('there is a folder', () => told.length === 3)
  rmSync(path, { recursive: true })
  await until('it is gone again', () => told.length === 4)
  writeFileSync(path, 'back')
  await until('it is back', () => told.length === 5)
  chmodSync(path, 0o000)
  await until('its mode is told', () => told.length === 6)
  t.same(told.slice(0, 5), ['one', 'ENOENT', 'EISDIR', 'ENOENT', 'back'])
})

t.test('half of a file is not told: what is emptied and written is told when it stands', async t => {
  const { path, told } = watched(t)
  await until('the beginning is told', () => told.length === 1)
  truncateSync(path)
  await wait(settleMs / 2)
  appendFileSync(path, 'first half, ')
  await wait(settleMs / 2)
  appendFileSync(path, 'second half')
  await until('the whole', () => told.length === 2)
  t.same(told, ['one', 'first half, second half'])
})

t.test('what else goes on in the folder is nobody\'s business, and hides nothing', async t => {
  const { folder, path, told } = watched(t)
  await until('the beginning is told', () => told.length === 1)
  const stop = new AbortController()
  const noise = (async () => {
    for (let count = 0; !stop.signal.aborted; count++) {
      writeFileSync(join(folder, `noise-${count % 5}`), String(count))
      await wait(1)
    }
  })()
  await wait(settleMs * 3)
  t.equal(told.length, 1)
  writeFileSync(path, 'two')
  await until('two is told', () => told.at(-1) === 'two')
  stop.abort()
  await noise
  t.equal(told.length, 2)
})

t.test('a folder that another one takes the place of is watched on', async t => {
  const base = t.testdir({ run: { secret: 'one' }, next: { secret: 'two' } })
  const path = join(base, 'run/secret')
  const told: string[] = []
  const files = watchedFiles({ paths: [path], onChange: () => told.push(contentOf(path)), timers: systemTimers })
  t.teardown(() => files.close())
  await until('the beginning is told', () => told.length === 1)
  renameSync(join(base, 'run'), join(base, 'earlier'))
  await until('it is gone', () => told.at(-1) === 'ENOENT', pollMs + 1000)
  renameSync(join(base, 'next'), join(base, 'run'))
  await until('the other is seen', () => told.at(-1) === 'two', pollMs + 1000)
  writeFileSync(path, 'three')
  await until('and watched', () => told.at(-1) === 'three')
})

/** A system that says nothing, or can watch no more. */
const deafSystems: Readonly<Record<string, WatchFolder>> = {
  'says nothing': () => Object.assign(new EventEmitter(), { close () {} }),
  'can not watch' () { throw Object.assign(new Error('too many'), { code: 'ENOSPC' }) }
}
for (const [title, watchNothing] of Object.entries(deafSystems)) {
  t.test(`where the system ${title}, the files are looked at every two seconds`, async t => {
    const time = clock()
    const timers = crankedTimers(time)
    const { path, told } = watched(t, { timers, watch: watchNothing })
    const pass = async (ms: number) => {
      time.advance(ms)
      timers.run()
      await until('it has looked', () => timers.waiting === 1)
    }
    await pass(settleMs)
    await pass(settleMs)
    t.same(told, ['one'])
    writeFileSync(path, 'two')
    await pass(pollMs - 1)
    t.equal(told.length, 1)
    await pass(1)
    t.equal(told.length, 1, 'it may not be all')
    await pass(settleMs)
    t.same(told, ['one', 'two'])
    for (let round = 0; round < 3; round++) await pass(pollMs)
    t.equal(told.length, 2)
    t.equal(timers.waiting, 1)
  })
}

t.test('a watch that breaks is made anew', async t => {
  const watches: FSWatcher[] = []
  const made: WatchFolder = (...args) => {
    const it = watch(...args)
    watches.push(it)
    return it
  }
  const { path, told } = watched(t, { watch: made })
  await until('the beginning is told', () => told.length === 1)
  watches[0]!.emit('error', new Error('it broke'))
  await until('there is another', () => watches.length === 2, pollMs + 1000)
  writeFileSync(path, 'two')
  await until('two is told', () => told.at(-1) === 'two')
})

t.test('when it is closed nothing is told, and nothing waits', async t => {
  const time = clock()
  const timers = crankedTimers(time)
  const { path, told, files } = watched(t, { timers })
  time.advance(settleMs)
  timers.run()
  files.close()
  writeFileSync(path, 'two')
  await wait(50)
  t.equal(timers.waiting, 0)
  t.same(told, [])
})

t.test('with no file there is nothing to do', async t => {
  const timers = crankedTimers(clock())
  watchedFiles({ paths: [], onChange: () => t.fail('nothing changed'), timers }).close()
  t.equal(timers.waiting, 0)
})
