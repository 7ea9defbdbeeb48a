import t, { type Test } from 'tap'
import { sqliteStore } from '../../src/adapters/sqlite/store.ts'
import { issueTimes } from '../../src/domain/session.ts'
import { type Operator, operator } from '../../src/features/admin/admin.ts'
import { sessionCheckMs } from '../../src/features/events/sse.ts'
import { terms } from '../contracts/open-books.ts'
import { cookieIn, fromOwnPage, swap } from '../helpers/cookies.ts'
import { crankedGateway } from '../helpers/cranked-gateway.ts'
import { doors } from '../helpers/doors.ts'
import { adminToken } from '../helpers/gateway.ts'
import { redisServer } from '../helpers/redis-server.ts'
import { startReplicas } from '../helpers/replicas.ts'
import { storeFile } from '../helpers/store-file.ts'

const env = { GATEWAY_ADMIN_TOKEN: adminToken }
const config = 'plans: { default: { credits: unlimited } }\nlimits: { addressFailuresPerMinute: 1000 }'
/** What a server does not know yet of what was said beside it is no older, ms. */
const freshMs = 1000

/** A gateway over a file, and the operator beside it, as the command line is. */
async function start (t: Test) {
  const store = storeFile(t)
  const gateway = await crankedGateway(t, { store, config, env })
  const { now } = gateway.time
  const beside = sqliteStore({ path: store, role: 'operator', terms, now, synchronous: 'normal' })
  t.teardown(() => beside.close())
  const idOf = async (subject: string): Promise<string> => {
    const { items } = await beside.audit.read({ cursor: null, limit: 100 })
    return items.find(entry => entry.kind === 'mint' && entry.subject === subject)!.detail.session as string
  }
  return {
    ...gateway,
    idOf,
    it: operator({ ...beside, trail: beside.audit, actor: 'cli', now, times: issueTimes({ ...beside, now }) })
  }
}

const ends: Readonly<Record<string, (it: Operator, id: string) => Promise<unknown>>> = {
  'by its id': async (it, id) => await it.endSession(id),
  "with all of its subject's": async it => await it.endSessions('app:alice')
}

for (const [how, end] of Object.entries(ends)) {
  t.test(
    `a session that the operator ends beside the server ${how} opens no door within a second, and loses its streams`,
    async t => {
      const { it, call, mint, made, idOf, listenTo, listen, pass, time, sandbox } = await start(t)
      const [alice, bob] = [await mint('alice'), await mint('bob')]
      const taskId = await made(alice, 'sandbox:forever')
      const streams = [
        await listenTo(taskId, { token: alice }),
        await listen('/gateway/events', { token: alice }),
        await listen('/gateway/events', { token: bob })
      ]
      await end(it, await idOf('app:alice'))
      time.advance(freshMs)
      for (const [method, path] of doors(taskId)) {
        const reply = await call(path, {
          method,
          token: alice,
          ...(path.includes('generateTask') ? { body: { input: { prompt: 'x' } } } : {})
        })
        t.match(reply, { status: 401, error: 'GW_BAD_SESSION' }, `${method} ${path}`)
      }
      t.equal(sandbox.submits.length, 1)
      pass(sessionCheckMs)
      await Promise.all([streams[0]!.over(), streams[1]!.over()])
      t.same(
        streams.map(({ isOver, isCut }) => [isOver, isCut]),
        [
          [true, false],
          [true, false],
          [false, false]
        ]
      )
      t.same(
        [
          (await call('/gateway/session', { token: await mint('alice') })).status,
          (await call('/gateway/session', { token: bob })).status
        ],
        [200, 200]
      )
    }
  )
}

t.test('a session that was swapped for a cookie is ended by the id it was minted with, streams and all', async t => {
  const gateway = await start(t)
  const { it, call, mint, idOf, listen, pass } = gateway
  const minted = await mint('alice')
  const id = await idOf('app:alice')
  const cookie = await swap(gateway, minted)
  const stream = await listen('/gateway/events', fromOwnPage(cookie))
  t.equal(stream.status, 200)
  await it.endSession(id)
  pass(sessionCheckMs)
  await stream.over()
  t.match(await call('/gateway/session', fromOwnPage(cookie)), { status: 401, error: 'GW_BAD_SESSION' })
})

t.test('a swap that is under way when its session ends gets no cookie, or one of no use', async t => {
  const gateway = await start(t)
  const { it, call, mint, idOf, time } = gateway
  const token = await mint('alice')
  t.equal((await call('/gateway/session', { token })).status, 200)
  const id = await idOf('app:alice')
  const [swapped] = await Promise.all([call('/gateway/sessions/cookie', { method: 'POST', token }), it.endSession(id)])
  time.advance(freshMs)
  const cookie = cookieIn(swapped)
  const last = cookie === null ? swapped : await call('/gateway/session', fromOwnPage(cookie))
  t.match(last, { status: 401, error: 'GW_BAD_SESSION' })
})

t.test(
  'on each of three replicas what one operator ends is over at once: none has to be told, and no message can be lost',
  async t => {
    const { url, admin } = await redisServer(t)
    const replicas = await startReplicas(t, 3, url, { env, config })
    const [first, second, third] = [replicas[0]!, replicas[1]!, replicas[2]!]
    const [alice, bob] = [await first.mint('alice'), await second.mint('bob')]
    const statuses = async (token: string) =>
      await Promise.all(replicas.map(async ({ call }) => (await call('/gateway/session', { token })).status))
    const published = async () => /cmdstat_s?publish:\S+/.exec(await admin.info('commandstats'))?.[0]
    t.same(
      [await statuses(alice), await statuses(bob)],
      [
        [200, 200, 200],
        [200, 200, 200]
      ]
    )
    const { json } = await first.call('/gateway/admin/audit', { token: adminToken })
    const {
      detail: { session }
    } = json.items.find(({ kind, subject }: any) => kind === 'mint' && subject === 'app:alice')
    const before = await published()
    for (const [body, token] of [
      [{ session }, alice],
      [{ subject: 'app:bob' }, bob]
    ] as const) {
      await admin.call('CLIENT', 'KILL', 'TYPE', 'pubsub')
      t.equal((await third.call('/gateway/admin/revocations', { token: adminToken, body })).status, 201)
      t.same(await statuses(token), [401, 401, 401], JSON.stringify(body))
    }
    t.equal(await published(), before)
    first.time.advance(1)
    t.same(await statuses(await second.mint('bob')), [200, 200, 200])
  }
)
