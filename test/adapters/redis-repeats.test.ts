import { setTimeout as wait } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { redisStore } from '../../src/adapters/redis/store.ts'
import { type Earlier, type Repeat, repeatMs, type Transition } from '../../src/domain/ledger.ts'
import { Secret } from '../../src/domain/secret.ts'
import type { Store } from '../../src/domain/store.ts'
import { balance, demandOf } from '../contracts/ledger-balance.ts'
import { sent, terms } from '../contracts/open-books.ts'
import { repeatOf, submitted } from '../contracts/repeats.ts'
import { type Clock, clock } from '../helpers/clock.ts'
import { redisServer, type RedisServer } from '../helpers/redis-server.ts'
import { until } from '../helpers/until.ts'

const subject = 'app:alice'
const claim = (taskId: string): Transition => ({ to: 'claimed', taskId })

/** A server, and replicas over it as they are opened. */
async function start (t: Test) {
  const server = await redisServer(t)
  const time = clock()
  const replica = async (): Promise<Store> => {
    const store = await redisStore({ url: new Secret(server.url), terms, now: time.now, onLost: () => {} })
    t.teardown(() => store.close())
    return store
  }
  return { ...server, server, time, replica }
}

/** A replica that can be kept from Redis, or from its subjects alone; what is on its way is let through. */
async function hindered (t: Test, { admin, port }: RedisServer, { now, elapsed }: Pick<Clock, 'now' | 'elapsed'>) {
  const allow = (...rights: string[]) => admin.acl('SETUSER', 'here', ...rights)
  await allow('on', '>secret', '~*', '&*', '+@all')
  const url = new Secret(`redis://here:secret@localhost:${port}`)
  const store = await redisStore({ url, terms, now, elapsed, onLost: () => {} })
  t.teardown(() => store.close())
  return {
    ...store,
    /** Nothing of it arrives, and its heartbeat has ended. */
    async freeze () {
      await allow('resetkeys')
      await admin.del(await admin.keys('gw:alive:*'))
    },
    /** It can write its heartbeat, and nothing of its subjects. */
    hinder: () => allow('resetkeys', '~gw:store', '~gw:alive:*', '~gw:events:*', '~gw:leader'),
    help: () => allow('~*')
  }
}

/** What a repeat is told when it is decided; `null`: it is none. */
async function decided ({ repeats }: Pick<Store, 'repeats'>, repeat: Repeat = repeatOf()): Promise<Earlier | null> {
  let earlier: Earlier | null = { kind: 'pending' }
  await until('it is decided', async () => {
    earlier = await repeats.take(subject, repeat)
    return earlier?.kind !== 'pending'
  })
  return earlier
}

t.test(
  'an equal submit whose caller waits at another replica is no repeat, once that replica has said that it is there',
  async t => {
    const { replica } = await start(t)
    const [here, there] = [await replica(), await replica()]
    await submitted(here, [sent])
    const repeat = repeatOf()
    t.same(await there.repeats.take(subject, repeat), { kind: 'pending' }, 'nobody knows yet')
    t.match(
      await there.ledger.reserve(demandOf({ repeat: repeatOf() })),
      { reason: 'duplicate', earlier: { kind: 'pending' } },
      'and the ledger neither'
    )
    t.equal(await decided(there, repeat), null)
    t.match(await there.ledger.reserve(demandOf({ repeat })), { granted: true })
  }
)

t.test(
  'an answer that arrived at another replica is no longer repeated when that replica has said that it is there',
  async t => {
    const { replica } = await start(t)
    const [here, there] = [await replica(), await replica()]
    here.repeats.delivered(await submitted(here, [sent, claim('one')]))
    here.repeats.delivered(await submitted(here, [sent, claim('two')]))
    t.equal(await decided(there), null)
  }
)

