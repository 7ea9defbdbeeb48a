import { setTimeout as wait } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { redisStore } from '../../src/adapters/redis/store.ts'
import { sqliteStore } from '../../src/adapters/sqlite/store.ts'
import { Secret } from '../../src/domain/secret.ts'
import type { Store } from '../../src/domain/store.ts'
import { demandOf } from '../contracts/ledger-balance.ts'
import { sent, terms } from '../contracts/open-books.ts'
import { type Clock, clock } from '../helpers/clock.ts'
import { crankedGateway } from '../helpers/cranked-gateway.ts'
import { type HeardEvent } from '../helpers/event-source.ts'
import { redisServer } from '../helpers/redis-server.ts'
import { storeFile } from '../helpers/store-file.ts'
import { until } from '../helpers/until.ts'

const path = '/gateway/events'
const hourMs = 3600_000
const redis = await redisServer(t)

/** Where a gateway keeps its ledger, and a way to write into it before there is a gateway. */
interface Place { readonly url: string, open (now: () => number): Promise<Store> }
const stores: Readonly<Record<string, (t: Test) => Promise<Place>>> = {
  async SQLite (t) {
    const file = storeFile(t)
    return { url: `sqlite:${file}`, open: async now => sqliteStore({ path: file, terms, now, synchronous: 'normal' }) }
  },
  async Redis () {
    await redis.admin.flushall()
    const url = new Secret(redis.url)
    return { url: redis.url, open: async now => await redisStore({ url, terms, now, onLost: () => {} }) }
  }
}

/** Tasks of alice's that have ended, one each second, with answers as long as usual ones. */
async function ended (store: Store, time: Clock, count: number): Promise<string[]> {
  const taskIds = Array.from({ length: count }, (_, index) => `task-${String(index).padStart(5, '0')}`)
  for (const taskId of taskIds) {
    const reserved = await store.ledger.reserve(demandOf({ taskLimit: 100_000 }))
    if (!reserved.granted) throw new Error(`no ${reserved.reason}`)
    await store.ledger.advance(reserved.id, sent)
    await store.ledger.advance(reserved.id, { to: 'claimed', taskId })
    const resultJson = JSON.stringify({ resultUrls: [`https://cdn.apixo.ai/${taskId}.png`], note: 'x'.repeat(600) })
    const data = { taskId, state: 'success', resultJson }
    const answer = Buffer.from(JSON.stringify({ code: 200, message: 'success', data }))
    await store.ledger.settle({ taskId, state: 'success', answer })
    time.advance(1000)
  }
  return taskIds
}

async function gatewayAfter (t: Test, name: string, count: number) {
  const time = clock()
  const { url, open } = await stores[name]!(t)
  const store = await open(time.now)
  const start = time.now()
  const taskIds = await ended(store, time, count)
  await store.close()
  time.advance(60_000)
  const gateway = await crankedGateway(t, { time, env: { GATEWAY_STORE: url } })
  return { ...gateway, taskIds, lastEventId: `${start}-x`, token: await gateway.mint('alice') }
}

const tasksIn = (events: readonly HeardEvent[]): string[] => events.map(({ data }) => JSON.parse(data).data.taskId)

for (const name of Object.keys(stores)) {
  for (const count of [120, 2000]) {
    t.test(`a reader that comes back after ${count} ends (${name})`, async t => {
      const { listen, token, lastEventId, taskIds, lines, time } = await gatewayAfter(t, name, count)

      await t.test('it hears of all of them in one stream, in their order, however slow it is', async t => {
        const stream = await listen(path, { token, lastEventId })
        await until('all are told', async () => {
          stream.pause()
          await wait(20)
          stream.resume()
          await wait(1)
          return stream.results.length === count || stream.isOver
        }, 60_000)
        t.strictSame(tasksIn(stream.events), taskIds)
        t.notOk(stream.isOver)
        t.strictSame(lines().filter(({ operation }) => operation === 'events'), [])
      })

      await t.test('cut time and again it gets through, and hears again only of what it may have missed', async t => {
        const heard: string[] = []
        let id = lastEventId
        let rounds = 0
        for (; new Set(heard).size < count && rounds <= 40; rounds++) {
          const stream = await listen(path, { token, lastEventId: id })
          const share = Math.min(count / 20, count - new Set(heard).size)
          await until('a part', () => stream.events.length >= share)
          stream.close()
          heard.push(...tasksIn(stream.events))
          id = /.*^id: (.+?)$/ms.exec(stream.text.slice(0, stream.text.lastIndexOf('\n\n')))![1]!
        }
        t.strictSame([...new Set(heard)], taskIds)
        t.ok(rounds <= 20, `${rounds} rounds`)
        t.ok(heard.length <= count + rounds, `${heard.length} events`)
      })

      await t.test('a mark with nothing after it costs little, whatever has ended before', async t => {
        const before = process.cpuUsage()
        for (let index = 0; index < 20; index++) (await listen(path, { token, lastEventId: `${time.now()}-x` })).close()
        const { user, system } = process.cpuUsage(before)
        t.comment(`${((user + system) / 20_000).toFixed(1)} ms each`)
        t.ok(user + system < 20 * 60_000)
      })
    })
  }

  t.test(`a mark of long ago is one of a day ago, and the reader is told to look at its list (${name})`, async t => {
    const { listen, mint, time, taskIds } = await gatewayAfter(t, name, 100)
    time.advance(24 * hourMs - 110_000)
    const token = await mint('alice')
    const stream = await listen(path, { token, lastEventId: '1-x' })
    await until('all are told', () => stream.results.length === 49)
    await until('the hint', () => stream.events.length === 50)
    t.strictSame(tasksIn(stream.events.slice(0, -1)), taskIds.slice(51))
    const since = new Date(time.now() - 24 * hourMs).toISOString()
    t.match(stream.events.at(-1), { type: 'resync', data: JSON.stringify({ since }) })
    const again = await listen(path, { token, lastEventId: stream.results.at(-1)!.id })
    await wait(50)
    t.strictSame(again.events, [])
    const nothing = await listen(path, { token: await mint('bob'), lastEventId: '1-x' })
    await wait(50)
    t.strictSame(nothing.events, [], 'who has missed nothing is told nothing')
  })
}

t.test('what is no id of ours is none, whatever it looks like', async t => {
  const { listen, token, lastEventId } = await gatewayAfter(t, 'SQLite', 1)
  const mark = lastEventId.slice(0, -2)
  for (const id of [`${mark}-%`, `${mark}-%zz`, mark, `x${mark}-x`, `${mark}-x ${mark}-x`, '9'.repeat(16) + '-x']) {
    const stream = await listen(path, { token, lastEventId: id })
    await wait(30)
    t.strictSame(stream.events, [], id)
  }
})
