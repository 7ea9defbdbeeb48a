import { Redis } from 'ioredis'
import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import t, { type Test } from 'tap'
import { localEvents, localPollLeases } from '../../src/adapters/local.ts'
import { commands as commandsOver, connection, memoryMark } from '../../src/adapters/redis/client.ts'
import { redisEvents, textOf } from '../../src/adapters/redis/events.ts'
import { keyNames } from '../../src/adapters/redis/keys.ts'
import { redisStore } from '../../src/adapters/redis/store.ts'
import type { CreditsEvent } from '../../src/domain/credit-notices.ts'
import { Secret } from '../../src/domain/secret.ts'
import type { TaskEvent, TaskEvents } from '../../src/domain/task-status.ts'
import { systemTimers } from '../../src/domain/time.ts'
import { pollLeasesContract, type LeasesUnderTest } from '../contracts/poll-leases.ts'
import { taskEvent, taskEventsContract } from '../contracts/task-events.ts'
import { clock } from '../helpers/clock.ts'
import { redisCluster, type RedisServer, redisServer } from '../helpers/redis-server.ts'
import { until } from '../helpers/until.ts'

const terms = {
  reservedMs: 30_000,
  sentMs: 140_000,
  giveUpMs: 86_400_000,
  refundsPerPeriod: 3,
  retentionMs: 30 * 86_400_000
}
let opened = 0

async function eventsOf (t: Test, url: string, prefix: string): Promise<TaskEvents> {
  const store = await redisStore({ url: new Secret(url), terms, now: Date.now, onLost: () => {}, prefix })
  t.teardown(() => store.close())
  return store.events!
}

/** The events of a replica whose heart beats fast. */
async function quickEvents (t: Test, url: string, beatMs = 50): Promise<TaskEvents> {
  const link = await connection({ url: new Secret(url), onLost: () => {} })
  t.teardown(() => link.close())
  const keys = keyNames('gw')
  const mark = await memoryMark({ ...link, keys, onGone: () => {} })
  const commands = commandsOver({ connection: link, mark, keys, terms, now: Date.now })
  const events = await redisEvents({ connection: link, commands, channel: 'quick', beatMs })
  t.teardown(events.close)
  return events
}

async function cut (servers: readonly RedisServer[]): Promise<void> {
  const killed = await Promise.all(servers.map(({ admin }) => admin.call('CLIENT', 'KILL', 'TYPE', 'pubsub')))
  if (killed.every(count => count === 0)) throw new Error('nobody listened')
}

async function listenersOf ({ admin }: RedisServer): Promise<number> {
  return String(await admin.call('CLIENT', 'LIST', 'TYPE', 'pubsub')).split('\n').length - 1
}

/** What a replica hears, and how often it is told that something was lost. */
function ear (events: TaskEvents) {
  const heard: TaskEvent[] = []
  const state = { heard, gaps: 0 }
  events.subscribe(event => heard.push(event), () => { state.gaps++ })
  return state
}

function contract (t: Test, servers: readonly RedisServer[]): void {
  const { url } = servers[0]!
  taskEventsContract(t, async t => {
    const prefix = `test-${++opened}`
    const [here, there] = [await eventsOf(t, url, prefix), await eventsOf(t, servers.at(-1)!.url, prefix)]
    return { here, there, lose: () => cut(servers) }
  })
}

t.test('the events of two replicas on one Redis keep the promises of task events', async t =>
  contract(t, [await redisServer(t)])
)

t.test('the events of two replicas on a cluster keep the promises of task events', async t =>
  contract(t, (await redisCluster(t)).servers)
)

t.test('what one replica says on a cluster is heard in order on all nodes', async t => {
  const { url } = await redisCluster(t)
  const here = await eventsOf(t, url, 'gw')
  const ears = await Promise.all(Array.from({ length: 6 }, async () => ear(await eventsOf(t, url, 'gw'))))
  const events = Array.from({ length: 200 }, (_, index) =>
    taskEvent({ taskId: `task ${index}`, body: Buffer.alloc(index * 50, 'x') })
  )
  for (const event of events) here.publish(event)
  await until('all have heard all', () => ears.every(({ heard }) => heard.length === events.length))
  for (const { heard } of ears) t.same(heard, events)
})

