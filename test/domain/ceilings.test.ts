import t from 'tap'
import { type CeilingRules, ceilings } from '../../src/domain/ceilings.ts'
import { loadZones } from '../../src/domain/windows.ts'

const open = { ceilings: {}, zone: 'UTC', resetHour: 0 }
const berlin = { zone: 'Europe/Berlin', resetHour: 6 }
const nothing: CeilingRules = { gateway: open, pools: {}, plans: {} }
const noon = Date.UTC(2026, 10, 30, 12)

t.test('where nothing is set there is nothing above the subjects', async t => {
  t.equal(ceilings(nothing), null)
  t.equal(ceilings({ ...nothing, pools: { a: open }, plans: { default: open } }), null)
})

t.test('a request draws on the gateway, its pool and its plan, and in each on the longest window first', async t => {
  const { above } = ceilings({
    gateway: { ...open, ceilings: { day: 100, none: 1000 }, concurrentTasks: 50 },
    pools: {
      a: { ...open, ceilings: { hour: 5, month: 20.5 }, concurrentTasks: 5 },
      b: { ...open, concurrentTasks: 2 }
    },
    plans: { default: { ...open, ceilings: { week: 7 } }, free: open }
  })!
  const all = [
    { account: 'gateway', window: 'none', endsAt: null, limit: 1e9 },
    { account: 'gateway', window: 'day:2026-11-30', endsAt: Date.UTC(2026, 11, 1), limit: 1e8 }
  ]
  const pool = [
    { account: 'pool:a', window: 'month:2026-11', endsAt: Date.UTC(2026, 11, 1), limit: 20_500_000 },
    { account: 'pool:a', window: 'hour:2026-11-30T12:00Z', endsAt: noon + 3_600_000, limit: 5e6 }
  ]
  const plan = [{ account: 'plan:default', window: 'week:2026-11-30', endsAt: Date.UTC(2026, 11, 7), limit: 7e6 }]
  const running = [{ account: 'gateway', limit: 50 }]
  t.same(above('default', 'a', noon), {
    holds: [...all, ...pool, ...plan], runningLimits: [...running, { account: 'pool:a', limit: 5 }]
  })
  t.same(above('free', 'b', noon), { holds: all, runningLimits: [...running, { account: 'pool:b', limit: 2 }] })
  t.same(above('free', null, noon), { holds: all, runningLimits: running })
})

t.test('it is reckoned once for a plan and a pool, until a window ends or the clock is put back', async t => {
  const { above } = ceilings({ ...nothing, gateway: { ...open, ceilings: { day: 1 } } })!
  const first = above('default', null, noon)
  t.equal(above('default', null, Date.UTC(2026, 11, 1) - 1), first)
  t.match(above('default', null, Date.UTC(2026, 11, 1)), { holds: [{ window: 'day:2026-12-01' }] })
  t.match(above('default', null, noon - 86_400_000), { holds: [{ window: 'day:2026-11-29' }] })
  t.not(above('other', null, noon), first)
})

t.test('windows are those of the zone and the hour: at changes of summer time, month ends and in a leap year', async t => {
  await loadZones([berlin])
  const { above } = ceilings({
    ...nothing, pools: { a: { ...berlin, ceilings: { hour: 1, day: 1, week: 1, month: 1 } } }
  })!
  const at = (text: string) => above('default', 'a', Date.parse(text)).holds!
    .map(({ window, endsAt }) => `${window} until ${new Date(endsAt!).toISOString().slice(0, 16)}`)
  t.same(at('2026-03-29T03:59:59Z'), [
    'month:2026-03 until 2026-04-01T04:00',
    'week:2026-03-23 until 2026-03-30T04:00',
    'day:2026-03-28 until 2026-03-29T04:00',
    'hour:2026-03-29T03:00Z until 2026-03-29T04:00'
  ], 'the day that is an hour shorter')
  t.match(at('2026-10-25T04:30Z')[2], 'day:2026-10-24 until 2026-10-25T05:00', 'and the one that is an hour longer')
  t.match(at('2028-02-29T12:00Z')[2], 'day:2028-02-29 until 2028-03-01T05:00')
  t.match(at('2028-03-01T04:59Z')[0], 'month:2028-02 until 2028-03-01T05:00')
  t.match(at('2027-01-01T00:00Z')[0], 'month:2026-12 until 2027-01-01T05:00')
})
