import t, { type Test } from 'tap'
import { redisStore } from '../../src/adapters/redis/store.ts'
import type { ReservationId } from '../../src/domain/ledger.ts'
import { Secret } from '../../src/domain/secret.ts'
import type { Store } from '../../src/domain/store.ts'
import type { Awaitable } from '../../src/domain/time.ts'
import { demandOf } from '../contracts/ledger-balance.ts'
import { clock } from '../helpers/clock.ts'
import { redisCluster, redisServer, type RedisServer, type RedisServerOptions } from '../helpers/redis-server.ts'
import { until } from '../helpers/until.ts'

const terms = {
  reservedMs: 30_000,
  sentMs: 140_000,
  giveUpMs: 86_400_000,
  refundsPerPeriod: 3,
  retentionMs: 30 * 86_400_000
}
const sent = { to: 'sent', keyId: 'key-1' } as const
const storeDown = { code: 'GW_STORE_DOWN', detail: { retryAfterSeconds: 1 } }
const answer = Buffer.from('{"code":200}')
const { periodStart } = demandOf()

async function open (t: Test, { url }: { readonly url: string }, time = clock()) {
  const reasons: string[] = []
  const store = await redisStore({
    url: new Secret(url),
    terms,
    now: time.now,
    onLost: ({ message }) => reasons.push(message)
  })
  t.teardown(() => store.close())
  return { store, time, reasons }
}

async function start (t: Test, options: RedisServerOptions = {}) {
  const server = await redisServer(t, { appendonly: true, ...options })
  return { server, ...await open(t, server) }
}

async function reserve ({ ledger }: Store, more = {}): Promise<ReservationId> {
  const reserved = await ledger.reserve(demandOf(more))
  if (!reserved.granted) throw new Error(`no ${reserved.reason}`)
  return reserved.id
}

async function claimed (store: Store, taskId: string, more = {}): Promise<ReservationId> {
  const id = await reserve(store, more)
  await store.ledger.advance(id, sent)
  await store.ledger.advance(id, { to: 'claimed', taskId })
  return id
}

const balanceOf = (store: Store, subject = 'app:alice') => store.accounts.balanceOf(subject, periodStart)
const ready = (store: Store) => until('the store is ready', () => store.ping().then(() => true, () => false))

/** Every write of every seam, each as if it were the first to find out. */
function writes (store: Store, id: ReservationId): Array<() => Awaitable<unknown>> {
  return [
    () => store.ledger.reserve(demandOf()),
    () => store.ledger.advance(id, sent),
    () => store.ledger.advance(id, { to: 'claimed', taskId: 'one' }),
    () => store.ledger.advance(id, { to: 'released' }),
    () => store.ledger.settle({ taskId: 'known', state: 'failed', answer }),
    () => store.accounts.grant({ subject: 'app:alice', microcredits: 5 }),
    () => store.audit.append([{ at: 0, kind: 'mint', actor: 'issuer', subject: null, detail: {} }]),
    () => store.revocations.revoke('session', Date.UTC(2027)),
    () => store.leads(),
    () => store.ping()
  ]
}

function reads (store: Store): Array<() => Awaitable<unknown>> {
  return [
    () => store.ledger.taskOf('known'),
    () => store.ledger.taskOf('strange'),
    () => store.unfinished.page(null, Date.UTC(2027), 10),
    () => store.idempotency.earlier('app:alice', { key: 'key', fingerprint: 'print' }),
    () => store.accounts.balanceOf('app:alice', periodStart),
    () => store.records.tasksOf('app:alice', { cursor: null, limit: 10 }),
    () => store.records.unknowns({ cursor: null, limit: 10 }),
    () => store.records.usage({ from: '2026-01-01', to: '2026-12-31' }),
    () => store.audit.read({ cursor: null, limit: 10 }),
    async () => store.revocations.isRevoked({ id: 'stranger', subject: 'app:alice', issuedAt: 0 }),
    () => store.accounts.spentIn('app:alice', 'budget'),
    () => store.callbackSecrets.reservationOf('hash')
  ]
}

/** All at once: none may wait for another's failure. */
async function allFail (t: Test, calls: ReadonlyArray<() => Awaitable<unknown>>, withinMs = 1500): Promise<void> {
  const begin = performance.now()
  const outcomes = await Promise.allSettled(calls.map(call => Promise.try(call)))
  t.ok(performance.now() - begin < withinMs, 'in time')
  t.match(outcomes, calls.map(() => ({ status: 'rejected', reason: storeDown })))
}