t.test(
  'what a dead replica held is lost: its tasks are told, what it sent is unknown, what it did not send is given back',
  async t => {
    const { replica, time } = await start(t)
    const [here, there] = [await replica(), await replica()]
    await submitted(here, [], { repeat: repeatOf('reserved') })
    await submitted(here, [sent], { repeat: repeatOf('sent') })
    await submitted(here, [sent, claim('task')], { repeat: repeatOf('claimed') })
    await here.close()
    t.equal(await decided(there, repeatOf('reserved')), null)
    t.same(await decided(there, repeatOf('sent')), { kind: 'unknown' })
    t.same(await decided(there, repeatOf('claimed')), { kind: 'task', taskId: 'task' })
    const { creditsUsed, slotsUsed } = balance(there.ledger)
    t.equal(await creditsUsed(), 2)
    t.equal(await slotsUsed(), 1)
    t.match((await there.records.unknowns({ cursor: null, limit: 9 })).items, [{ taskId: null }], 'an operator sees it')
    time.advance(repeatMs)
    t.equal(await decided(there, repeatOf('sent')), null)
    time.advance(3000)
    t.equal(await decided(there, repeatOf('claimed')), null)
  }
)

t.test('a replica that was only frozen sends nothing that was given back, and what it had sent is found', async t => {
  const { replica, server, time } = await start(t)
  const [here, there] = [await hindered(t, server, time), await replica()]
  const reserved = await submitted(here, [], { repeat: repeatOf('reserved') })
  const id = await submitted(here, [sent])
  const repeat = repeatOf()
  await there.repeats.take(subject, repeat)
  await there.repeats.take(subject, repeatOf('reserved'))
  await here.freeze()
  t.same(await decided(there, repeat), { kind: 'unknown' })
  t.equal(await decided(there, repeatOf('reserved')), null)
  await here.help()
  t.equal(await here.ledger.advance(reserved, sent), false)
  t.equal(await here.ledger.advance(id, claim('task')), true)
  t.same(await there.repeats.take(subject, repeat), { kind: 'task', taskId: 'task' })
})

t.test('a repeat whose replica dies leaves its first to the next', async t => {
  const { replica } = await start(t)
  const [here, there] = [await replica(), await replica()]
  const id = await submitted(there, [sent, claim('task')])
  await there.repeats.undelivered(id)
  await here.ledger.reserve(demandOf({ repeat: repeatOf('another') })) // it lives
  t.match(await here.repeats.take(subject, repeatOf()), { taskId: 'task' })
  const next = repeatOf()
  t.same(await there.repeats.take(subject, next), { kind: 'pending' }, 'somebody has it, who may be dead')
  await here.close()
  t.match(await decided(there, next), { taskId: 'task' })
})

t.test('a store that is down learns later what has become of a repeat', async t => {
  const { replica, admin } = await start(t)
  const store = await replica()
  const [id, lost] = [
    await submitted(store, [sent, claim('task')]),
    await submitted(store, [sent, claim('lost')], { repeat: repeatOf('lost') })
  ]
  await store.repeats.undelivered(id)
  const [first, second] = [repeatOf(), repeatOf()]
  t.match(await store.repeats.take(subject, first), { taskId: 'task' })
  await admin.call('CLIENT', 'PAUSE', '1500', 'ALL') // longer than a command may take; each is carried out all the same
  const failing = [
    store.repeats.end(subject, first, false), store.repeats.undelivered(lost),
    store.repeats.take(subject, repeatOf()), store.ledger.reserve(demandOf({ repeat: repeatOf() }))
  ]
  for (const one of await Promise.allSettled(failing)) {
    t.match(one, { status: 'rejected', reason: { code: 'GW_STORE_DOWN' } })
  }
  await until('it has been told', async () => (await store.repeats.take(subject, second))?.kind === 'task')
  await until('the other, too', async () => (await store.repeats.take(subject, repeatOf('lost')))?.kind === 'task')
})

t.test('an unknown submit that an older replica has noted is remembered from its end', async t => {
  const { replica, admin, time } = await start(t)
  const store = await replica()
  const id = await submitted(store, [sent, { to: 'unknown' }])
  const number = id.split('#')[1]!
  await admin.hdel(`gw:{/app:alice}:r:${number}`, 'until')
  const repeat = repeatOf()
  t.same(await store.repeats.take(subject, repeat), { kind: 'unknown' })
  await store.repeats.end(subject, repeat, false)
  time.advance(repeatMs)
  t.equal(await store.repeats.take(subject, repeatOf()), null)
})

