import type { FastifyReply, FastifyRequest } from 'fastify'
import { PassThrough } from 'node:stream'
import t from 'tap'
import { plans } from '../../src/domain/policy.ts'
import { type Session, unscoped } from '../../src/domain/session.ts'
import { bodyBudget } from '../../src/http/body-budget.ts'
import { RequestState } from '../../src/http/context.ts'
import { crankedTimers } from '../helpers/timers.ts'

const reply = {} as FastifyReply
const clock = { ms: 0, elapsed: () => clock.ms }
const timers = crankedTimers(clock)

const plan = plans({
  default: { models: ['*'], requestsPerMinute: 9, pollsPerMinute: 9, concurrentTasks: 9, credits: 9, period: 'day' }
}).get('default')!

function sessionOf (subject: string): Session {
  const { name, models, permits } = plan
  return unscoped({ id: '1', subject, plan: name, models, permits, scopes: [], issuedAt: 0, expiresAt: 1 })
}

let callers = 0

/** A request with a body, of a subject and an address of its own if no others are named. */
function upload (
  headers: Record<string, string>,
  subject = `caller-${++callers}`,
  address = `address-${++callers}`
): FastifyRequest & { call: RequestState } {
  const call = new RequestState(() => {})
  call.address = address
  call.identify(sessionOf(subject), plan)
  return { headers, call, raw: rawBody() } as unknown as FastifyRequest & { call: RequestState }
}

/** A body's stream, and what has been read from its socket. */
function rawBody () {
  return Object.assign(new PassThrough(), { socket: { bytesRead: 0 } })
}

/** Whether a promise has resolved by the next turn. */
async function hasTurn (turn: Promise<void>): Promise<boolean> {
  return await Promise.race([
    turn.then(() => true),
    new Promise<boolean>(resolve => setImmediate(() => resolve(false)))
  ])
}

t.test('bodies are let in while there is room, and wait in order when there is none', async t => {
  const it = bodyBudget({ timers, bodyBytes: 100, bodyBytesInFlight: 100 })
  const [first, second, third] = [
    upload({ 'content-length': '60' }),
    upload({ 'content-length': '60' }),
    upload({ 'content-length': '10' })
  ]
  t.ok(await hasTurn(it.admit(first, reply)))
  const [secondTurn, thirdTurn] = [it.admit(second, reply), it.admit(third, reply)]
  t.notOk(await hasTurn(secondTurn))
  t.notOk(await hasTurn(thirdTurn), 'nobody overtakes')
  it.release(first)
  t.ok(await hasTurn(secondTurn))
  t.ok(await hasTurn(thirdTurn))
  t.equal(it.inFlight, 70)
  it.release(second)
  it.release(third)
  it.release(third)
  t.equal(it.inFlight, 0, 'given back once')
})

t.test(
  'a body counts as announced, at most its limit; one of unknown length counts in full; none counts nothing',
  async t => {
    const it = bodyBudget({ timers, bodyBytes: 100, bodyBytesInFlight: 1000 })
    await it.admit(upload({}), reply)
    t.equal(it.inFlight, 0)
    await it.admit(upload({ 'content-length': '5000' }), reply)
    t.equal(it.inFlight, 100)
    await it.admit(upload({ 'transfer-encoding': 'chunked' }), reply)
    t.equal(it.inFlight, 200)
  }
)

t.test('a body longer than all the room there is goes alone instead of waiting for ever', async t => {
  const it = bodyBudget({ timers, bodyBytes: 500, bodyBytesInFlight: 100 })
  t.ok(await hasTurn(it.admit(upload({ 'content-length': '500' }), reply)))
  t.notOk(await hasTurn(it.admit(upload({ 'content-length': '500' }), reply)))
})

t.test('who hangs up while waiting is passed over', async t => {
  const it = bodyBudget({ timers, bodyBytes: 100, bodyBytesInFlight: 100 })
  const [first, gone, third] = [
    upload({ 'content-length': '100' }),
    upload({ 'content-length': '100' }),
    upload({ 'content-length': '100' })
  ]
  await it.admit(first, reply)
  const [goneTurn, thirdTurn] = [it.admit(gone, reply), it.admit(third, reply)]
  gone.call.connectionClosed()
  it.release(first)
  t.ok(await hasTurn(thirdTurn))
  t.notOk(await hasTurn(goneTurn))
})

