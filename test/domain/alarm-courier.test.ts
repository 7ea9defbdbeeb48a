import t from 'tap'
import {
  type Alarm, alarmBoard, type AlarmBook, alarmName, type BookedAlarm, passingMs
} from '../../src/domain/alarms.ts'
import { Secret } from '../../src/domain/secret.ts'
import type { WebhookRequest } from '../../src/domain/webhooks.ts'
import { alarmCourier, alarmTarget } from '../../src/features/alarms/courier.ts'
import { retryMs, seenMs } from '../../src/features/alarms/entries.ts'
import { gatewayError } from '../../src/errors.ts'
import { type Clock, clock } from '../helpers/clock.ts'
import { until } from '../helpers/until.ts'

const secret = new Secret('whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw')
const leastMs = 300_000
const benched: Alarm = { kind: 'key-benched', about: 'k1', fields: { keyId: 'k1', state: 'refused' }, text: 'it is benched' }
const unknown: Alarm = { kind: 'unknown-outcome', about: '', fields: { count: 1 }, text: 'it may have been accepted' }

/** A book that several replicas share, and that can be away. */
function sharedBook () {
  const entries = new Map<string, BookedAlarm>()
  const state = { isDown: false, isFull: false }
  const up = (): void => { if (state.isDown) throw gatewayError('GW_STORE_DOWN') }
  const book: AlarmBook = {
    async all () {
      up()
      return [...entries.values()]
    },
    async see (name, seen) {
      up()
      entries.set(name, { told: null, ...entries.get(name), name, seen })
    },
    async tell (name, told) {
      if (state.isFull) throw gatewayError('GW_STORE_DOWN')
      entries.set(name, { ...entries.get(name)!, told })
    },
    async forget (name) { entries.delete(name) }
  }
  return { book, entries, state }
}

interface World {
  readonly time: Clock
  readonly shared: ReturnType<typeof sharedBook>
  /** What has come to the operator, as `raised key-benched k1`. */
  readonly heard: string[]
  readonly requests: WebhookRequest[]
  /** How the next messages are answered; 204 when there is none left. 0: not before the sender is closed. */
  readonly answers: Array<number | null>
}

function world (): World {
  return { time: clock(), shared: sharedBook(), heard: [], requests: [], answers: [] }
}

/** A process that sees things. `leads`: throws while the store is away. */
function replica ({ time, shared, heard, requests, answers }: World, leads: () => boolean = () => true) {
  const missed: string[] = []
  const troubles: unknown[] = []
  const ignore = (): void => {}
  const closed = Promise.withResolvers<void>()
  const board = alarmBoard({ log: { info: ignore, warn: ignore, error: ignore }, now: time.now, elapsed: time.elapsed })
  const target = alarmTarget({
    sender: {
      async send (request) {
        requests.push(request)
        const status = answers.length > 0 ? answers.shift()! : 204
        if (status === 0) await closed.promise
        if (status !== 204) return { status, error: status === null ? 'unreachable' : null }
        const { type, data: { kind, about, grade } } = JSON.parse(String(request.body))
        heard.push([type.slice(6), kind, about, grade ?? ''].join(' ').trim())
        return { status, error: null }
      },
      close: async () => closed.resolve()
    },
    url: 'https://ops.example/alarms',
    secrets: { current: [secret] },
    publicUrl: 'https://gateway.example',
    now: time.now
  })
  const courier = alarmCourier({
    board,
    book: shared.book,
    target,
    leads: async () => {
      if (shared.state.isDown) throw gatewayError('GW_STORE_DOWN')
      return leads()
    },
    leastMs,
    now: time.now,
    elapsed: time.elapsed,
    onMissed: name => { missed.push(name) },
    onTrouble: error => { troubles.push(error) }
  })
  const round = async (): Promise<void> => {
    await courier.runOnce()
    await new Promise(resolve => setImmediate(resolve))
  }
  /** Rounds every five seconds, for so long. */
  const rounds = async (ms: number): Promise<void> => {
    for (let passed = 0; passed < ms; passed += 5000) {
      time.advance(5000)
      await round()
    }
  }
  return { board, courier, target, round, rounds, missed, troubles }
}

t.test('an alarm is told once when it begins and once when it is over', async t => {
  const its = world()
  const { board, round, rounds } = replica(its)
  board.raise(benched)
  await round()
  await rounds(1_000_000)
  t.same(its.heard, ['raised key-benched k1'])
  board.clear('key-benched', 'k1')
  await round()
  t.same(its.heard, ['raised key-benched k1', 'cleared key-benched k1'])
  await rounds(1_000_000)
  t.equal(its.heard.length, 2)
  t.equal(its.shared.entries.size, 0, 'and then forgotten')
})

