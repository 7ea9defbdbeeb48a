import { inspect } from 'node:util'
import t from 'tap'
import {
  keyRing, keyTrouble, limitedMs, type Probe, probeIntervalMs, type ProbeResult, restMs
} from '../../src/domain/key-ring.ts'
import { Secret } from '../../src/domain/secret.ts'
import { retryAfterMs } from '../../src/domain/time.ts'
import { readEnvelope, type SubmitOutcome, type UpstreamKey } from '../../src/domain/upstream.ts'
import { isGatewayError } from '../../src/errors.ts'
import { keyFor, withKeyFailover } from '../../src/http/stages.ts'
import { clock } from '../helpers/clock.ts'
import { random } from '../helpers/random.ts'

const drainMs = 3600_000

function keyOf (index: number): UpstreamKey {
  return { id: `key-${index}`, secret: new Secret(`secret-${index}`) }
}

function ring (count: number) {
  const time = clock()
  const keys = Array.from({ length: count }, (_, index) => keyOf(index))
  const verdicts = new Map<string, ProbeResult>()
  const balances = new Map<string, number>()
  const probes: string[] = []
  const changes: string[] = []
  return {
    time,
    keys,
    verdicts,
    balances,
    probes,
    changes,
    ring: keyRing({
      keys,
      drainMs,
      ...time,
      probe: async ({ id }): Promise<Probe> => {
        probes.push(id)
        return { verdict: verdicts.get(id) ?? 'fine', balance: balances.get(id) ?? null }
      },
      onChange: (keyId, state) => changes.push(`${keyId} ${state}`)
    })
  }
}

t.test('keys take turns: the one that rested longest is next', async t => {
  const { ring: it, keys, verdicts, time } = ring(3)
  t.same([1, 2, 3, 4].map(() => it.choose('m')?.id), ['key-0', 'key-1', 'key-2', 'key-0'])
  verdicts.set('key-1', 'empty')
  await it.verify(keys[1]!)
  t.same([1, 2, 3].map(() => it.choose('m')?.id), ['key-2', 'key-0', 'key-2'])
  verdicts.delete('key-1')
  time.advance(probeIntervalMs)
  await it.verify(keys[1]!)
  t.same(
    [1, 2, 3].map(() => it.choose('m')?.id),
    ['key-1', 'key-0', 'key-2'],
    'the one that was away has rested longest'
  )
})

t.test('a doubt that the probe does not share leaves the key in use', async t => {
  const { ring: it, keys, changes } = ring(1)
  t.equal(await it.verify(keys[0]!), 'fine')
  t.equal(it.choose('m')?.id, 'key-0')
  t.same(changes, [])
})

t.test('a key that is refused or has no money is benched, and the operator is told once', async t => {
  for (const verdict of ['refused', 'empty'] as const) {
    const { ring: it, keys, verdicts, changes, time } = ring(2)
    const start = time.now()
    time.advance(1000)
    verdicts.set('key-0', verdict)
    t.equal(await it.verify(keys[0]!), verdict)
    time.advance(1000)
    t.equal(await it.verify(keys[0]!), verdict)
    t.same(changes, [`key-0 ${verdict}`])
    t.same([it.choose('m')?.id, it.choose('m')?.id], ['key-1', 'key-1'], 'the others serve')
    t.same(it.states(), [
      { keyId: 'key-0', state: verdict, since: start + 1000, restingUntil: null, balance: null },
      { keyId: 'key-1', state: 'ready', since: start, restingUntil: null, balance: null }
    ])
    t.equal(it.byId('key-0'), keys[0], 'and it still asks for its own tasks')
  }
})

t.test('an unclear probe benches nobody', async t => {
  const { ring: it, keys, verdicts } = ring(1)
  verdicts.set('key-0', 'unclear')
  t.equal(await it.verify(keys[0]!), 'unclear')
  t.equal(it.choose('m')?.id, 'key-0')
})

t.test('concurrent doubts share one probe, and a key is probed at most once in ten seconds', async t => {
  const { ring: it, keys, probes, time } = ring(1)
  await Promise.all([1, 2, 3].map(() => it.verify(keys[0]!)))
  time.advance(probeIntervalMs - 1)
  await it.verify(keys[0]!)
  t.equal(probes.length, 1)
  time.advance(1)
  await it.verify(keys[0]!)
  t.equal(probes.length, 2)
})

