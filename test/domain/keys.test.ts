import t from 'tap'
import { keyRing, probeIntervalMs, restMs, type Verdict } from '../../src/domain/keys.ts'
import { Secret } from '../../src/domain/secret.ts'
import { clock } from '../helpers/clock.ts'

function ring (count: number) {
  const time = clock()
  const keys = Array.from({ length: count }, (_, index) => ({ id: `key-${index}`, secret: new Secret(`secret-${index}`) }))
  const verdicts = new Map<string, Verdict>()
  const probes: string[] = []
  const changes: string[] = []
  return {
    time,
    keys,
    verdicts,
    probes,
    changes,
    ring: keyRing({
      keys,
      now: time.now,
      probe: async key => {
        probes.push(key.id)
        return verdicts.get(key.id) ?? 'fine'
      },
      onChange: (keyId, state) => changes.push(`${keyId} ${state}`)
    })
  }
}

t.test('keys take turns: the one that rested longest is next', async t => {
  const { ring: it } = ring(3)
  t.same([1, 2, 3, 4].map(() => it.choose('m')?.id), ['key-0', 'key-1', 'key-2', 'key-0'])
})

t.test('a doubt that the probe does not share leaves the key in use', async t => {
  const { ring: it, keys, changes } = ring(1)
  t.equal(await it.doubt(keys[0]!), 'fine')
  t.equal(it.choose('m')?.id, 'key-0')
  t.same(changes, [])
})

t.test('a key that is refused or has no money is benched, and the operator is told once', async t => {
  for (const verdict of ['refused', 'empty'] as const) {
    const { ring: it, keys, verdicts, changes } = ring(2)
    verdicts.set('key-0', verdict)
    t.equal(await it.doubt(keys[0]!), verdict)
    t.equal(await it.doubt(keys[0]!), verdict)
    t.same(changes, [`key-0 ${verdict}`])
    t.same([it.choose('m')?.id, it.choose('m')?.id], ['key-1', 'key-1'], 'the others serve')
    t.same(it.states(), [{ keyId: 'key-0', state: verdict }, { keyId: 'key-1', state: 'ready' }])
    t.equal(it.byId('key-0'), keys[0], 'and it still asks for its own tasks')
  }
})

t.test('an unclear probe benches nobody', async t => {
  const { ring: it, keys, verdicts } = ring(1)
  verdicts.set('key-0', 'unclear')
  t.equal(await it.doubt(keys[0]!), 'unclear')
  t.equal(it.choose('m')?.id, 'key-0')
})

t.test('concurrent doubts share one probe, and a key is probed at most once in ten seconds', async t => {
  const { ring: it, keys, probes, time } = ring(1)
  await Promise.all([1, 2, 3].map(() => it.doubt(keys[0]!)))
  time.advance(probeIntervalMs - 1)
  await it.doubt(keys[0]!)
  t.equal(probes.length, 1)
  time.advance(1)
  await it.doubt(keys[0]!)
  t.equal(probes.length, 2)
})

t.test('a benched key comes back by itself once the upstream takes it again', async t => {
  const { ring: it, keys, verdicts, changes, time } = ring(1)
  verdicts.set('key-0', 'empty')
  await it.doubt(keys[0]!)
  t.equal(it.choose('m'), undefined)
  verdicts.set('key-0', 'fine')
  time.advance(probeIntervalMs)
  t.equal(it.choose('m'), undefined, 'who misses it makes the ring ask')
  await it.doubt(keys[0]!)
  t.equal(it.choose('m')?.id, 'key-0')
  t.same(changes, ['key-0 empty', 'key-0 ready'])
})

t.test('a key rests for one model only, and for a minute', async t => {
  const { ring: it, keys, time } = ring(1)
  it.rest(keys[0]!, 'sora-2')
  t.equal(it.choose('sora-2'), undefined)
  t.equal(it.choose('suno')?.id, 'key-0')
  time.advance(restMs)
  t.equal(it.choose('sora-2')?.id, 'key-0')
})

t.test('the key that was just tried can be left out', async t => {
  const { ring: it, keys } = ring(2)
  t.equal(it.choose('m', keys[0])?.id, 'key-1')
  t.equal(ring(1).ring.byId('nobody'), undefined)
})
