import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { adminToken, startGateway, taskMs, type TestGatewayOptions } from '../helpers/gateway.ts'
import { redisServer } from '../helpers/redis-server.ts'
import { storeFile } from '../helpers/store-file.ts'
import { until } from '../helpers/until.ts'

const env = { GATEWAY_ADMIN_TOKEN: adminToken }
const dayMs = 86_400_000
/** A name that stands nowhere by chance. */
const alice = 'al1ce-the-erased'
const subject = `app:${alice}`

async function start (t: Test, options: TestGatewayOptions = {}) {
  const gateway = await startGateway(t, { ...options, env: { ...env, ...options.env } })
  const admin = (path: string, body?: object) =>
    gateway.call(`/gateway/admin${path}`, { token: adminToken, ...(body && { body }) })
  return { ...gateway, admin }
}

/** One of all that a caller leaves behind, and something of somebody else's. */
async function live ({ mint, submit, status, admin, time, call }: Awaited<ReturnType<typeof start>>) {
  const token = await mint(alice, { uses: 50 })
  const other = await mint('bob')
  await admin('/credits', { subject, credits: 5 })
  await admin('/tokens', { subject: alice, plan: 'default' })
  const ended = (await submit(token, 'a cube', 'nano-banana', { headers: { 'idempotency-key': 'my-key' } })).json.data.taskId
  await submit(token, 'sandbox:drop-after')
  const running = (await submit(token)).json.data.taskId
  const ofBob = (await submit(other)).json.data.taskId
  time.advance(taskMs)
  await status(token, ended)
  await status(other, ofBob)
  await call('/gateway/nothing-is-here', { token })
  return { token, other, ended, running, ofBob }
}

const linesOf = (text: string): any[] => text.trimEnd().split('\n').map(line => JSON.parse(line))

t.test('all that is held of a subject is handed over as JSON lines', async t => {
  const gateway = await start(t)
  const { ended, running } = await live(gateway)
  const { status, text, headers } = await gateway.admin('/exports', { subject })
  t.equal(status, 200)
  t.equal(headers.get('content-type'), 'application/x-ndjson; charset=utf-8')
  const parts = linesOf(text)
  const of = (kind: string) => parts.filter(part => part.kind === kind)
  t.match(parts[0], { kind: 'subject', subject, exportedAt: /^2026-01-15T/ })
  t.match(of('task'), [
    { taskId: running, state: 'running', answer: null, delivery: null },
    { taskId: null, state: 'unknown' },
    { taskId: ended, state: 'success', answer: /resultUrls/, credits: 1 }
  ])
  t.match(of('grant'), [{ credits: 5 }])
  t.match(of('idempotency key'), [{ key: 'my-key', status: 200, answer: new RegExp(ended) }])
  t.match(of('session'), [{ uses: 3, credits: 3 }])
  t.match(of('usage'), [{ day: '2026-01-15', tasks: 3, succeeded: 1, unknown: 1 }])
  t.match(of('audit entry').map(({ what }) => what).sort(), ['export', 'grant', 'mint'])
  t.equal(text.includes('app:bob'), false)
  t.same(of('token'), [], 'a token is of token:al1ce')
  const ofToken = linesOf((await gateway.admin('/exports', { subject: `token:${alice}` })).text)
  t.match(ofToken.find(({ kind }) => kind === 'token'), { plan: 'default', revokedAt: null, usedAt: null })
  t.notOk(JSON.stringify(ofToken).includes('hash'), 'without its secret')
  t.same(ofToken.filter(({ kind }) => kind === 'usage'), [], 'and without what others have used')
  const { token, id } = (await gateway.admin('/tokens', { subject: 'carol', plan: 'default' })).json
  await gateway.submit(token)
  const tokens = async () => (await gateway.admin('/tokens')).json.items
  await until('its use is written', async () => (await tokens()).some((one: any) => one.id === id && one.usedAt !== null))
  await gateway.call(`/gateway/admin/tokens/${id}`, { method: 'DELETE', token: adminToken })
  t.match(linesOf((await gateway.admin('/exports', { subject: 'token:carol' })).text).find(({ kind }) => kind === 'token'), {
    revokedAt: /^2026-01-15T/, usedAt: /^2026-01-15T/
  })
  await gateway.admin('/revocations', { subject })
  const again = linesOf((await gateway.admin('/exports', { subject })).text)
  t.match(again.find(({ kind }) => kind === 'sessions ended'), { before: /^2026-01-15T/ })
})