t.test('the balance is what the last probe told', async t => {
  const { ring: it, keys, verdicts, balances, time } = ring(1)
  balances.set('key-0', 74.87)
  await it.verify(keys[0]!)
  t.match(it.states(), [{ balance: 74.87 }])
  balances.delete('key-0')
  verdicts.set('key-0', 'unclear')
  time.advance(probeIntervalMs)
  await it.verify(keys[0]!)
  t.match(it.states(), [{ state: 'ready', balance: null }])
})

t.test('a benched key comes back by itself once the upstream takes it again', async t => {
  const { ring: it, keys, verdicts, changes, time } = ring(1)
  verdicts.set('key-0', 'empty')
  await it.verify(keys[0]!)
  t.equal(it.choose('m'), undefined)
  t.equal(it.readyInMs(), probeIntervalMs)
  verdicts.set('key-0', 'fine')
  time.advance(probeIntervalMs)
  t.equal(it.readyInMs(), 0)
  t.equal(it.choose('m'), undefined, 'who misses it makes the ring ask')
  await it.verify(keys[0]!)
  t.equal(it.choose('m')?.id, 'key-0')
  t.same(changes, ['key-0 empty', 'key-0 ready'])
})

t.test('a key that was denied a model rests from that one alone, for a minute', async t => {
  const { ring: it, keys, time } = ring(2)
  it.learn(keys[0]!, 'sora-2', 'denied')
  t.same([1, 2].map(() => it.choose('sora-2')?.id), ['key-1', 'key-1'])
  t.same([1, 2].map(() => it.choose('suno')?.id), ['key-0', 'key-1'])
  t.match(it.states(), [{ state: 'ready' }, { state: 'ready' }])
  time.advance(restMs - 1)
  t.equal(it.choose('sora-2')?.id, 'key-1')
  time.advance(1)
  t.same([1, 2].map(() => it.choose('sora-2')?.id), ['key-0', 'key-1'])
})

t.test('the key that was just tried can be left out', async t => {
  const { ring: it, keys } = ring(2)
  t.equal(it.choose('m', keys[0])?.id, 'key-1')
  t.equal(ring(1).ring.byId('nobody'), undefined)
  t.equal(ring(1).ring.choose('m', keys[0]), undefined)
})

t.test('then the key that served the model last is tried, also while it rests', async t => {
  const { ring: it, keys, time } = ring(4)
  for (const index of [3, 2]) it.learn(keys[index]!, 'm', 'accepted')
  it.learn(keys[2]!, 'm', 'denied')
  t.equal(it.choose('m', keys[0])?.id, 'key-2')
  t.equal(it.choose('m', keys[2])?.id, 'key-3')
  t.equal(it.choose('suno', keys[0])?.id, 'key-1', 'what nobody has served is anybody\'s')
  time.advance(restMs)
  t.equal(it.choose('m', keys[0])?.id, 'key-2')
})

t.test(
  'a key that the upstream has had enough of for a model rests as long as that says, and the others serve',
  async t => {
    const { ring: it, keys, time } = ring(3)
    const start = time.now()
    it.learn(keys[0]!, 'm', 'limited', '7')
    t.same(
      [1, 2, 3].map(() => it.choose('m')?.id),
      ['key-1', 'key-2', 'key-1']
    )
    t.match(it.states()[0], { state: 'resting', since: start, restingUntil: start + 7000 })
    time.advance(6999)
    t.not(it.choose('m')?.id, 'key-0')
    time.advance(1)
    t.equal(it.choose('m')?.id, 'key-0')
    t.match(it.states()[0], { state: 'ready', since: start + 7000, restingUntil: null })
    t.equal(it.byId('key-0'), keys[0])
  }
)

t.test('such a rest is bounded, and short when the upstream names none', async t => {
  for (const [retryAfter, ms] of [
    [undefined, limitedMs],
    ['', limitedMs],
    ['soon', limitedMs],
    ['0', 0],
    ['999999999', restMs],
    ['Thu, 15 Jan 2026 12:00:20 GMT', 20_000]
  ] as const) {
    const { ring: it, keys, time } = ring(2)
    it.choose('m')
    it.learn(keys[0]!, 'm', 'limited', retryAfter)
    it.choose('m')
    t.equal(it.choose('m')?.id, ms === 0 ? 'key-0' : 'key-1', String(retryAfter))
    time.advance(ms)
    t.ok([it.choose('m')?.id, it.choose('m')?.id].includes('key-0'), String(retryAfter))
  }
})