t.test('one subject takes no more than its share, and whoever waits behind it is let by', async t => {
  const it = bodyBudget({ timers, bodyBytes: 100, bodyBytesInFlight: 400 })
  const [first, second, third] = [1, 2, 3].map(() => upload({ 'content-length': '100' }, 'mallory'))
  t.ok(await hasTurn(it.admit(first!, reply)))
  const [secondTurn, thirdTurn] = [it.admit(second!, reply), it.admit(third!, reply)]
  t.notOk(await hasTurn(secondTurn), 'there is room, but not for this subject')
  const others = [1, 2, 3].map(() => upload({ 'content-length': '100' }))
  for (const other of others) t.ok(await hasTurn(it.admit(other, reply)))
  const late = it.admit(upload({ 'content-length': '100' }), reply)
  it.release(first!)
  t.ok(await hasTurn(secondTurn), 'first come, first served')
  t.notOk(await hasTurn(late), 'now the room is full')
  it.release(second!)
  t.ok(await hasTurn(thirdTurn))
  it.release(others[0]!)
  t.ok(await hasTurn(late))
  t.equal(it.inFlight, 400)
})

t.test('one subject can not fill the queue', async t => {
  const it = bodyBudget({ timers, bodyBytes: 100, bodyBytesInFlight: 100 })
  await it.admit(upload({ 'content-length': '100' }, 'mallory'), reply)
  for (let count = 0; count < 50; count++) {
    it.admit(upload({ 'content-length': '10' }, 'mallory'), reply).catch(() => {})
  }
  await t.rejects(it.admit(upload({ 'content-length': '10' }, 'mallory'), reply), { code: 'GW_OVERLOADED' })
  t.notOk(await hasTurn(it.admit(upload({ 'content-length': '10' }), reply)), 'others may wait')
})

t.test('a full queue sends the next one away', async t => {
  const it = bodyBudget({ timers, bodyBytes: 100, bodyBytesInFlight: 100 })
  await it.admit(upload({ 'content-length': '100' }), reply)
  for (let count = 0; count < 1000; count++) it.admit(upload({ 'content-length': '10' }), reply).catch(() => {})
  await t.rejects(it.admit(upload({ 'content-length': '10' }), reply), {
    code: 'GW_OVERLOADED',
    detail: { retryAfterSeconds: 1 }
  })
})

t.test('a short body waits for nobody', async t => {
  const it = bodyBudget({ timers, bodyBytes: 16_000_000, bodyBytesInFlight: 16_000_000 })
  await it.admit(upload({ 'content-length': '16000000' }), reply)
  const short = upload({ 'content-length': '65536' })
  t.ok(await hasTurn(it.admit(short, reply)))
  it.release(short)
  t.notOk(await hasTurn(it.admit(upload({ 'content-length': '65537' }), reply)))
  t.equal(it.inFlight, 16_000_000)
})

t.test('one address takes no more than its share, whatever sessions it has', async t => {
  const it = bodyBudget({ timers, bodyBytes: 100, bodyBytesInFlight: 400 })
  const [first, second, third] = [1, 2, 3].map(index => upload({ 'content-length': '100' }, `mallory-${index}`, 'one'))
  t.ok(await hasTurn(it.admit(first!, reply)))
  t.ok(await hasTurn(it.admit(second!, reply)))
  const turn = it.admit(third!, reply)
  t.notOk(await hasTurn(turn), 'there is room, but not for this address')
  t.ok(await hasTurn(it.admit(upload({ 'content-length': '100' }), reply)))
  it.release(first!)
  t.ok(await hasTurn(turn))
})

/** A body as a framework reads it. */
function read (request: FastifyRequest) {
  const raw = request.raw as unknown as ReturnType<typeof rawBody>
  const seen = { bytes: 0 }
  raw.on('data', (chunk: Buffer) => { seen.bytes += chunk.length }).resume()
  return {
    seen,
    async come (bytes: number): Promise<void> {
      raw.socket.bytesRead += bytes
      raw.write(Buffer.alloc(bytes))
      await turns()
    },
    get isPaused () { return raw.isPaused() }
  }
}

async function turns (): Promise<void> {
  for (let round = 0; round < 5; round++) await new Promise(resolve => setImmediate(resolve))
}

function wait (): void {
  clock.ms += 100
  timers.run()
}

const megabyte = 1 << 20

t.test('when somebody has waited for a moment, all bodies take room as they come', async t => {
  const it = bodyBudget({ timers, bodyBytes: 4 * megabyte, bodyBytesInFlight: 4 * megabyte })
  const slow = upload({ 'content-length': String(4 * megabyte) })
  await it.admit(slow, reply)
  const body = read(slow)
  await body.come(1000)
  const others = [1, 2, 3].map(() => upload({ 'content-length': String(megabyte) }))
  const turnsOf = others.map(other => it.admit(other, reply))
  t.notOk(await hasTurn(turnsOf[0]!))
  wait()
  for (const turn of turnsOf) t.ok(await hasTurn(turn))
  t.equal(it.inFlight, 1000 + 4 * 131_072)
  const reads = others.map(read)
  await turns()
  for (const [index, other] of reads.entries()) {
    await other.come(megabyte / 2)
    await other.come(megabyte / 2)
    t.equal(other.seen.bytes, megabyte, 'nothing is lost')
    t.equal(others[index]!.call.heldBytes, megabyte)
  }
  await body.come(9000)
  t.equal(it.inFlight, 3 * megabyte + 10_000 + 131_072)
  for (const request of [slow, ...others]) it.release(request)
  t.equal(it.inFlight, 0)
  t.equal((slow.raw as unknown as PassThrough).listenerCount('data'), 1, 'the reader is left alone')
})