t.test('what was lost while the store was away is known to the first that asks when it is back', async t => {
  const server = await redisServer(t, { appendonly: true })
  const store = await redisStore({ url: new Secret(server.url), terms, now: clock().now, onLost: () => {} })
  t.teardown(() => store.close())
  for (const [print, ask] of Object.entries({
    take: () => store.repeats.take(subject, repeatOf('take')),
    reserve: async () => {
      const reserved = await store.ledger.reserve(demandOf({ repeat: repeatOf('reserve') }))
      return 'earlier' in reserved ? reserved.earlier : reserved
    }
  })) {
    const id = await submitted(store, [sent, claim(print)], { repeat: repeatOf(print) })
    await server.kill()
    await t.rejects(store.repeats.undelivered(id), { code: 'GW_STORE_DOWN' })
    await server.start()
    let told: unknown
    await until('the store is back', async () => {
      try {
        told = await ask()
        return true
      } catch { return false }
    })
    t.same(told, { kind: 'task', taskId: print })
  }
})

t.test('a replica that could not write that a caller has gone does not say that it is there', async t => {
  const { server, replica, time } = await start(t)
  const [there, here] = [await replica(), await hindered(t, server, time)]
  const id = await submitted(here, [sent, claim('task')])
  const [heart] = await server.admin.keys('gw:alive:*')
  await here.hinder()
  await t.rejects(here.repeats.undelivered(id), { code: 'GW_STORE_DOWN' })
  t.same(await decided(there), { kind: 'task', taskId: 'task' }, 'else its repeat would be made, and charged')
  await here.help()
  await until('it has written it, and is there', async () => await server.admin.exists(heart!) === 1)
})

t.test('a replica that closes with something still to write is dead at once', async t => {
  const { server, replica, time } = await start(t)
  const [there, here] = [await replica(), await hindered(t, server, time)]
  const id = await submitted(here, [sent, claim('task')])
  const [heart] = await server.admin.keys('gw:alive:*')
  await here.hinder()
  await t.rejects(here.repeats.undelivered(id), { code: 'GW_STORE_DOWN' })
  await here.close()
  t.equal(await server.admin.exists(heart!), 0)
  t.same(await decided(there), { kind: 'task', taskId: 'task' })
})

t.test('a replica that has not been heard yet begins, whatever it has still to write', async t => {
  const { server, time } = await start(t)
  const here = await hindered(t, server, time)
  const other = demandOf({ subject: 'app:bob', repeat: repeatOf('other') })
  await here.hinder()
  await t.rejects(async () => here.repeats.take(subject, repeatOf()), { code: 'GW_STORE_DOWN' })
  await server.admin.acl('SETUSER', 'here', '~gw:{/app:bob}:*', '~gw:{busy*', '~gw:{deliveries*')
  t.match(await here.ledger.reserve(other), { granted: true })
})

t.test('what is owed is given up when what it guards is forgotten, and the heart goes on', async t => {
  const { server, time } = await start(t)
  const here = await hindered(t, server, time)
  const id = await submitted(here, [sent, claim('task')])
  const [heart] = await server.admin.keys('gw:alive:*')
  await here.hinder()
  await t.rejects(here.repeats.undelivered(id), { code: 'GW_STORE_DOWN' })
  await server.admin.del(heart!)
  time.advance(repeatMs + 3000)
  await until('it is there', async () => await server.admin.exists(heart!) === 1)
})

t.test('what Redis refuses as nonsense is not tried for ever, and the heart goes on', async t => {
  const { server, replica } = await start(t)
  const store = await replica()
  const id = await submitted(store, [sent, claim('task')])
  const [heart] = await server.admin.keys('gw:alive:*')
  const row = `gw:{/app:alice}:r:${id.split('#')[1]}`
  await server.admin.del(row)
  await server.admin.set(row, 'somebody has written here')
  await t.rejects(store.repeats.undelivered(id), /WRONGTYPE/)
  await server.admin.del(heart!)
  await until('it is there', async () => await server.admin.exists(heart!) === 1)
})

t.test('a replica that closes while it beats is dead at once', async t => {
  const { server, replica } = await start(t)
  const [here, there] = [await replica(), await replica()]
  const [id, other] = [await submitted(here, [sent, claim('task')]), await submitted(here, [sent, claim('other')])]
  const [heart] = await server.admin.keys('gw:alive:*')
  await there.repeats.take(subject, repeatOf()) // so that it is asked whether it is there
  await server.admin.call('CLIENT', 'PAUSE', '200', 'WRITE')
  here.repeats.delivered(id)
  here.repeats.delivered(other)
  await wait(50)
  await here.close()
  t.equal(await server.admin.exists(heart!), 0)
})