t.test(
  'when all keys rest, the one with the shortest rest serves; a longer rest is not cut short by another answer',
  async t => {
    const { ring: it, keys, time } = ring(3)
    for (const [index, seconds] of [30, 20, 40].entries()) it.learn(keys[index]!, 'm', 'limited', String(seconds))
    t.same(
      [1, 2].map(() => it.choose('m')?.id),
      ['key-1', 'key-1']
    )
    it.learn(keys[1]!, 'm', 'denied')
    it.learn(keys[1]!, 'm', 'limited', '1')
    t.same(
      [1, 2].map(() => it.choose('m')?.id),
      ['key-0', 'key-0']
    )
    t.same(
      [1, 2, 3].map(() => it.choose('suno')?.id),
      ['key-2', 'key-1', 'key-0'],
      'for other models they take turns'
    )
    it.learn(keys[2]!, 'm', 'accepted')
    t.equal(it.choose('m')?.id, 'key-2', 'a key that serves it rests no longer')
    time.advance(restMs)
    t.equal(new Set([1, 2, 3].map(() => it.choose('m')?.id)).size, 3)
  }
)

t.test('one of all keys is always shown as ready, unless all are benched', async t => {
  const { ring: it, keys, verdicts, time } = ring(3)
  const start = time.now()
  for (const [index, seconds] of [30, 20, 40].entries()) it.learn(keys[index]!, 'm', 'limited', String(seconds))
  t.match(it.states(), [
    { state: 'resting' },
    { state: 'ready', since: start, restingUntil: null },
    { state: 'resting' }
  ])
  verdicts.set('key-1', 'refused')
  await it.verify(keys[1]!)
  t.match(it.states(), [{ state: 'ready' }, { state: 'refused' }, { state: 'resting' }])
  it.replace([keys[2]!])
  t.match(it.states(), [{ state: 'draining' }, { state: 'draining' }, { state: 'ready' }])
  verdicts.set('key-2', 'empty')
  await it.verify(keys[2]!)
  t.match(it.states(), [{ state: 'draining' }, { state: 'draining' }, { state: 'empty' }])
})

t.test('when all keys are benched, the wait is that of the first to be asked about again', async t => {
  const { ring: it, keys, verdicts, time } = ring(2)
  for (const { id } of keys) verdicts.set(id, 'refused')
  await it.verify(keys[0]!)
  t.equal(it.readyInMs(), 0, 'one is ready')
  time.advance(3000)
  await it.verify(keys[1]!)
  t.equal(it.choose('m'), undefined)
  t.equal(it.readyInMs(), probeIntervalMs - 3000)
})

t.test('names of models that callers make up are forgotten, the oldest first', async t => {
  const { ring: it, keys } = ring(2)
  for (let count = 0; count <= 1000; count++) it.learn(keys[0]!, `m${count}`, 'denied')
  t.equal(it.choose('m0')?.id, 'key-0', 'forgotten')
  t.equal(it.choose('m1')?.id, 'key-1')
  t.equal(it.choose('m1')?.id, 'key-1')
})

t.test('a 429 to a submit makes its key rest and passes; one to a status call does neither harm', async t => {
  const { ring: it, keys } = ring(2)
  const answer = {
    status: 429,
    envelope: { code: 429, message: 'slow', taskId: undefined, state: undefined, data: null },
    answer: { retryAfter: '7' }
  }
  t.equal(await keyTrouble(answer, keys[0]!, it), null)
  t.match(it.states()[0], { state: 'ready' })
  t.equal(await keyTrouble(answer, keys[0]!, it, 'sora-2'), null)
  t.match(it.states()[0], { state: 'resting' })
  t.same([1, 2].map(() => it.choose('sora-2')?.id), ['key-1', 'key-1'])
  t.equal(it.choose('suno')?.id, 'key-0')
})

