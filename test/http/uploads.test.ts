import type { FastifyReply, FastifyRequest } from 'fastify'
import t from 'tap'
import { type Call, newCall } from '../../src/http/call.ts'
import { uploads } from '../../src/http/uploads.ts'

const reply = {} as FastifyReply

let callers = 0

/** A request with a body, of a subject and an address of its own if no others are named. */
function upload (headers: Record<string, string>, subject = `caller-${++callers}`, address = `address-${++callers}`): FastifyRequest & { call: Call } {
  return { headers, call: { ...newCall(() => {}), address, session: { subject } } } as unknown as FastifyRequest & { call: Call }
}

/** Whether a promise has resolved by the next turn. */
async function hasTurn (turn: Promise<void>): Promise<boolean> {
  return await Promise.race([turn.then(() => true), new Promise<boolean>(resolve => setImmediate(() => resolve(false)))])
}

t.test('bodies are let in while there is room, and wait in order when there is none', async t => {
  const it = uploads({ bodyBytes: 100, bodyBytesInFlight: 100 })
  const [first, second, third] = [upload({ 'content-length': '60' }), upload({ 'content-length': '60' }), upload({ 'content-length': '10' })]
  t.ok(await hasTurn(it.admit(first, reply)))
  const [secondTurn, thirdTurn] = [it.admit(second, reply), it.admit(third, reply)]
  t.notOk(await hasTurn(secondTurn))
  t.notOk(await hasTurn(thirdTurn), 'nobody overtakes')
  it.release(first.call)
  t.ok(await hasTurn(secondTurn))
  t.ok(await hasTurn(thirdTurn))
  t.equal(it.inFlight, 70)
  it.release(second.call)
  it.release(third.call)
  it.release(third.call)
  t.equal(it.inFlight, 0, 'given back once')
})

t.test('a body counts as announced, at most its limit; one of unknown length counts in full; none counts nothing', async t => {
  const it = uploads({ bodyBytes: 100, bodyBytesInFlight: 1000 })
  await it.admit(upload({}), reply)
  t.equal(it.inFlight, 0)
  await it.admit(upload({ 'content-length': '5000' }), reply)
  t.equal(it.inFlight, 100)
  await it.admit(upload({ 'transfer-encoding': 'chunked' }), reply)
  t.equal(it.inFlight, 200)
})

t.test('a body longer than all the room there is goes alone instead of waiting for ever', async t => {
  const it = uploads({ bodyBytes: 500, bodyBytesInFlight: 100 })
  t.ok(await hasTurn(it.admit(upload({ 'content-length': '500' }), reply)))
  t.notOk(await hasTurn(it.admit(upload({ 'content-length': '500' }), reply)))
})

t.test('who hangs up while waiting is passed over', async t => {
  const it = uploads({ bodyBytes: 100, bodyBytesInFlight: 100 })
  const [first, gone, third] = [upload({ 'content-length': '100' }), upload({ 'content-length': '100' }), upload({ 'content-length': '100' })]
  await it.admit(first, reply)
  const [goneTurn, thirdTurn] = [it.admit(gone, reply), it.admit(third, reply)]
  gone.call.closed = true
  it.release(first.call)
  t.ok(await hasTurn(thirdTurn))
  t.notOk(await hasTurn(goneTurn))
})

t.test('one subject takes no more than its share, and whoever waits behind it is let by', async t => {
  const it = uploads({ bodyBytes: 100, bodyBytesInFlight: 400 })
  const [first, second, third] = [1, 2, 3].map(() => upload({ 'content-length': '100' }, 'mallory'))
  t.ok(await hasTurn(it.admit(first!, reply)))
  const [secondTurn, thirdTurn] = [it.admit(second!, reply), it.admit(third!, reply)]
  t.notOk(await hasTurn(secondTurn), 'there is room, but not for this subject')
  const others = [1, 2, 3].map(() => upload({ 'content-length': '100' }))
  for (const other of others) t.ok(await hasTurn(it.admit(other, reply)))
  const late = it.admit(upload({ 'content-length': '100' }), reply)
  it.release(first!.call)
  t.ok(await hasTurn(secondTurn), 'first come, first served')
  t.notOk(await hasTurn(late), 'now the room is full')
  it.release(second!.call)
  t.ok(await hasTurn(thirdTurn))
  it.release(others[0]!.call)
  t.ok(await hasTurn(late))
  t.equal(it.inFlight, 400)
})

t.test('one subject can not fill the queue', async t => {
  const it = uploads({ bodyBytes: 100, bodyBytesInFlight: 100 })
  await it.admit(upload({ 'content-length': '100' }, 'mallory'), reply)
  for (let count = 0; count < 50; count++) it.admit(upload({ 'content-length': '10' }, 'mallory'), reply).catch(() => {})
  await t.rejects(it.admit(upload({ 'content-length': '10' }, 'mallory'), reply), { code: 'GW_OVERLOADED' })
  t.notOk(await hasTurn(it.admit(upload({ 'content-length': '10' }), reply)), 'others may wait')
})

t.test('a full queue sends the next one away', async t => {
  const it = uploads({ bodyBytes: 100, bodyBytesInFlight: 100 })
  await it.admit(upload({ 'content-length': '100' }), reply)
  for (let count = 0; count < 1000; count++) it.admit(upload({ 'content-length': '10' }), reply).catch(() => {})
  await t.rejects(it.admit(upload({ 'content-length': '10' }), reply), { code: 'GW_OVERLOADED', detail: { retryAfterSeconds: 1 } })
})

t.test('a short body waits for nobody', async t => {
  const it = uploads({ bodyBytes: 16_000_000, bodyBytesInFlight: 16_000_000 })
  await it.admit(upload({ 'content-length': '16000000' }), reply)
  const short = upload({ 'content-length': '65536' })
  t.ok(await hasTurn(it.admit(short, reply)))
  it.release(short.call)
  t.notOk(await hasTurn(it.admit(upload({ 'content-length': '65537' }), reply)))
  t.equal(it.inFlight, 16_000_000)
})

t.test('one address takes no more than its share, whatever sessions it has', async t => {
  const it = uploads({ bodyBytes: 100, bodyBytesInFlight: 400 })
  const [first, second, third] = [1, 2, 3].map(index => upload({ 'content-length': '100' }, `mallory-${index}`, 'one'))
  t.ok(await hasTurn(it.admit(first!, reply)))
  t.ok(await hasTurn(it.admit(second!, reply)))
  const turn = it.admit(third!, reply)
  t.notOk(await hasTurn(turn), 'there is room, but not for this address')
  t.ok(await hasTurn(it.admit(upload({ 'content-length': '100' }), reply)))
  it.release(first!.call)
  t.ok(await hasTurn(turn))
})