t.test('a message has what the operator needs to know, and is signed', async t => {
  const its = world()
  const { board, round } = replica(its)
  const since = new Date(its.time.now()).toISOString()
  board.raise({
    ...benched,
    fields: { ...benched.fields, err: new Error('sk-secret'), prompt: 'a cube', url: 'redis://u:p@h', taskId: 'x'.repeat(257) }
  })
  its.time.advance(1000)
  await round()
  const [{ url, headers, body }] = its.requests as [WebhookRequest]
  t.equal(url, 'https://ops.example/alarms')
  t.same(JSON.parse(String(body)), {
    type: 'alarm.raised',
    timestamp: new Date(its.time.now()).toISOString(),
    data: {
      kind: 'key-benched',
      about: 'k1',
      text: 'it is benched',
      since,
      count: 1,
      grade: null,
      details: { keyId: 'k1', state: 'refused' },
      gateway: 'https://gateway.example'
    }
  })
  t.match(headers, {
    'content-type': 'application/json', 'webhook-id': /^msg_[\w-]{27}$/, 'webhook-signature': /^v1,[A-Za-z0-9+/]{43}=$/
  })
})

t.test('what comes and goes is told at most once in the stated time', async t => {
  const its = world()
  const { board, round, rounds } = replica(its)
  board.raise(benched)
  await round()
  for (let count = 0; count < 10; count++) {
    board.clear('key-benched', 'k1')
    await rounds(10_000)
    board.raise(benched)
    await rounds(10_000)
  }
  t.same(its.heard, ['raised key-benched k1'], 'it is on again, as was told')
  board.clear('key-benched', 'k1')
  await rounds(60_000)
  t.equal(its.heard.length, 1, 'not yet')
  await rounds(60_000)
  t.same(its.heard, ['raised key-benched k1', 'cleared key-benched k1'])
  board.raise(benched)
  await rounds(60_000)
  board.clear('key-benched', 'k1')
  await rounds(leastMs)
  t.equal(its.heard.length, 2, 'what is over before its turn is not told')
})

t.test('what passes is one message, however often it comes, and over after a while', async t => {
  const its = world()
  const { board, rounds } = replica(its)
  for (let count = 0; count < 30; count++) {
    board.raise(unknown)
    await rounds(60_000)
  }
  t.same(its.heard, ['raised unknown-outcome'])
  await rounds(passingMs)
  t.same(its.heard, ['raised unknown-outcome', 'cleared unknown-outcome'])
})

t.test('what grows is told again when it is worse, in its time, and not when it is better', async t => {
  const its = world()
  const { board, round, rounds } = replica(its)
  const at = (grade: number): Alarm => ({ kind: 'ceiling', about: 'gateway day', grade, fields: {}, text: 'used' })
  board.set(at(80), true)
  await round()
  board.set(at(90), true)
  await rounds(10_000)
  board.set(at(100), true)
  await rounds(leastMs)
  t.same(its.heard, ['raised ceiling gateway day 80', 'raised ceiling gateway day 100'])
  board.set(at(80), true)
  await rounds(leastMs)
  t.equal(its.heard.length, 2)
  board.set(at(80), false)
  await rounds(leastMs)
  t.same(its.heard.at(-1), 'cleared ceiling gateway day 80')
})

t.test('a message that does not arrive is sent again, with the same id, for as long as it is true', async t => {
  const its = world()
  const { board, round, rounds, missed } = replica(its)
  its.answers.push(500, null, 404, 500, 302, 500)
  board.raise(benched)
  await round()
  const times = [its.time.now()]
  for (let rest = 40; rest > 0 && its.heard.length === 0; rest--) {
    const before = its.requests.length
    for (let count = 0; its.requests.length === before; count++) await rounds(5000)
    times.push(its.time.now())
  }
  const waits = times.slice(1).map((at, index) => at - times[index]!)
  t.same(waits, [...retryMs, retryMs.at(-1), retryMs.at(-1)])
  t.same(its.heard, ['raised key-benched k1'])
  t.equal(new Set(its.requests.map(({ headers }) => headers['webhook-id'])).size, 1)
  t.equal(missed.length, 6)
  its.answers.push(500)
  board.clear('key-benched', 'k1')
  await rounds(leastMs)
  board.raise(benched)
  await rounds(leastMs)
  t.equal(its.heard.length, 1, 'the end that could not be told is not true any more')
})