t.test(
  'a server that dies is said to be down at once, and one that comes back is used again with all it knew',
  async t => {
    const { server, store, reasons } = await start(t)
    await claimed(store, 'known', { microcredits: 5 })
    const id = await reserve(store, { microcredits: 3 })
    await server.kill()
    await until('the connection is gone', () =>
      store.ping().then(
        () => false,
        () => true
      )
    )
    await allFail(t, [...writes(store, id), ...reads(store)], 500)
    await until('the reason is told', () => reasons.length > 0)

    await server.start()
    await ready(store)
    t.match(reasons, [/ECONNREFUSED/], 'once')
    t.match(await balanceOf(store), { used: 8, unfinished: 2 })
    t.equal(await store.ledger.advance(id, sent), true, 'the same step, once more')
    t.equal(await store.ledger.settle({ taskId: 'known', state: 'failed', answer }), true)
    t.match(await balanceOf(store), { used: 3, unfinished: 1 })
  })

t.test('what was on its way to a server that dies is told within a second, and not sent again', async t => {
  const { server, store } = await start(t)
  server.freeze()
  const lost = allFail(t, [() => store.ledger.reserve(demandOf({ microcredits: 5 }))])
  await server.kill()
  await lost
  await server.start()
  await ready(store)
  t.match(await balanceOf(store), { used: 0, unfinished: 0 })
})

t.test(
  'a server that stands still fails each call within about a second; what it did all the same lapses by its lease',
  async t => {
    const { server, store, time } = await start(t)
    await claimed(store, 'known', { microcredits: 1 })
    await server.admin.call('CLIENT', 'PAUSE', 1600, 'ALL')
    await allFail(t, [
      () => store.ledger.reserve(demandOf({ microcredits: 5 })),
      () => store.ping(),
      () => store.ledger.taskOf('strange')
    ])
    await ready(store)
    t.match(await balanceOf(store), { used: 6, unfinished: 2 }, 'it was carried out, and nobody has its name')
    time.advance(terms.reservedMs)
    t.same(await store.ledger.sweep(), { released: 1, unknown: 0 })
    t.match(await balanceOf(store), { used: 1, unfinished: 1 })
  }
)

t.test('a server whose process is stopped is no different, and the same connection goes on', async t => {
  const { server, store } = await start(t)
  const id = await claimed(store, 'known')
  server.freeze()
  await allFail(t, [...writes(store, id), ...reads(store)])
  server.thaw()
  await ready(store)
  t.equal(await store.ledger.advance(id, { to: 'claimed', taskId: 'known' }), true)
})

t.test('a server that takes no writes is not ready, and still reads', async t => {
  const { server, store } = await start(t)
  const id = await claimed(store, 'known')
  await server.admin.call('CLIENT', 'PAUSE', 1600, 'WRITE')
  await allFail(t, [() => store.ping(), () => store.ledger.advance(id, { to: 'claimed', taskId: 'known' })])
  t.match(await store.ledger.taskOf('known'), { stage: 'claimed' })
  await ready(store)
})

t.test('a server that became a replica is not ready, and is again when it is a master', async t => {
  const { server, store } = await start(t)
  const id = await reserve(store, { microcredits: 5 })
  await claimed(store, 'known', { microcredits: 1 })
  await server.admin.replicaof('127.0.0.1', 1)
  await allFail(t, writes(store, id))
  const reads = async (): Promise<boolean> => (await store.ledger.taskOf('known'))?.stage === 'claimed'
  await until('it reads', () => reads().catch(() => false))
  await t.rejects(store.ping(), storeDown)

  await server.admin.replicaof('NO', 'ONE')
  await ready(store)
  t.match(await balanceOf(store), { used: 6, granted: 0, unfinished: 2 })
  t.equal(await store.ledger.advance(id, sent), true)
})

t.test('a server that is full is not ready, loses nothing, and takes writes again when it has room', async t => {
  const { server, store } = await start(t)
  const id = await reserve(store, { microcredits: 5, idempotency: { key: 'key', fingerprint: 'print' } })
  await claimed(store, 'known', { microcredits: 1 })
  await server.admin.config('SET', 'maxmemory', '1mb')
  await allFail(t, writes(store, id).filter(write => !/released|revoke/.test(String(write))))
  t.match(await store.ledger.taskOf('known'), { stage: 'claimed' }, 'it still reads')
  t.match(await store.idempotency.earlier('app:alice', { key: 'key', fingerprint: 'print' }), { kind: 'pending' })
  t.match(await balanceOf(store), { used: 6, granted: 0, unfinished: 2 })

  await server.admin.config('SET', 'maxmemory', '0')
  await ready(store)
  t.equal(await store.ledger.advance(id, sent), true)
  t.equal(await store.ledger.settle({ taskId: 'known', state: 'failed', answer }), true)
  t.match(await balanceOf(store), { used: 5, unfinished: 1 })
})

