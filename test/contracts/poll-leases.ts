import type { Test } from 'tap'
import type { PollLeases } from '../../src/domain/status-poller.ts'
import type { LastStatus } from '../../src/domain/task-status.ts'

export interface LeasesUnderTest {
  /** Of two replicas; the same one twice when there can be no other. */
  readonly here: PollLeases
  readonly there: PollLeases
  /** A lease that was not released is free after this, ms. */
  readonly leaseMs: number
  /** Lets time pass, for both. */
  pass(ms: number): Promise<void>
}

const last = (text: string, state: string | null = null): LastStatus =>
  ({ status: 200, contentType: 'application/json', body: Buffer.from(text), state })

/** Every PollLeases must pass this, whatever is behind it. `open` starts empty and ends with its test. */
export function pollLeasesContract (t: Test, open: (t: Test) => Promise<LeasesUnderTest>): void {
  t.test('the first call acquires the lease, and of many at a time one does', async t => {
    const { here, there } = await open(t)
    const leases = await Promise.all(
      Array.from({ length: 100 }, (_, index) => (index % 2 ? here : there).acquire('a', 1000))
    )
    t.equal(leases.filter(({ acquired }) => acquired).length, 1)
    t.match(
      leases.filter(({ acquired }) => !acquired),
      Array.from({ length: 99 }, () => ({ last: null, nextInMs: 0 }))
    )
    t.same(await here.acquire('b', 1000), { acquired: true }, 'another task is another lease')
  })

  t.test(
    'an answer is shared for the interval, and then one asks again while the others keep the last answer',
    async t => {
      const { here, there, pass } = await open(t)
      await here.acquire('a', 1000)
      await here.release('a', last('one\0ä'), 1000)
      for (const leases of [here, there]) {
        const lease = await leases.acquire('a', 1000)
        t.match(lease, { acquired: false, last: last('one\0ä') })
        t.ok(!lease.acquired && lease.nextInMs > 0 && lease.nextInMs <= 1000)
      }
      await pass(1000)
      t.same(await there.acquire('a', 1000), { acquired: true })
      t.match(await here.acquire('a', 1000), { acquired: false, last: last('one\0ä'), nextInMs: 0 })
      await there.release('a', last('two'), 1000)
      t.match(await here.acquire('a', 1000), { acquired: false, last: last('two') })
    }
  )

  t.test('an answer comes with the state that it gives of the task', async t => {
    const { here, there } = await open(t)
    const answer = last('{"code":200,"data":{"taskId":"a","state":"pending"}}', 'pending')
    await here.acquire('a', 1000)
    await here.release('a', answer, 1000)
    for (const leases of [here, there]) t.match(await leases.acquire('a', 1000), { acquired: false, last: answer })
  })

  t.test('a lease without an answer is free again at once', async t => {
    const { here, there } = await open(t)
    await here.acquire('a', 1000)
    await here.release('a', null, 1000)
    t.same(await there.acquire('a', 1000), { acquired: true })
  })

  t.test('a lease that is not released is free again after a while', async t => {
    const { here, there, leaseMs, pass } = await open(t)
    await here.acquire('a', 1000)
    await pass(leaseMs)
    t.same(await there.acquire('a', 1000), { acquired: true })
  })

  t.test('news acquires the lease before its time, once per interval, and not while the upstream is asked', async t => {
    const { here, there, pass } = await open(t)
    await here.acquire('a', 1000)
    t.match(await there.acquire('a', 1000, true), { acquired: false }, 'the upstream is asked')
    await here.release('a', last('one'), 1000)
    const leases = await Promise.all(
      Array.from({ length: 20 }, (_, index) => (index % 2 ? here : there).acquire('a', 1000, true))
    )
    t.equal(leases.filter(({ acquired }) => acquired).length, 1)
    await (leases.findIndex(({ acquired }) => acquired) % 2 ? here : there).release('a', last('two'), 1000)
    t.match(await there.acquire('a', 1000, true), { acquired: false, last: last('two') })
    await pass(999)
    t.match(await there.acquire('a', 1000, true), { acquired: false })
    await pass(1)
    t.same(await there.acquire('a', 1000, true), { acquired: true })
  })

  t.test('ids with odd characters do not mix', async t => {
    const { here } = await open(t)
    const ids = ["'", '{', '}', '{a}', '*', ':', '😀', 'ä', 'a\u0308', ' ', '0', '00', '']
    for (const id of ids) t.same(await here.acquire(id, 1000), { acquired: true }, JSON.stringify(id))
    for (const id of ids) await here.release(id, last(id), 1000)
    for (const id of ids) t.match(await here.acquire(id, 1000), { last: last(id) }, JSON.stringify(id))
  })
}
