import { createHmac } from 'node:crypto'
import t from 'tap'
import { signedSessions } from '../../../src/adapters/signed-sessions.ts'
import type { Task } from '../../../src/domain/ledger.ts'
import { resultTickets } from '../../../src/domain/results.ts'
import { Secret } from '../../../src/domain/secret.ts'
import { clock } from '../../helpers/clock.ts'

const secret = new Secret('a-session-secret-of-32-bytes-and-more')
const next = new Secret('a-newer-session-secret-of-32-bytes-and-more')
const taskId = 'dff8afd34c4e47719b85ad6651daa3f0'
const task = { taskId, subject: 'app:alice' }

function tickets (secrets = [secret], tasks: ReadonlyArray<Pick<Task, 'taskId' | 'subject'>> = [task], time = clock()) {
  const taskOf = async (id: string) => tasks.find(({ taskId }) => taskId === id) as Task | undefined ?? null
  return { time, ...resultTickets({ secrets: { current: secrets }, ticketSeconds: 900, taskOf, now: time.now }) }
}

t.test('a ticket opens its own result until it expires, and says nothing of its owner', async t => {
  const { ticketFor, open, time } = tickets()
  const ticket = ticketFor(task, 3)
  t.ok(ticket.length < 100, 'short enough for any router')
  t.notMatch(ticket, /alice/)
  t.same(await open(ticket), { task, index: 3 })
  time.advance(899_000)
  t.same(await open(ticket), { task, index: 3 })
  time.advance(1000)
  await t.rejects(open(ticket), { code: 'GW_RESULT_EXPIRED' })
})

t.test('nothing of a ticket can be changed, and no other can be made of it', async t => {
  const other = { taskId: 'e'.repeat(32), subject: 'app:alice' }
  const { ticketFor, open } = tickets([secret], [task, other])
  const ticket = ticketFor(task, 1)
  const [id, index, expiry, mac] = ticket.split('.') as [string, string, string, string]
  for (let at = 0; at < ticket.length; at++) {
    const sign = ticket[at] === 'A' ? 'B' : 'A'
    t.equal(await open(ticket.slice(0, at) + sign + ticket.slice(at + 1)), null, `character ${at}`)
  }
  for (const forged of [
    `${other.taskId}.${index}.${expiry}.${mac}`,
    `${id}.2.${expiry}.${mac}`,
    `${id}.01.${expiry}.${mac}`,
    `${id}.1.zzzzzzz.${mac}`,
    `${id}.1.0${expiry}.${mac}`,
    `${id}.1.${expiry.toUpperCase()}.${mac}`,
    `${id}.1.${expiry}.${mac}=`,
    `${id}.1.${expiry}.`,
    `${id}.1.${expiry}`,
    '',
    '.',
    '...',
    `${ticket}.`,
    ` ${ticket}`,
    `${ticket}\n`,
    'x'.repeat(10_000)
  ]) { t.equal(await open(forged), null, forged.slice(0, 80)) }
  t.equal(await open(`${id}.1.1.${mac}`), null, 'whether a forged one has expired is not said')
})

t.test('the newest secret signs, all verify, and one that is gone does not', async t => {
  const [old, both, later] = [tickets([secret]), tickets([next, secret]), tickets([next])]
  t.ok(await both.open(old.ticketFor(task, 0)))
  t.ok(await later.open(both.ticketFor(task, 0)))
  t.equal(await later.open(old.ticketFor(task, 0)), null)
  t.equal(await old.open(later.ticketFor(task, 0)), null)
})

t.test('secrets rotate while it runs', async t => {
  const live = { current: [secret] }
  const { ticketFor, open } = resultTickets({
    secrets: live,
    ticketSeconds: 900,
    taskOf: async () => task as Task,
    now: clock().now
  })
  const old = ticketFor(task, 0)
  live.current = [next, secret]
  const fresh = ticketFor(task, 0)
  t.ok(await open(old))
  live.current = [next]
  t.equal(await open(old), null)
  t.ok(await open(fresh))
})

t.test('a ticket opens nothing when its task is forgotten, or has become somebody else\'s', async t => {
  const ticket = tickets().ticketFor(task, 0)
  t.equal(await tickets([secret], []).open(ticket), null)
  t.equal(await tickets([secret], [{ taskId, subject: 'app:mallory' }]).open(ticket), null)
  t.equal(await tickets([secret], [{ taskId, subject: '' }]).open(ticket), null)
})

t.test('a task id may hold any character: it is encoded, and read from the right', async t => {
  for (const taskId of ['a.0.b', 'a/b', 'ü?#%', 'x'.repeat(256), 'a\nb']) {
    const { ticketFor, open } = tickets([secret], [{ taskId, subject: 'app:alice' }])
    const ticket = ticketFor({ taskId, subject: 'app:alice' }, 0)
    t.match(ticket, /^[\w.%!~*'()-]+$/)
    t.match(await open(decodeURIComponent(ticket)), { task: { taskId }, index: 0 })
  }
})

t.test('the key of tickets is not the one of sessions', async t => {
  const { ticketFor, open, time } = tickets()
  const { token } = await signedSessions({ secrets: { current: [secret] }, now: time.now }).mint({
    subject: 'alice',
    plan: 'default',
    models: ['*'],
    scopes: [],
    ttlSeconds: 60
  })
  t.equal(await open(token), null)
  const claims = ticketFor(task, 0).replace(/\.[^.]+$/, '')
  for (const signed of [claims, JSON.stringify(['app:alice', claims])]) {
    t.equal(await open(`${claims}.${createHmac('sha256', secret.reveal()).update(signed).digest('base64url')}`), null)
  }
})