t.test('three replicas that see the same say it once, and what one of them alone sees is said too', async t => {
  const its = world()
  const three = [replica(its, () => true), replica(its, () => false), replica(its, () => false)]
  const all = async (ms: number) => {
    for (let passed = 0; passed < ms; passed += 5000) {
      its.time.advance(5000)
      for (const { round } of three) await round()
    }
  }
  for (const { board } of three) board.raise(benched)
  three[2]!.board.raise(unknown)
  await all(20_000)
  t.same(its.heard.sort(), ['raised key-benched k1', 'raised unknown-outcome'])
  three[1]!.board.clear('key-benched', 'k1')
  await all(120_000)
  t.equal(its.heard.length, 2, 'the others still see it')
  for (const { board } of three) board.clear('key-benched', 'k1')
  await all(leastMs)
  t.same(its.heard.at(-1), 'cleared key-benched k1')
})

t.test('what is over before the one that leads has looked is not told, and forgotten', async t => {
  const its = world()
  const [leader, other] = [replica(its, () => true), replica(its, () => false)]
  other.board.raise(benched)
  await other.round()
  other.board.clear('key-benched', 'k1')
  await other.round()
  t.equal(its.shared.entries.size, 1)
  await leader.round()
  t.equal(its.shared.entries.size, 0)
  t.same(its.heard, [])
})

t.test('a replica that dies leaves its alarms to a successor, who says nothing twice and says the end', async t => {
  const its = world()
  const first = replica(its)
  first.board.raise(benched)
  first.board.raise({ ...benched, about: 'k2' })
  await first.round()
  const second = replica(its)
  second.board.raise(benched)
  await second.rounds(seenMs * 2)
  t.same(its.heard, ['raised key-benched k1', 'raised key-benched k2', 'cleared key-benched k2'])
})

t.test('that the store is away is told by the replica that has led last, and at once', async t => {
  const its = world()
  const [leader, other] = [replica(its, () => true), replica(its, () => false)]
  for (const { round } of [leader, other]) await round()
  its.shared.state.isDown = true
  const down: Alarm = { kind: 'store-down', about: '', fields: {}, text: 'the store does not answer' }
  for (const { board, round } of [leader, other]) {
    board.raise(down)
    board.raise(benched)
    await t.rejects(round(), { code: 'GW_STORE_DOWN' })
  }
  await until('it is told', () => its.heard.length > 0)
  t.same(its.heard, ['raised store-down'])
  its.time.advance(leastMs)
  its.shared.state.isDown = false
  for (const { board, round } of [leader, other]) {
    board.clear('store-down', '')
    await round()
  }
  t.same(its.heard, ['raised store-down', 'cleared store-down', 'raised key-benched k1'], 'and then what had to wait')
  its.time.advance(leastMs)
  await leader.round()
  await leader.round()
  t.equal(its.heard.length, 3, 'and no more of it')
})

t.test('a clock that is put back or ahead by a day holds nothing up', async t => {
  for (const hours of [-25, 25]) {
    const its = world()
    const { board, round, rounds } = replica(its)
    board.raise(benched)
    await round()
    its.time.step(hours * 3_600_000)
    await rounds(leastMs)
    board.clear('key-benched', 'k1')
    await rounds(leastMs)
    t.equal(its.heard.at(-1), 'cleared key-benched k1')
    board.raise(benched)
    await rounds(leastMs)
    t.equal(its.heard.at(-1), 'raised key-benched k1')
  }
})

t.test('what could not be noted is told once more, and what is under way at the end is left to the next', async t => {
  const its = world()
  const { board, courier, round, rounds, troubles } = replica(its)
  its.shared.state.isFull = true
  board.raise(benched)
  await round()
  t.match(troubles, [{ code: 'GW_STORE_DOWN' }])
  its.shared.state.isFull = false
  await rounds(5000)
  t.same(its.heard, ['raised key-benched k1', 'raised key-benched k1'])
  t.equal(new Set(its.requests.map(({ headers }) => headers['webhook-id'])).size, 1, 'which the receiver can tell')
  board.raise({ ...benched, about: 'k2' })
  its.answers.push(0)
  await round()
  await courier.close()
  t.equal(its.shared.entries.get(alarmName('key-benched', 'k2'))?.told, null)
  await round()
  t.equal(its.heard.length, 2, 'after its end it begins nothing')
})

t.test('a test says that it is one', async t => {
  const its = world()
  const { target } = replica(its)
  its.answers.push(200)
  t.same(await target.test(), { status: 200, error: null })
  t.match(JSON.parse(String(its.requests[0]!.body)), { type: 'alarm.test', data: { gateway: 'https://gateway.example' } })
})