t.test('a server that has forgotten the scripts is told them again', async t => {
  const { server, store } = await start(t)
  const id = await reserve(store)
  await server.admin.script('FLUSH')
  t.equal(await store.ledger.advance(id, sent), true)
  t.equal(await store.ledger.advance(id, { to: 'claimed', taskId: 'one' }), true)
})

t.test('a password that was changed is told to the operator, without either password', async t => {
  const { server, store, reasons } = await start(t, { password: 'the-first-password' })
  await store.ping()
  await server.admin.config('SET', 'requirepass', 'another-password')
  await server.admin.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes')
  await until('the reason is told', () => reasons.length > 0)
  await allFail(t, [() => store.ping(), () => store.ledger.taskOf('one')], 500)
  const error = await store.ping().catch((error: Error) => error)
  t.notMatch(`${JSON.stringify(error)} ${(error as Error).stack} ${reasons}`, /the-first-password|another-password/)
  t.match(reasons[0], /WRONGPASS/)
})

t.test('a mistake of ours does not look like an outage', async t => {
  const { server, store } = await start(t)
  await server.admin.set('gw:{/app:alice}:open', 'this is no list')
  const error = await reserve(store).catch((error: Error) => error) as Error & { command?: unknown }
  t.match(error.message, /WRONGTYPE/)
  t.not((error as { code?: string }).code, 'GW_STORE_DOWN')
  t.equal(error.command, undefined, 'nothing of what it was asked')
})

t.test('a node of a cluster that dies is down for its subjects, and used again when it is back', async t => {
  const cluster = await redisCluster(t, { appendonly: true })
  const { store } = await open(t, cluster)
  const subjects = Array.from({ length: 12 }, (_, index) => `app:${index}`)
  for (const subject of subjects) await claimed(store, `task of ${subject}`, { subject, microcredits: 1 })
  await cluster.servers[1]!.kill()
  const outcomes = await Promise.allSettled(subjects.map(subject => balanceOf(store, subject)))
  const failed = outcomes.filter(({ status }) => status === 'rejected')
  t.ok(failed.length > 0)
  t.match(failed, failed.map(() => ({ reason: storeDown })))
  await t.rejects(store.ping(), storeDown)

  await cluster.servers[1]!.start()
  await ready(store)
  await until('every subject is there', async () => {
    const balances = await Promise.allSettled(subjects.map(subject => balanceOf(store, subject)))
    return balances.every(balance => balance.status === 'fulfilled' && balance.value.used === 1)
  })
})

t.test(
  'a cluster that dies as a whole is used again when it is back, also when the node from the settings is not',
  async t => {
    const cluster = await redisCluster(t, { appendonly: true, directives: ['--cluster-require-full-coverage', 'no'] })
    const { store } = await open(t, cluster)
    for (const server of cluster.servers) await server.kill()
    await allFail(t, [() => store.ping(), () => store.leads()])
    const [, second, third] = cluster.servers as [RedisServer, RedisServer, RedisServer]
    await second.start()
    await third.start()
    await until(
      'subjects of other nodes are there',
      async () => {
        const balances = await Promise.allSettled(
          Array.from({ length: 12 }, (_, index) => balanceOf(store, `app:${index}`))
        )
        return balances.filter(({ status }) => status === 'fulfilled').length > 4
      },
      30_000
    ) // what is left of the cluster has to agree that the first one is gone
    await cluster.servers[0]!.start()
    await ready(store)
  }
)

t.test('a slot that moves to another node is followed', async t => {
  const cluster = await redisCluster(t)
  const { store } = await open(t, cluster)
  const [first] = cluster.servers as [RedisServer]
  const slot = await first.admin.cluster('KEYSLOT', '{/app:alice}')
  const home = Math.floor(slot / Math.ceil(16384 / 3))
  const next = cluster.servers[(home + 1) % 3]!
  const nodeId = String(await next.admin.cluster('MYID'))
  for (const { admin } of [next, ...cluster.servers]) await admin.call('CLUSTER', 'SETSLOT', slot, 'NODE', nodeId)
  await claimed(store, 'one', { microcredits: 5 })
  t.match(await balanceOf(store), { used: 5 })
  t.equal(await next.admin.exists('gw:{/app:alice}:account'), 1)
})
