import { createHash, createHmac, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createReadStream, writeFileSync } from 'node:fs'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { join } from 'node:path'
import { PassThrough, Readable, Writable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import t, { type Test } from 'tap'
import { Agent } from 'undici'
import { signedSessions } from '../../src/adapters/signed-sessions.ts'
import type { Task } from '../../src/domain/ledger.ts'
import { byteRange, freedPieces, resultLifeMs, resultUrls } from '../../src/domain/results.ts'
import { Secret } from '../../src/domain/secret.ts'
import { fileNameOf, isPastLife, mediumOf, resultTickets } from '../../src/features/results/routes.ts'
import { clock } from '../helpers/clock.ts'
import { fileServer, type ServeFile, whole } from '../helpers/file-server.ts'
import { until } from '../helpers/until.ts'

function urlsOf (data: unknown) {
  return resultUrls({ finalAnswer: Buffer.from(JSON.stringify({ code: 200, message: 'success', data })) })
}

const success = (resultJson: unknown) => urlsOf({ taskId: 'x', state: 'success', resultJson })
const [a, b, c, d] = [
  'https://file.apixo.ai/a.png',
  'https://file.apixo.ai/b.png',
  'https://file.apixo.ai/c.mp3',
  'https://file.apixo.ai/d.jpg'
]

t.test('results are the URLs of resultJson, which is a text or an object', t => {
  t.same(success(JSON.stringify({ resultUrls: [a, b] })), [a, b])
  t.same(success({ resultUrls: [b, a] }), [b, a])
  t.same(success(JSON.stringify([a])), [a], 'a bare list')
  t.end()
})

t.test('each entry of resultUrls keeps its index, whatever is written there; other URLs follow, each once', t => {
  t.same(success({ note: 'see https://no.test', cover: d, resultUrls: [a, 'nonsense', a, b], again: b }), [
    a,
    'nonsense',
    a,
    b,
    d
  ])
  t.same(
    success({
      tracks: [
        { audio_url: c, source_audio_url: c, title: 'x', image_url: d },
        { download_url: a, seconds: 7, gone: null }
      ]
    }),
    [c, d, a]
  )
  t.same(success({ resultUrls: [{ audio_url: c }, { audio_url: a }] }), [c, a], 'objects in the list')
  t.same(success({ resultUrls: a, cover: null }), [a], 'one URL that is no list')
  t.end()
})

t.test('a task has no results while it runs, when it failed, and when its answer makes no sense', t => {
  t.same(resultUrls({ finalAnswer: null }), [])
  t.same(resultUrls({ finalAnswer: Buffer.from('no json') }), [])
  t.same(urlsOf({ state: 'processing', resultJson: { resultUrls: [a] } }), [])
  t.same(urlsOf({ state: 'failed', resultJson: { resultUrls: [a] } }), [])
  for (const broken of [undefined, null, 7, '', 'null', '{"resultUrls":', '"https://file.apixo.ai/a.png"', {}]) {
    t.same(success(broken), [], JSON.stringify(broken))
  }
  t.end()
})

t.test('there is an end to how many results are read, and how deep', t => {
  t.equal(success({ resultUrls: Array.from({ length: 5000 }, (_, index) => `${a}?${index}`) }).length, 100)
  let deep: unknown = a
  for (let level = 0; level < 1000; level++) deep = [deep]
  t.same(success({ deep }), [])
  t.end()
})

t.test('a result is past its life a day after its task has ended, or was made when nobody said when it ended', t => {
  const createdAt = 1_000_000
  const ended = (data: unknown) => ({ createdAt, finalAnswer: Buffer.from(JSON.stringify({ code: 200, data })) })
  t.equal(isPastLife(ended({ completeTime: 2_000_000 }), 2_000_000 + resultLifeMs - 1), false)
  t.equal(isPastLife(ended({ completeTime: 2_000_000 }), 2_000_000 + resultLifeMs), true)
  for (const task of [ended({}), ended(null), ended({ completeTime: 'noon' }), { createdAt, finalAnswer: null }]) {
    t.equal(isPastLife(task, createdAt + resultLifeMs - 1), false)
    t.equal(isPastLife(task, createdAt + resultLifeMs), true)
  }
  t.end()
})

t.test('a browser shows pictures, videos and sound; whatever else a result claims to be is saved to a file', t => {
  t.same(mediumOf('image/png', a), { contentType: 'image/png', extension: 'png', isInline: true })
  t.same(mediumOf('IMAGE/JPG; charset=x', a), { contentType: 'image/jpeg', extension: 'jpg', isInline: true })
  t.same(mediumOf('audio/x-wav', a), { contentType: 'audio/wav', extension: 'wav', isInline: true })
  for (const type of [
    'text/html',
    'image/svg+xml',
    'application/xml',
    'text/xml',
    'application/pdf',
    'application/json',
    'png',
    'image/png,text/html',
    'multipart/x-mixed-replace',
    '__proto__',
    'constructor',
    'video/',
    '/'
  ]) {
    t.same(mediumOf(type, a), { contentType: 'application/octet-stream', extension: 'bin', isInline: false }, type)
  }
  t.end()
})

t.test('only where the type says nothing does the end of the URL', t => {
  for (const type of ['', 'application/octet-stream', 'binary/octet-stream']) {
    t.equal(mediumOf(type, `${a}?x=.svg`).contentType, 'image/png')
    t.equal(mediumOf(type, 'https://x.test/a.MP4#x').contentType, 'video/mp4')
    for (const url of [
      'https://x.test/a.svg',
      'https://x.test/a.html',
      'https://x.test/png',
      'https://x.test/?a.png',
      'a.png',
      'https://x.test/a.'
    ]) {
      t.equal(mediumOf(type, url).isInline, false, url)
    }
  }
  t.end()
})

t.test('a file is named after model, task and index, in characters that no file system and no header minds', t => {
  const png = mediumOf('image/png', a)
  t.equal(
    fileNameOf({ model: 'nano-banana', taskId: 'dff8afd34c4e47719b85ad6651daa3f0' }, 0, png),
    'nano-banana-dff8afd3-0.png'
  )
  t.equal(fileNameOf({ model: 'gpt-5.4', taskId: 'task_abc123xyz789' }, 12, png), 'gpt-5.4-abc123xy-12.png')
  t.equal(fileNameOf({ model: '"; x=y\r\n', taskId: '../../é"\\' }, 1, png), 'xy-....-1.png')
  t.end()
})

t.test('a range of bytes has both ends in the file, or there is none', t => {
  t.same(byteRange('bytes=0-0', 10), { start: 0, end: 0 })
  t.same(byteRange('bytes=-4', 10), { start: 6, end: 9 })
  t.same(byteRange('bytes=4-', 10), { start: 4, end: 9 })
  for (const text of ['bytes=10-', 'bytes=-0', 'bytes=2-1', 'bytes=-', 'bytes=0-1,3-4', 'bytes', '']) {
    t.equal(byteRange(text, 10), null, text)
  }
  for (const text of ['bytes=0-', 'bytes=-1', 'bytes=0-0']) t.equal(byteRange(text, 0), null, 'an empty file has none')
  t.end()
})

const secret = new Secret('a-session-secret-of-32-bytes-and-more')
const next = new Secret('a-newer-session-secret-of-32-bytes-and-more')
const taskId = 'dff8afd34c4e47719b85ad6651daa3f0'
const task = { taskId, subject: 'app:alice' }

function tickets (secrets = [secret], tasks: ReadonlyArray<Pick<Task, 'taskId' | 'subject'>> = [task], time = clock()) {
  const taskOf = async (id: string) => tasks.find(({ taskId }) => taskId === id) as Task | undefined ?? null
  return { time, ...resultTickets({ secrets: { current: secrets }, ticketSeconds: 900, taskOf, now: time.now }) }
}

t.test('a ticket opens its own result until it expires, and says nothing of its owner', async t => {
  const { ticketFor, open, time } = tickets()
  const ticket = ticketFor(task, 3)
  t.ok(ticket.length < 100, 'short enough for any router')
  t.notMatch(ticket, /alice/)
  t.same(await open(ticket), { task, index: 3 })
  time.advance(899_000)
  t.same(await open(ticket), { task, index: 3 })
  time.advance(1000)
  await t.rejects(open(ticket), { code: 'GW_RESULT_EXPIRED' })
})

t.test('nothing of a ticket can be changed, and no other can be made of it', async t => {
  const other = { taskId: 'e'.repeat(32), subject: 'app:alice' }
  const { ticketFor, open } = tickets([secret], [task, other])
  const ticket = ticketFor(task, 1)
  const [id, index, expiry, mac] = ticket.split('.') as [string, string, string, string]
  for (let at = 0; at < ticket.length; at++) {
    const sign = ticket[at] === 'A' ? 'B' : 'A'
    t.equal(await open(ticket.slice(0, at) + sign + ticket.slice(at + 1)), null, `character ${at}`)
  }
  for (const forged of [
    `${other.taskId}.${index}.${expiry}.${mac}`,
    `${id}.2.${expiry}.${mac}`,
    `${id}.01.${expiry}.${mac}`,
    `${id}.1.zzzzzzz.${mac}`,
    `${id}.1.0${expiry}.${mac}`,
    `${id}.1.${expiry.toUpperCase()}.${mac}`,
    `${id}.1.${expiry}.${mac}=`,
    `${id}.1.${expiry}.`,
    `${id}.1.${expiry}`,
    '',
    '.',
    '...',
    `${ticket}.`,
    ` ${ticket}`,
    `${ticket}\n`,
    'x'.repeat(10_000)
  ]) { t.equal(await open(forged), null, forged.slice(0, 80)) }
  t.equal(await open(`${id}.1.1.${mac}`), null, 'whether a forged one has expired is not said')
})

t.test('the newest secret signs, all verify, and one that is gone does not', async t => {
  const [old, both, later] = [tickets([secret]), tickets([next, secret]), tickets([next])]
  t.ok(await both.open(old.ticketFor(task, 0)))
  t.ok(await later.open(both.ticketFor(task, 0)))
  t.equal(await later.open(old.ticketFor(task, 0)), null)
  t.equal(await old.open(later.ticketFor(task, 0)), null)
})

t.test('secrets rotate while it runs', async t => {
  const live = { current: [secret] }
  const { ticketFor, open } = resultTickets({
    secrets: live,
    ticketSeconds: 900,
    taskOf: async () => task as Task,
    now: clock().now
  })
  const old = ticketFor(task, 0)
  live.current = [next, secret]
  const fresh = ticketFor(task, 0)
  t.ok(await open(old))
  live.current = [next]
  t.equal(await open(old), null)
  t.ok(await open(fresh))
})

t.test('a ticket opens nothing when its task is forgotten, or has become somebody else\'s', async t => {
  const ticket = tickets().ticketFor(task, 0)
  t.equal(await tickets([secret], []).open(ticket), null)
  t.equal(await tickets([secret], [{ taskId, subject: 'app:mallory' }]).open(ticket), null)
  t.equal(await tickets([secret], [{ taskId, subject: '' }]).open(ticket), null)
})

t.test('a task id may hold any character: it is encoded, and read from the right', async t => {
  for (const taskId of ['a.0.b', 'a/b', 'ü?#%', 'x'.repeat(256), 'a\nb']) {
    const { ticketFor, open } = tickets([secret], [{ taskId, subject: 'app:alice' }])
    const ticket = ticketFor({ taskId, subject: 'app:alice' }, 0)
    t.match(ticket, /^[\w.%!~*'()-]+$/)
    t.match(await open(decodeURIComponent(ticket)), { task: { taskId }, index: 0 })
  }
})

t.test('the key of tickets is not the one of sessions', async t => {
  const { ticketFor, open, time } = tickets()
  const { token } = await signedSessions({ secrets: { current: [secret] }, now: time.now }).mint({
    subject: 'alice',
    plan: 'default',
    models: ['*'],
    scopes: [],
    ttlSeconds: 60
  })
  t.equal(await open(token), null)
  const claims = ticketFor(task, 0).replace(/\.[^.]+$/, '')
  for (const signed of [claims, JSON.stringify(['app:alice', claims])]) {
    t.equal(await open(`${claims}.${createHmac('sha256', secret.reveal()).update(signed).digest('base64url')}`), null)
  }
})

const file = randomBytes(3_000_000)
const digest = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex')

/** Takes pieces one by one, each in its time, and keeps hold of what it was given. */
function slowTaker () {
  const [given, copies]: [Buffer[], Buffer[]] = [[], []]
  const taker = new Writable({
    highWaterMark: 1,
    write (piece: Buffer, _encoding, done) {
      given.push(piece)
      setImmediate(() => {
        copies.push(Buffer.from(piece))
        done()
      })
    }
  })
  return { taker, given, bytes: () => Buffer.concat(copies) }
}

async function bodyFrom (t: Test, serve: ServeFile): Promise<Readable> {
  const { origin } = await fileServer(t, serve)
  const agent = new Agent()
  t.teardown(() => agent.destroy())
  return (await agent.request({ origin, path: '/', method: 'GET' })).body
}

t.test('the memory of a piece is given back when it has been written, and no byte of it is lost', async t => {
  const path = join(t.testdir({}), 'file')
  writeFileSync(path, file)
  const sources: Record<string, Readable> = {
    'from a socket': await bodyFrom(t, whole(file)),
    'from a file': createReadStream(path)
  }
  for (const [name, source] of Object.entries(sources)) {
    const { taker, given, bytes } = slowTaker()
    await pipeline(freedPieces(source), taker)
    t.equal(digest(bytes()), digest(file), name)
    const left = given.reduce((sum, { length }) => sum + length, 0)
    t.ok(left < 200_000, `${name}: ${left} bytes are still held`)
  }
})

t.test('pieces that lie in one memory are left to the collector: the later ones are still to be read', async t => {
  const inChunks = async (_: IncomingMessage, response: ServerResponse) => {
    response.writeHead(200)
    response.cork()
    for (let at = 0; at < file.length; at += 10_000) response.write(file.subarray(at, at + 10_000))
    response.uncork()
    response.end()
  }
  const { taker, given, bytes } = slowTaker()
  await pipeline(freedPieces(await bodyFrom(t, inChunks)), taker)
  t.equal(digest(bytes()), digest(file))
  t.ok(given.some(piece => given.some(other => other !== piece && other.buffer === piece.buffer)), 'there are such')
})

t.test('a slow taker holds the source up, and one that has gone is given nothing more', async t => {
  const source = new PassThrough({ highWaterMark: 1 })
  const { taker, given } = slowTaker()
  t.equal(freedPieces(source).pipe(taker), taker)
  source.write('one')
  source.write('two')
  await until('both are taken', () => given.length === 2)
  taker.destroy()
  source.write('three')
  await once(taker, 'close')
  t.ok(source.isPaused())
  source.write('four')
  await new Promise(setImmediate)
  t.equal(given.length, 2)
})

t.test('its end is the end of where it goes, unless that is to stay open', async t => {
  for (const end of [undefined, true, false]) {
    for (const isOver of [true, false]) {
      const source = new PassThrough()
      const { taker } = slowTaker()
      if (isOver) await once(source.end().resume(), 'end')
      freedPieces(source).pipe(taker, { end })
      source.end()
      await until('it has ended', () => source.readableEnded)
      await new Promise(setImmediate)
      t.equal(taker.writableEnded, end !== false, `${end} ${isOver}`)
    }
  }
})

t.test('the memory of an empty piece is left alone: it may be a constant of a library', async t => {
  const empty = Buffer.from(new ArrayBuffer(0))
  const { taker, bytes } = slowTaker()
  await pipeline(freedPieces(Readable.from([empty, Buffer.from('end')])), taker)
  t.equal(bytes().toString(), 'end')
  t.notOk(empty.buffer.detached)
})