t.test('bodies for which there is no room are paused, but for the one with the least to come', async t => {
  const it = bodyBudget({ timers, bodyBytes: 4 * megabyte, bodyBytesInFlight: 4 * megabyte })
  const requests = [4, 4, 3].map(length => upload({ 'content-length': String(length * megabyte) }))
  const [first, second, third] = requests as [typeof requests[0], typeof requests[0], typeof requests[0]]
  const all = requests.map(request => it.admit(request, reply))
  wait()
  await Promise.all(all)
  const [one, two, three] = requests.map(read) as [
    ReturnType<typeof read>,
    ReturnType<typeof read>,
    ReturnType<typeof read>
  ]
  await turns()
  for (let part = 0; part < 9; part++) for (const body of [one, two, three]) await body.come(131_072)
  for (const body of [one, two]) await body.come(131_072)
  t.equal(it.inFlight, 4 * megabyte)
  t.notOk(one.isPaused || two.isPaused || three.isPaused)
  await one.come(131_072)
  t.notOk(one.isPaused, 'it alone is paused, so it goes on')
  await two.come(131_072)
  t.ok(two.isPaused)
  const late = upload({ 'content-length': String(megabyte) })
  const lateTurn = it.admit(late, reply)
  wait()
  t.notOk(await hasTurn(lateTurn), 'nobody overtakes those that are paused')
  for (let part = 0; part < 10; part++) await one.come(131_072)
  t.notOk(one.isPaused, 'once begun it goes on to its end')
  t.ok(it.inFlight > 4 * megabyte && it.inFlight < 8 * megabyte)
  await three.come(131_072)
  t.ok(three.isPaused)
  await two.come(131_072)
  const before = two.seen.bytes
  it.release(first)
  await turns()
  t.notOk(two.isPaused)
  t.notOk(three.isPaused)
  t.ok(two.seen.bytes > before)
  wait()
  t.ok(await hasTurn(lateTurn))
  for (const request of [second, third, late]) it.release(request)
  t.equal(it.inFlight, 0)
})

t.test('a paused body whose request has been answered is left to its connection', async t => {
  const it = bodyBudget({ timers, bodyBytes: 4 * megabyte, bodyBytesInFlight: 4 * megabyte })
  const requests = [4, 4].map(length => upload({ 'content-length': String(length * megabyte) }))
  const all = requests.map(request => it.admit(request, reply))
  wait()
  await Promise.all(all)
  const [one, two] = requests.map(read) as [ReturnType<typeof read>, ReturnType<typeof read>]
  await turns()
  for (let part = 0; part < 17; part++) for (const body of [one, two]) await body.come(131_072)
  t.not(one.isPaused, two.isPaused)
  const paused = one.isPaused ? 0 : 1
  it.release(requests[paused]!)
  t.notOk([one, two][paused]!.isPaused)
  it.release(requests[1 - paused]!)
  t.equal(it.inFlight, 0)
})

t.test('a metered body that nobody has begun to read leaves nothing behind', async t => {
  const it = bodyBudget({ timers, bodyBytes: 4 * megabyte, bodyBytesInFlight: 4 * megabyte })
  const [first, second] = [1, 2].map(() => upload({ 'content-length': String(4 * megabyte) })) as [
    ReturnType<typeof upload>,
    ReturnType<typeof upload>
  ]
  await it.admit(first, reply)
  const turn = it.admit(second, reply)
  wait()
  await turn
  it.release(first)
  const body = read(first)
  await body.come(megabyte)
  t.equal((first.raw as unknown as PassThrough).listenerCount('data'), 1)
  it.release(second)
  t.equal(it.inFlight, 0)
})

t.test('who waits is looked at again until there is room for what comes first', async t => {
  const it = bodyBudget({ timers, bodyBytes: 100_000, bodyBytesInFlight: 100_000 })
  const [first, second] = [upload({ 'content-length': '100000' }), upload({ 'content-length': '100000' })]
  await it.admit(first, reply)
  const turn = it.admit(second, reply)
  wait()
  wait()
  t.notOk(await hasTurn(turn))
  it.release(first)
  t.ok(await hasTurn(turn))
  const before = timers.waiting
  wait()
  t.equal(timers.waiting, before - 1, 'nobody waits')
})
