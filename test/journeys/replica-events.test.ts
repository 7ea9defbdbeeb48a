import { setTimeout as wait } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { clock } from '../helpers/clock.ts'
import { intervalMs, statesOf } from '../helpers/cranked-gateway.ts'
import { type EventSourceOptions, openEvents, type TestEventSource } from '../helpers/event-source.ts'
import type { TestGateway } from '../helpers/gateway.ts'
import { type RedisServer, redisServer } from '../helpers/redis-server.ts'
import { startReplicas } from '../helpers/replicas.ts'
import { crankedTimers } from '../helpers/timers.ts'
import { until } from '../helpers/until.ts'

/** Whole run of the task, ms: pending for a third of it, then processing. */
const taskMs = 12_000
/** While another replica asks for the first time, its answer is looked for so often, ms. */
const lookMs = 50
const config = `
plans: { default: { pollsPerMinute: 1000000, credits: unlimited } }
limits: { streamsPerSubject: 1000, addressRequestsPerMinute: 1000000, socketsPerAddress: 10000 }
`

/** Three replicas on one Redis, with a task that runs; time stands still unless the test turns it on. */
async function open (
  t: Test,
  server: RedisServer,
  more: { readonly config?: string, readonly env?: Record<string, string> } = {}
) {
  await server.admin.flushall()
  const time = clock()
  const timers = crankedTimers(time)
  const replicas = await startReplicas(t, 3, server.url, {
    config: config + (more.config ?? ''),
    time,
    timers,
    env: { LOG_LEVEL: 'warn', ...more.env },
    sandbox: { taskMs },
    tidyEveryMs: 3_600_000
  })
  const [first] = replicas as [TestGateway]
  const token = await first.mint('alice')
  const {
    json: {
      data: { taskId }
    }
  } = await first.submit(token)
  const pass = (ms: number): void => {
    time.advance(ms)
    timers.run()
  }
  return {
    replicas,
    token,
    taskId: taskId as string,
    time,
    pass,
    polls: () => first.sandbox.calls.filter(({ url }) => url.includes('/statusTask/')).length,
    listenTo: (index: number, options: EventSourceOptions = {}) =>
      openEvents(t, `${replicas[index % 3]!.origin}/gateway/tasks/${taskId}/events`, { token, ...options }),
    listen: (index: number) => openEvents(t, `${replicas[index % 3]!.origin}/gateway/events`, { token }),
    status: (index: number) => replicas[index % 3]!.status(token, taskId),
    /** All have heard what is to be heard first. */
    begun: (streams: readonly TestEventSource[]) =>
      until('all have heard the first state', () => {
        if (streams.every(({ events }) => events.length > 0)) return true
        pass(lookMs)
        return false
      })
  }
}

/** In order: the smallest first. */
function quantile (sorted: readonly number[], share: number): string {
  return sorted[Math.ceil(sorted.length * share) - 1]!.toFixed(0)
}