t.test('a server that is started again is listened to again, and what was said meanwhile is a gap', async t => {
  const server = await redisServer(t, { appendonly: true })
  const [here, there] = [await eventsOf(t, server.url, 'gw'), await eventsOf(t, server.url, 'gw')]
  const [mine, theirs] = [ear(here), ear(there)]
  await server.kill()
  here.publish(taskEvent({ taskId: 'lost' }))
  t.match(mine.heard, [{ taskId: 'lost' }], 'who said it has heard it')
  await server.start()
  await until('both are told', () => mine.gaps > 0 && theirs.gaps > 0)
  await until('it hears again', () => {
    there.publish(taskEvent({ taskId: 'after' })) // as soon as it can speak again
    return mine.heard.at(-1)?.taskId === 'after'
  })
  t.same(new Set(theirs.heard.map(({ taskId }) => taskId)), new Set(['after']))
})

t.test('a node of a cluster that dies is left for another', async t => {
  const { servers, url } = await redisCluster(t, { directives: ['--cluster-require-full-coverage', 'no'] })
  const slot = await servers[0]!.admin.cluster('KEYSLOT', 'gw:events:0')
  const home = servers[Math.floor(slot / Math.ceil(16384 / 3))]!
  const speaker = await eventsOf(t, home.url, 'gw')
  const ears = [
    ear(speaker),
    ...(await Promise.all(Array.from({ length: 6 }, async () => ear(await eventsOf(t, url, 'gw')))))
  ]
  const dead = servers.find(server => server !== home)!
  const listeners = await listenersOf(dead)
  await dead.kill()
  await until('those who listened there are told', () => ears.filter(({ gaps }) => gaps > 0).length === listeners)
  await until('all hear again', () => {
    speaker.publish(taskEvent())
    return ears.every(({ heard }) => heard.length > 0)
  })
})

t.test('who reads too slowly is cut off by the server, and told so', async t => {
  const server = await redisServer(t, { directives: ['--client-output-buffer-limit', 'pubsub 1mb 1mb 0'] })
  const [here, there] = [await eventsOf(t, server.url, 'gw'), await eventsOf(t, server.url, 'gw')]
  const theirs = ear(there)
  const body = Buffer.alloc(1024 * 1024, 'x')
  for (let count = 0; count < 20; count++) here.publish(taskEvent({ taskId: String(count), body }))
  await until('it is told', () => theirs.gaps > 0)
  t.ok(theirs.heard.length < 20)
  await until('it hears again', () => {
    here.publish(taskEvent({ taskId: 'after' })) // there may be so much on its way that it is cut off once more
    return theirs.heard.at(-1)?.taskId === 'after'
  })
})

t.test('what could not be said is told to the others as a gap, once it can', async t => {
  const { admin, url, port } = await redisServer(t)
  const acl = (...rules: string[]) => admin.acl('SETUSER', 'app', ...rules)
  await acl('on', '>secret', '~*', '&*', '+@all')
  const [here, there] = [await quickEvents(t, url), await quickEvents(t, `redis://app:secret@localhost:${port}`)]
  const [mine, theirs] = [ear(here), ear(there)]
  await acl('-publish')
  there.publish(taskEvent())
  t.equal(theirs.heard.length, 1, 'it is heard where it was said')
  const refusals = async (): Promise<number> =>
    Number(/cmdstat_publish:.*rejected_calls=(\d+)/.exec(await admin.info('commandstats'))?.[1])
  await until('some heartbeats have failed', async () => (await refusals()) > 3)
  t.equal(mine.gaps, 0)
  await acl('+publish')
  await until('it is told', () => mine.gaps > 0)
  await until('another heartbeat', async () => {
    here.publish(taskEvent({ taskId: 'after' }))
    return theirs.heard.length > 1
  })
  t.equal(mine.gaps, 1, 'once')
  t.equal(theirs.gaps, 0)
})