t.test('who can not be a subject is neither exported nor erased', async t => {
  const { admin, call } = await start(t)
  for (const path of ['/exports', '/erasures']) {
    t.match(await admin(path, { subject: 'alice' }), { status: 400, json: { message: /app:alice/ } })
    t.match(await admin(path, {}), { status: 400 })
    t.match(await call(`/gateway/admin${path}`, { body: { subject } }), { status: 401 })
  }
})

t.test('nothing is erased while a task runs, but nothing new begins', async t => {
  const gateway = await start(t)
  const { admin, call, mint, status, time } = gateway
  const { token, running } = await live(gateway)
  t.match(await admin('/erasures', { subject }), {
    status: 400, error: 'GW_BAD_REQUEST', json: { message: /^Nothing is erased: 1 of app:al1ce-the-erased still run\. .*tasks\.giveUpMs/ }
  })
  t.equal((await call('/gateway/session', { token })).error, 'GW_BAD_SESSION')
  t.match((await admin(`/tasks/${running}`)).json, { subject })
  time.advance(1)
  const later = await mint(alice)
  await status(later, running)
  t.match(await admin('/erasures', { subject }), { status: 201, json: { subject, pseudonym: /^erased:/, tasks: 3, unfinished: 0 } })
  for (const session of [token, later]) t.equal((await call('/gateway/session', { token: session })).error, 'GW_BAD_SESSION')
})

for (const [name, place] of Object.entries({
  'a SQLite file': async (t: Test) => {
    const store = storeFile(t)
    return { options: { store }, hold: null, letGo: null, bytes: () => ['', '-wal'].map(end => readFileSync(`${store}${end}`, 'latin1')).join('') }
  },
  Redis: async (t: Test) => {
    const { url, admin } = await redisServer(t)
    await admin.config('SET', 'rdbcompression', 'no')
    const [, folder] = await admin.config('GET', 'dir') as [string, string]
    return {
      options: { env: { GATEWAY_STORE: url } },
      /** As if another erasure wrote the audit trail anew. */
      hold: () => admin.set('gw:{gw:audit}:rewrite-lock', 1),
      letGo: () => admin.del('gw:{gw:audit}:rewrite-lock'),
      bytes: async () => {
        await admin.save()
        return readFileSync(join(folder, 'dump.rdb'), 'latin1')
      }
    }
  }
} as const)) {
  t.test(`after an erasure neither the name nor an answer is in ${name}, and sums stay`, async t => {
    const { options, hold, letGo, bytes } = await place(t)
    const gateway = await start(t, options)
    const { admin, call, status, mint, time } = gateway
    const { token, other, ended, running, ofBob } = await live(gateway)
    await status(token, running)
    t.ok((await bytes()).includes(alice))
    t.ok((await bytes()).includes(ended))
    if (hold !== null) {
      await hold()
      t.match(await admin('/erasures', { subject }), { status: 503, error: 'GW_OVERLOADED' })
      await letGo()
    }
    for (const one of [subject, `token:${alice}`]) t.match(await admin('/erasures', { subject: one }), { status: 201 })
    const left = await bytes()
    for (const text of [alice, ended, running, 'my-key']) t.equal(left.includes(text), false, text)
    t.match((await admin('/usage')).json.rows, [
      { subject: 'app:bob', tasks: 1 }, { subject: /^erased:/, tasks: 3, succeeded: 2, unknown: 1, credits: 3 }
    ])
    t.equal((await call('/gateway/session', { token })).error, 'GW_BAD_SESSION')
    t.equal((await status(other, ofBob)).status, 200)
    time.advance(dayMs)
    const again = await mint(alice)
    t.same((await call('/gateway/tasks', { token: again })).json.tasks, [], 'one that comes back begins anew')
    t.equal((await status(again, ended)).error, 'GW_TASK_NOT_FOUND')
    const kinds = (await admin('/audit?limit=500')).json.items.map(({ kind }: { kind: string }) => kind)
    t.ok(kinds.includes('erase') && kinds.includes('grant'), 'what the operator did is still told')
  })
}
