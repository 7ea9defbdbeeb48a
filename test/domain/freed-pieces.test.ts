import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createReadStream, writeFileSync } from 'node:fs'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { join } from 'node:path'
import { PassThrough, Readable, Writable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import t, { type Test } from 'tap'
import { Agent } from 'undici'
import { freedPieces } from '../../src/domain/results.ts'
import { fileServer, type ServeFile, whole } from '../helpers/file-server.ts'
import { until } from '../helpers/until.ts'

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