t.test('three replicas on one Redis tell of tasks as one', async t => {
  const server = await redisServer(t)

  await t.test(
    'a thousand watchers of a task, streams and pollers, cost one upstream call an interval',
    { timeout: 120_000 },
    async t => {
      const { replicas, polls, listenTo, listen, status, begun, pass } = await open(t, server)
      const streams = await Promise.all(
        Array.from({ length: 600 }, (_, index) => (index % 2 === 0 ? listenTo(index) : listen(index)))
      )
      await begun(streams)
      t.equal(polls(), 1)
      const seen: number[] = []
      /** Comes again and again, as callers do, each in a moment of its own. */
      const poll = async (index: number, state: string): Promise<void> => {
        await wait(index)
        while ((await status(index)).json.data?.state !== state) await wait(500)
        seen.push(performance.now())
      }
      const pollers = (state: string) => Promise.all(Array.from({ length: 400 }, (_, index) => poll(index, state)))
      const tell = (count: number) =>
        until('all have heard', () => streams.every(({ events }) => events.length === count))
      const rest = () =>
        until("the answer is everybody's", async () => (await status(0)).headers.get('retry-after') === '5')

      await pollers('pending')
      t.equal(polls(), 1)
      pass(intervalMs)
      await Promise.all([pollers('processing'), tell(2)])
      await rest()
      t.equal(polls(), 2)
      pass(intervalMs)
      await until('it was asked', () => polls() === 3)
      await rest()
      await pollers('processing')
      t.equal(polls(), 3)

      seen.length = 0
      const end = performance.now()
      pass(intervalMs)
      await Promise.all([pollers('success'), tell(3)])
      t.equal(polls(), 4)
      const times = (all: readonly number[]): string => {
        const sorted = all.map(at => at - end).sort((one, other) => one - other)
        return `p50 ${quantile(sorted, 0.5)} ms, p99 ${quantile(sorted, 0.99)} ms, last ${quantile(sorted, 1)} ms`
      }
      const heard = streams.map(({ events }) => events.at(-1)!.at)
      t.comment(
        `from the end of the task to 600 streams: ${times(heard)}; to 400 pollers: ${times(seen)}; to all: ${times([...heard, ...seen])}`
      )
      for (const { events } of streams) t.strictSame(statesOf(events), ['pending', 'processing', 'success'])
      t.equal(replicas[0]!.sandbox.submits.length, 1)
    }
  )

  await t.test(
    'a callback ends it for a thousand streams at once, with one more upstream call',
    { timeout: 120_000 },
    async t => {
      const callbacks = {
        config: 'callbacks: { inbound: true }\npolling: { "*": 3600000 }',
        env: { GATEWAY_PUBLIC_URL: 'https://gateway.example' }
      }
      const { polls, listenTo, listen, begun, pass } = await open(t, server, callbacks)
      const streams = await Promise.all(
        Array.from({ length: 1000 }, (_, index) => (index % 2 === 0 ? listenTo(index) : listen(index)))
      )
      await begun(streams)
      t.equal(polls(), 1)
      const end = performance.now()
      pass(taskMs)
      await until('all have heard', () => streams.every(({ events }) => events.length === 2))
      t.equal(polls(), 2)
      const heard = streams.map(({ events }) => events.at(-1)!.at - end).sort((one, other) => one - other)
      t.comment(
        `from the end of the task, by callback, to 1000 streams: p50 ${quantile(heard, 0.5)} ms, p99 ${quantile(heard, 0.99)} ms`
      )
    }
  )

  await t.test('a replica whose subscription was cut misses no end', async t => {
    const { listenTo, listen, status, begun, time } = await open(t, server)
    const streams = [await listenTo(1), await listen(1), await listenTo(2)]
    await begun(streams)
    // Nobody can come back until there is room again.
    await server.admin.config('SET', 'maxclients', 1)
    t.equal(await server.admin.call('CLIENT', 'KILL', 'TYPE', 'pubsub'), 3)
    time.advance(taskMs) // and no timer runs: nobody but this caller asks
    t.match((await status(0)).json, { data: { state: 'success' } })
    await wait(100)
    t.strictSame(
      streams.flatMap(({ events }) => statesOf(events)),
      ['pending', 'pending', 'pending'],
      'it was missed'
    )
    await server.admin.config('SET', 'maxclients', 10_000)
    await until('all are told', () => streams.every(({ events }) => events.length === 2))
    for (const { events } of streams) t.strictSame(statesOf(events), ['pending', 'success'])
    await Promise.all([streams[0]!.over(), streams[2]!.over()])
  })

  await t.test('a replica that stops sends its watchers to the others, where they miss nothing', async t => {
    const { replicas, listenTo, begun, pass } = await open(t, server)
    const streams = await Promise.all(Array.from({ length: 20 }, () => listenTo(1)))
    await begun(streams)
    await replicas[1]!.gateway.close()
    await Promise.all(streams.map(stream => stream.over()))
    t.notOk(streams.some(({ isCut }) => isCut))
    const comeBack = (from: readonly TestEventSource[]) =>
      Promise.all(from.map(({ events }, index) => listenTo((index % 2) * 2, { lastEventId: events.at(-1)!.id })))
    const soon = await comeBack(streams.slice(10))
    pass(intervalMs)
    await until('the next state is heard', () => soon.every(({ events }) => events.length === 1))
    pass(intervalMs)
    pass(intervalMs)
    await Promise.all(soon.map(stream => stream.over()))
    const late = await comeBack(streams.slice(0, 10))
    await Promise.all(late.map(stream => stream.over()))
    for (const { events } of soon) t.strictSame(statesOf(events), ['processing', 'success'])
    for (const { events } of late) t.strictSame(statesOf(events), ['success'])
    for (const { status } of await comeBack(late)) t.equal(status, 204)
  })
})