/** Stands between, and can keep from who listens what is said, while their connection stays. */
async function muffler (t: Test, port: number) {
  const listening = new Set<Socket>()
  const sockets = new Set<Socket>()
  const server = createServer(near => {
    const far = connect(port, '127.0.0.1')
    for (const socket of [near, far]) sockets.add(socket.on('error', () => {}))
    near.on('data', chunk => {
      if (/subscribe/i.test(String(chunk))) listening.add(far)
    })
    near.pipe(far)
    far.pipe(near)
    near.on('close', () => far.destroy())
    far.on('close', () => near.destroy())
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return {
    url: `redis://127.0.0.1:${(server.address() as { port: number }).port}`,
    get count () { return listening.size },
    muffle () { for (const socket of listening) socket.unpipe().resume() }
  }
}

t.test('a line that is dead and looks alive is found out, and made again', async t => {
  const { port, url } = await redisServer(t)
  const between = await muffler(t, port)
  const [here, there] = [await quickEvents(t, between.url, 200), await quickEvents(t, url)]
  const mine = ear(here)
  await until('it is listened to', () => between.count === 1)
  between.muffle()
  await until('it is told', () => mine.gaps > 0)
  t.equal(between.count, 2)
  there.publish(taskEvent())
  await until('it hears again', () => mine.heard.length === 1)
})

t.test('what is no event of ours is not listened to', async t => {
  const { admin, url } = await redisServer(t)
  const events = await eventsOf(t, url, 'gw')
  const { heard } = ear(events)
  const { body, ...about } = taskEvent()
  const whole = { from: 'another', hasLost: false, ...about }
  const odd = Object.keys(about)
    .filter(name => name !== 'taskId')
    .map(name => ({ ...whole, [name]: {} }))
  const lines = [
    '',
    '\n',
    'null\n',
    '5\n',
    '[]\n',
    '{\n',
    '{}\n',
    ...[...odd, { ...whole, taskId: 5 }, { ...whole, from: 5 }, { ...whole, hasLost: 0 }].map(
      line => `${JSON.stringify(line)}\n`
    )
  ]
  for (const line of [...lines, JSON.stringify(whole)]) await admin.publish('gw:events:0', line)
  await admin.publish('gw:events:0', Buffer.from([0, 255, 10, 123]))
  await admin.publish(
    'gw:events:0',
    textOf({ from: 'another', hasLost: false, event: taskEvent({ taskId: 'good', body }) })
  )
  await admin.publish('gw:events:0', `${JSON.stringify({ ...whole, taskId: 'later', more: 1 })}\n`)
  await until('it hears the good ones', () => heard.length >= 2)
  t.match(heard, [{ taskId: 'good', body }, { taskId: 'later', body: Buffer.alloc(0) }])
})

t.test('what is told of credits reaches every replica once, and nothing else is taken for it', async t => {
  const { admin, url } = await redisServer(t)
  const [here, there] = await Promise.all(['gw', 'gw'].map(async prefix => {
    const store = await redisStore({ url: new Secret(url), terms, now: Date.now, onLost: () => {}, prefix })
    t.teardown(() => store.close())
    return store
  }))
  const heard: CreditsEvent[][] = [[], []]
  const tasks = ear(there!.events!)
  here!.creditsEvents!.subscribe(event => heard[0]!.push(event))
  there!.creditsEvents!.subscribe(event => heard[1]!.push(event))
  const credits: CreditsEvent = {
    subject: 'app:ä 😀', plan: 'default', pool: 'team', window: 'day:1', usedPercent: 80, left: 2, resetsAt: null
  }
  for (const name of [...Object.keys(credits), 'all']) {
    const odd = name === 'all' ? null : { ...credits, [name]: {} }
    await admin.publish('gw:events:0', `${JSON.stringify({ from: 'another', hasLost: false, credits: odd })}\n`)
  }
  const own: CreditsEvent = { ...credits, pool: null, usedPercent: 100, left: 0, resetsAt: 9e12 }
  here!.creditsEvents!.publish(credits)
  here!.creditsEvents!.publish(own)
  await until('both have heard both', () => heard.every(list => list.length >= 2))
  for (const list of heard) t.same(list, [credits, own])
  t.same(tasks, { heard: [], gaps: 0 })
  await here!.close()
  t.doesNotThrow(() => here!.creditsEvents!.publish(credits))
})

t.test('gateways with another database or prefix do not hear each other', async t => {
  const { url } = await redisServer(t)
  const [here, ...others] = [
    await eventsOf(t, url, 'gw'),
    await eventsOf(t, `${url}/1`, 'gw'),
    await eventsOf(t, url, 'other')
  ]
  const same = ear(await eventsOf(t, url, 'gw'))
  const strangers = others.map(ear)
  here.publish(taskEvent())
  await until('its own hear it', () => same.heard.length === 1)
  for (const { heard } of strangers) t.same(heard, [])
})

t.test('who may not listen, or not speak, stops the start with what the server says', async t => {
  const { admin, port } = await redisServer(t)
  const app = `redis://app:secret@localhost:${port}`
  for (const [rules, said] of [[['resetchannels'], /channel/], [['&*', '-publish'], /permission|can't run/]] as const) {
    await admin.acl('SETUSER', 'app', 'reset', 'on', '>secret', '~*', '+@all', ...rules)
    const error = await redisStore({ url: new Secret(app), terms, now: Date.now, onLost: () => {} }).then(
      () => null,
      (error: Error) => error
    )
    t.match(error?.message, new RegExp(`^the store redis://localhost:${port} can not be used: .*${said.source}`))
  }
})

t.test('a replica that has closed listens no more, also when it was on its way back', async t => {
  const server = await redisServer(t)
  const stores = await Promise.all(
    [1, 2].map(() => redisStore({ url: new Secret(server.url), terms, now: Date.now, onLost: () => {} }))
  )
  t.equal(await listenersOf(server), 2)
  await stores[0]!.close()
  await until('it has gone', async () => await listenersOf(server) === 1)
  stores[0]!.events!.publish(taskEvent())
  await server.kill()
  await until('it is lost', () => stores[1]!.ping().then(() => false, () => true))
  await stores[1]!.close()
  await server.start()
  const other = new Redis(server.url)
  t.teardown(() => other.disconnect())
  await other.subscribe('anything')
  t.equal(await listenersOf(server), 1, 'that of the test alone')
})

const last = {
  status: 200,
  contentType: 'application/json; charset=utf-8',
  body: Buffer.from([0, 255, 13, 10, 34]),
  state: null
}

/** The turns of two replicas, with nothing taken. */
async function open (t: Test, url: string) {
  const { now, advance } = clock()
  const prefix = `test-${++opened}`
  const [here, there] = await Promise.all(
    [1, 2].map(async () => {
      const store = await redisStore({ url: new Secret(url), terms, now, onLost: () => {}, prefix })
      t.teardown(() => store.close())
      return store.leases!
    })
  )
  return {
    prefix,
    here: here!,
    there: there!,
    leaseMs: terms.sentMs,
    async pass (ms: number) {
      advance(ms)
    }
  } satisfies LeasesUnderTest & { prefix: string }
}

t.test('the turns of two replicas on one Redis keep the promises of status turns', async t => {
  const { url } = await redisServer(t)
  pollLeasesContract(t, t => open(t, url))
})

t.test('the turns of two replicas on a cluster keep the promises of status turns', async t => {
  const { url } = await redisCluster(t)
  pollLeasesContract(t, t => open(t, url))
})

t.test('an answer that comes when the turn is another replica\'s changes nothing', async t => {
  const { here, there, pass } = await open(t, (await redisServer(t)).url)
  await here.acquire('a', 1000)
  await pass(terms.sentMs)
  await there.acquire('a', 1000)
  await here.release('a', last, 1000)
  await here.release('a', null, 1000)
  t.match(await here.acquire('a', 1000), { acquired: false, last: null, nextInMs: 0 })
  await there.release('a', { ...last, status: 201 }, 1000)
  t.match(await here.acquire('a', 1000), { acquired: false, last: { ...last, status: 201 } })
})

t.test('the answer of a turn that Redis has forgotten is everybody\'s all the same', async t => {
  const { admin, url } = await redisServer(t)
  const { here, there } = await open(t, url)
  await here.acquire('a', 1000)
  await admin.flushall()
  await here.release('a', last, 1000)
  t.match(await there.acquire('a', 1000), { acquired: false, last })
})

t.test('nothing stays: a turn goes by itself soon after it is free', async t => {
  const { admin, url } = await redisServer(t)
  const { here, prefix } = await open(t, url)
  await here.acquire('a', 1000)
  const key = `${prefix}:turn:a`
  const taken = await admin.pttl(key)
  t.ok(taken > terms.sentMs && taken <= terms.sentMs + 60_000)
  await here.release('a', last, 1000)
  const answered = await admin.pttl(key)
  t.ok(answered > 1000 && answered <= 61_000)
})

t.test('a turn whose taker was not told in time that it has it is free again at once', async t => {
  const { admin, url } = await redisServer(t)
  const { here, there } = await open(t, url)
  await admin.call('CLIENT', 'PAUSE', 1300, 'ALL')
  await t.rejects(here.acquire('a', 1000), { code: 'GW_STORE_DOWN' })
  await admin.ping()
  await until('another may ask', () => there.acquire('a', 1000).then(({ acquired }) => acquired, () => false))
})

t.test('while Redis is away there are no turns, and then there are again', async t => {
  const server = await redisServer(t, { appendonly: true })
  const { here } = await open(t, server.url)
  await here.acquire('a', 1000)
  await server.kill()
  await until('it is gone', () => here.acquire('b', 1000).then(() => false, () => true))
  await t.rejects(here.acquire('a', 1000), { code: 'GW_STORE_DOWN' })
  await t.rejects(here.release('a', last, 1000), { code: 'GW_STORE_DOWN' })
  await server.start()
  await until('it is back', () => here.acquire('c', 1000).then(({ acquired }) => acquired, () => false))
})

t.test('the events of one process keep the promises of task events', async t =>
  taskEventsContract(t, async () => {
    const events = localEvents()
    return { here: events, there: events }
  }))

t.test('the turns of one process keep the promises of status turns', async t =>
  pollLeasesContract(t, async () => {
    const { elapsed, advance } = clock()
    const leaseMs = 60_000
    const turns = localPollLeases({ elapsed, leaseMs })
    return { here: turns, there: turns, leaseMs, async pass (ms) { advance(ms) } }
  }))

t.test('the answer of a turn that was forgotten meanwhile is everybody\'s all the same', async t => {
  const turns = localPollLeases({ elapsed: clock().elapsed, leaseMs: 60_000 })
  await turns.release('a', { status: 200, contentType: 'application/json', body: Buffer.from('{}'), state: null }, 1000)
  t.match(await turns.acquire('a', 1000), { acquired: false, nextInMs: 1000 })
})

t.test('turns take a bounded amount of memory: the task asked about longest ago is forgotten', async t => {
  const turns = localPollLeases({ elapsed: clock().elapsed, leaseMs: 60_000 })
  const last = { status: 200, contentType: 'application/json', body: Buffer.alloc(1024 * 1024), state: null }
  for (let task = 0; task < 100; task++) {
    await turns.acquire(String(task), 1000)
    await turns.release(String(task), last, 1000)
  }
  t.match(await turns.acquire('99', 1000), { acquired: false })
  t.match(await turns.acquire('0', 1000), { acquired: true })
})

t.test('a timer of Node runs once, unless it is called off', async t => {
  const calledOff = systemTimers.after(1, () => t.fail('it was called off'))
  calledOff()
  const alive = setInterval(() => {}, 1000) // the timer itself keeps nobody alive
  await new Promise<void>(resolve => { systemTimers.after(5, resolve) })
  clearInterval(alive)
})