t.test('a key that was replaced takes no submit, and serves its tasks as long as one may run', async t => {
  const { ring: it, keys, time, probes } = ring(2)
  const start = time.now()
  time.advance(1000)
  it.replace([keyOf(1), keyOf(2)])
  t.same([1, 2, 3, 4].map(() => it.choose('m')?.id), ['key-1', 'key-2', 'key-1', 'key-2'])
  t.equal(it.byId('key-0'), keys[0])
  t.same(it.states().map(({ keyId, state, since }) => [keyId, state, since]), [
    ['key-0', 'draining', start + 1000], ['key-1', 'ready', start], ['key-2', 'ready', start + 1000]
  ])
  time.advance(drainMs / 2)
  it.replace([keyOf(1)])
  time.advance(drainMs / 2)
  t.equal(it.byId('key-0'), undefined, 'it drains from when it left')
  t.ok(it.byId('key-2'))
  t.equal(it.states().length, 2)
  it.learn(keys[0]!, 'm', 'denied')
  t.equal(await it.verify(keys[0]!), 'unclear', 'nobody asks about a key that is no more')
  t.same(probes, [])
})

t.test('a key that comes back is as it was, also benched', async t => {
  const { ring: it, keys, verdicts, time, probes } = ring(2)
  verdicts.set('key-1', 'refused')
  await it.verify(keys[1]!)
  it.replace([keyOf(2)])
  it.choose('m')
  time.advance(probeIntervalMs)
  it.choose('m')
  t.same(probes, ['key-1'], 'a benched key that drains is not missed')
  it.replace([keyOf(0), keyOf(1)])
  t.same(it.states().map(({ keyId, state, since }) => [keyId, state, time.now() - since]), [
    ['key-0', 'ready', 0], ['key-1', 'refused', probeIntervalMs], ['key-2', 'draining', 0]
  ])
  t.equal(it.byId('key-0'), keys[0])
  t.same([it.choose('m')?.id, it.choose('m')?.id], ['key-0', 'key-0'])
  verdicts.delete('key-1')
  await it.verify(keys[1]!)
  time.advance(probeIntervalMs)
  await it.verify(keys[1]!)
  t.equal(it.choose('m')?.id, 'key-1')
})

t.test('a retry-after is seconds or a date', async t => {
  const now = Date.UTC(2026, 0, 15, 12)
  for (const [text, ms] of [
    ['0', 0],
    ['120', 120_000],
    ['Thu, 15 Jan 2026 12:01:00 GMT', 60_000],
    ['Thu, 15 Jan 2026 11:00:00 GMT', 0],
    ['', null],
    ['-1', null],
    ['1.5', null],
    ['1e3', null],
    ['soon', null],
    ['2026-01-15', null],
    ['Thu, 99 Jan 2026 12:01:00 GMT', null]
  ] as const) { t.equal(retryAfterMs(text, now), ms, text) }
})

const { seed, int, pick } = random()
const models = ['nano-banana', 'sora-2', 'suno']
const statuses = [400, 401, 402, 403, 429, 500]
const retryAfters = [undefined, '0', '1', '30', '600']

/** What is so upstream, whatever callers are told. */
interface World {
  readonly revoked: ReadonlySet<number>
  readonly empty: ReadonlySet<number>
  /** `key model` */
  readonly forbidden: ReadonlySet<string>
}

/** Time passes, and then somebody submits: honestly, or something that is answered with `status` whatever the key. */
interface Event {
  readonly afterMs: number
  readonly model: string
  readonly status: number | null
  readonly retryAfter: string | undefined
}

const anyEvents = (count: number): Event[] =>
  Array.from({ length: count }, () => ({
    afterMs: pick([0, 0, 500, 5000, 20_000, 61_000]),
    model: pick(models),
    status: int(3) === 0 ? null : pick(statuses),
    retryAfter: pick(retryAfters)
  }))

/** What became of each submit with that many keys: accepted, refused (or our key was), or turned away by us. */
async function played (count: number, { revoked, empty, forbidden }: World, events: readonly Event[]) {
  const time = clock()
  const keys: UpstreamKey[] = Array.from({ length: count }, (_, index) => ({
    id: String(index),
    secret: new Secret(`secret-${index}`)
  }))
  const ring = keyRing({
    keys,
    ...time,
    drainMs: 1,
    probe: async ({ id }) => ({
      verdict: revoked.has(Number(id)) ? 'refused' : empty.has(Number(id)) ? 'empty' : 'fine',
      balance: null
    }),
    onChange () {}
  })
  const refusal = (status: number, retryAfter?: string): SubmitOutcome => {
    const body = Buffer.from(JSON.stringify({ code: status, message: 'no', data: null }))
    const answer = { status, contentType: 'application/json', retryAfter, body, leaksKey: false }
    return { kind: 'refused', status, envelope: readEnvelope(body)!, answer }
  }
  const said: Array<'accepted' | 'refused' | 'turned away'> = []
  for (const { afterMs, model, status, retryAfter } of events) {
    time.advance(afterMs)
    const attempt = async ({ id }: UpstreamKey): Promise<SubmitOutcome> => {
      if (revoked.has(Number(id)) || forbidden.has(`${id} ${model}`)) return refusal(401)
      if (empty.has(Number(id))) return refusal(402)
      if (status !== null) return refusal(status, retryAfter)
      return {
        kind: 'accepted',
        taskId: 'x',
        answer: { status: 200, contentType: '', retryAfter: undefined, body: Buffer.alloc(0), leaksKey: false }
      }
    }
    try {
      const submit = { model, keyId: undefined }
      const { kind } = await withKeyFailover(ring, submit, keyFor(submit, ring), attempt)
      said.push(kind === 'accepted' ? 'accepted' : 'refused')
    } catch (error) {
      if (!isGatewayError(error) || error.code !== 'GW_NO_KEY') throw error
      said.push('turned away')
    }
  }
  return said
}

const failure = (message: string, details: object) =>
  new Error(`${message}: ${inspect(details, { depth: 4, maxArrayLength: null })}`)

const nothing: World = { revoked: new Set(), empty: new Set(), forbidden: new Set() }
const someOf = (count: number) => new Set(Array.from({ length: count }, (_, index) => index).filter(() => int(3) === 0))

t.test(
  `with keys that are all good, every honest submit is served, whatever others are answered (TEST_SEED=${seed})`,
  async () => {
    for (let run = 0; run < 200; run++) {
      const events = anyEvents(40)
      for (const count of [1, 2, 3, 4]) {
        const said = await played(count, nothing, events)
        const failed = events.findIndex(({ status }, index) => status === null && said[index] !== 'accepted')
        if (failed !== -1 || said.includes('turned away')) throw failure(`${count} keys`, { failed, events, said })
      }
    }
  }
)

t.test(
  `a ring with one key more serves whenever the ring without it does, be that key good or bad (TEST_SEED=${seed})`,
  async () => {
    for (let run = 0; run < 200; run++) {
      const count = 1 + int(3)
      const isBad = int(2) === 0
      // At most one bad key: with one try beside the first, nobody can promise more of keys that have never served.
      const world = isBad ? { ...nothing, [pick(['revoked', 'empty'])]: new Set([count]) } : nothing
      const forbidden = new Set(isBad ? [] : models.filter(() => int(2) === 0).map(model => `${count} ${model}`))
      const events = anyEvents(40)
      const [fewer, more] = [
        await played(count, { ...world, forbidden }, events),
        await played(count + 1, { ...world, forbidden }, events)
      ]
      const worse = fewer.findIndex(
        (was, index) =>
          (was === 'accepted' && more[index] !== 'accepted') || (was !== 'turned away' && more[index] === 'turned away')
      )
      if (worse !== -1) throw failure(`${count + 1} keys are worse than ${count}`, { worse, events, fewer, more })
    }
  }
)

t.test(
  `as long as one key is good nobody is turned away, and a model that was served once is served always (TEST_SEED=${seed})`,
  async () => {
    for (let run = 0; run < 300; run++) {
      const count = 2 + int(4)
      const good = int(count)
      const without = (bad: Set<number>) => new Set([...bad].filter(index => index !== good))
      const world = {
        revoked: without(someOf(count)),
        empty: without(someOf(count)),
        forbidden: new Set(models.flatMap(model => [...someOf(count)].map(index => `${index} ${model}`)))
      }
      const events = anyEvents(60)
      const said = await played(count, world, events)
      if (said.includes('turned away')) throw failure('turned away', { world, events, said })
      const served = new Set<string>()
      for (const [index, { model, status }] of events.entries()) {
        if (said[index] === 'accepted') served.add(model)
        else if (status === null && served.has(model)) { throw failure(`${model} is served no more`, { index, world, events, said }) }
      }
    }
  }
)
