import t from 'tap'
import { isZone, loadZones, windowAt, type WindowKind, type WindowRule } from '../../src/domain/windows.ts'
import { random } from '../helpers/random.ts'

const kinds = ['hour', 'day', 'week', 'month'] as const
const minuteMs = 60_000

function ruleOf (kind: WindowKind, zone = 'UTC', resetHour = 0): WindowRule {
  return { kind, zone, resetHour }
}

/** The windows that begin in `[from, to)`, and the one that is there at `from`: name, and end on the clock of UTC. */
function windowsIn (rule: WindowRule, from: string, to: string): string[] {
  const found: string[] = []
  for (let now = Date.parse(from); now < Date.parse(to);) {
    const { id, endsAt } = windowAt(rule, now)
    if (endsAt === null || endsAt <= now) throw new Error(`${id} is no window of ${now}`)
    found.push(`${id} to ${new Date(endsAt).toISOString().replace(':00.000Z', '')}`)
    now = endsAt
  }
  return found
}

t.test('a zone is loaded before its windows are asked for, and UTC needs nothing', async t => {
  const berlin = ruleOf('day', 'Europe/Berlin')
  await loadZones([ruleOf('day')])
  t.throws(() => windowAt(berlin, 0), { message: 'The zone Europe/Berlin has not been loaded.' })
  await loadZones([ruleOf('day'), berlin])
  t.equal(windowAt(berlin, 0).id, 'day:1970-01-01')
})

t.test('in UTC the windows of each kind follow each other', async t => {
  t.strictSame(windowsIn(ruleOf('hour'), '2026-11-30T04:30Z', '2026-11-30T06:00Z'), [
    'hour:2026-11-30T04:00Z to 2026-11-30T05:00',
    'hour:2026-11-30T05:00Z to 2026-11-30T06:00'
  ])
  t.strictSame(windowsIn(ruleOf('day'), '2028-02-28T12:00Z', '2028-03-01T00:00Z'), [
    'day:2028-02-28 to 2028-02-29T00:00',
    'day:2028-02-29 to 2028-03-01T00:00'
  ])
  t.strictSame(windowsIn(ruleOf('month'), '2028-01-31T23:59Z', '2028-03-01T00:01Z'), [
    'month:2028-01 to 2028-02-01T00:00',
    'month:2028-02 to 2028-03-01T00:00',
    'month:2028-03 to 2028-04-01T00:00'
  ])
  t.same(windowsIn(ruleOf('month'), '2027-02-28T23:59Z', '2027-03-01T00:00Z'), ['month:2027-02 to 2027-03-01T00:00'])
})

t.test('a week begins on Monday, also over the end of a year and before 1970', async t => {
  t.strictSame(windowsIn(ruleOf('week'), '2026-12-27T23:59Z', '2027-01-04T00:01Z'), [
    'week:2026-12-21 to 2026-12-28T00:00',
    'week:2026-12-28 to 2027-01-04T00:00',
    'week:2027-01-04 to 2027-01-11T00:00'
  ])
  t.same(windowsIn(ruleOf('week'), '1969-12-20T00:00Z', '1969-12-21T00:00Z'), ['week:1969-12-15 to 1969-12-22T00:00'])
})

t.test('before the reset hour it is still the day, the week and the month before', async t => {
  const now = '2026-06-01T03:59Z' // A Monday.
  t.same(windowsIn(ruleOf('day', 'UTC', 4), now, '2026-06-01T04:00Z'), ['day:2026-05-31 to 2026-06-01T04:00'])
  t.same(windowsIn(ruleOf('week', 'UTC', 4), now, '2026-06-01T04:00Z'), ['week:2026-05-25 to 2026-06-01T04:00'])
  t.same(windowsIn(ruleOf('month', 'UTC', 4), now, '2026-06-01T04:00Z'), ['month:2026-05 to 2026-06-01T04:00'])
  t.same(windowsIn(ruleOf('month', 'UTC', 4), '2026-06-01T04:00Z', '2026-06-01T05:00Z'), [
    'month:2026-06 to 2026-07-01T04:00'
  ])
})

t.test('a window without an end is always the same', async t => {
  const prepaid = ruleOf('none', 'Europe/Berlin', 5)
  t.strictSame(windowAt(prepaid, 0), { id: 'none', endsAt: null })
  t.equal(windowAt(prepaid, 0), windowAt(prepaid, Date.parse('2027-01-01')))
})

t.test('a day of summer time has 23 hours, one of winter time 25', async t => {
  t.strictSame(windowsIn(ruleOf('day', 'Europe/Berlin'), '2026-03-28T23:00Z', '2026-03-30T00:00Z'), [
    'day:2026-03-29 to 2026-03-29T22:00',
    'day:2026-03-30 to 2026-03-30T22:00'
  ])
  t.same(windowsIn(ruleOf('day', 'Europe/Berlin'), '2026-10-24T22:00Z', '2026-10-25T12:00Z'), [
    'day:2026-10-25 to 2026-10-25T23:00'
  ])
  t.equal(windowsIn(ruleOf('hour', 'Europe/Berlin'), '2026-03-28T23:00Z', '2026-03-29T22:00Z').length, 23)
  t.equal(windowsIn(ruleOf('hour', 'Europe/Berlin'), '2026-10-24T22:00Z', '2026-10-25T23:00Z').length, 25)
  t.same(windowsIn(ruleOf('week', 'Europe/Berlin'), '2026-03-29T00:00Z', '2026-03-29T01:00Z'), [
    'week:2026-03-23 to 2026-03-29T22:00'
  ])
  t.same(windowsIn(ruleOf('month', 'Europe/Berlin'), '2026-03-29T00:00Z', '2026-03-29T01:00Z'), [
    'month:2026-03 to 2026-03-31T22:00'
  ])
})

t.test('a reset hour that there is not that day comes an hour later by the clock, at the change', async t => {
  t.strictSame(windowsIn(ruleOf('day', 'Europe/Berlin', 2), '2026-03-28T12:00Z', '2026-03-30T12:00Z'), [
    'day:2026-03-28 to 2026-03-29T01:00', // 3:00 in summer
    'day:2026-03-29 to 2026-03-30T00:00',
    'day:2026-03-30 to 2026-03-31T00:00'
  ])
})

t.test('a reset hour that comes twice counts the first time', async t => {
  t.strictSame(windowsIn(ruleOf('day', 'Europe/Berlin', 2), '2026-10-24T12:00Z', '2026-10-25T12:00Z'), [
    'day:2026-10-24 to 2026-10-25T00:00', // 2:00 in summer; at 1:00 it is 2:00 in winter
    'day:2026-10-25 to 2026-10-26T01:00'
  ])
})

t.test('a day without a midnight begins at one', async t => {
  t.strictSame(windowsIn(ruleOf('day', 'America/Sao_Paulo'), '2018-11-03T12:00Z', '2018-11-04T12:00Z'), [
    'day:2018-11-03 to 2018-11-04T03:00',
    'day:2018-11-04 to 2018-11-05T02:00'
  ])
  t.same(windowsIn(ruleOf('day', 'America/Sao_Paulo'), '2018-02-18T01:59Z', '2018-02-18T02:01Z'), [
    'day:2018-02-17 to 2018-02-18T03:00' // From 24:00 back to 23:00: an hour of Saturday again.
  ])
})

t.test('a date that is seen again after its midnight is one day', async t => {
  // At 0:01 on 1 November clocks were put back to 23:01 of 31 October.
  t.strictSame(windowsIn(ruleOf('day', 'America/St_Johns'), '2009-11-01T02:29Z', '2009-11-01T03:00Z'), [
    'day:2009-10-31 to 2009-11-01T02:30',
    'day:2009-11-01 to 2009-11-02T03:30'
  ])
  t.equal(windowAt(ruleOf('day', 'America/St_Johns'), Date.parse('2009-11-01T02:45Z')).id, 'day:2009-11-01')
})

t.test('a date that never was has no window', async t => {
  t.strictSame(windowsIn(ruleOf('day', 'Pacific/Apia'), '2011-12-29T12:00Z', '2011-12-31T12:00Z'), [
    'day:2011-12-29 to 2011-12-30T10:00',
    'day:2011-12-31 to 2011-12-31T10:00',
    'day:2012-01-01 to 2012-01-01T10:00'
  ])
})

t.test('a zone that changes by half an hour has a last hour of thirty minutes', async t => {
  t.same(windowsIn(ruleOf('day', 'Australia/Lord_Howe'), '2026-10-03T13:30Z', '2026-10-04T12:00Z'), [
    'day:2026-10-04 to 2026-10-04T13:00'
  ])
  const hours = windowsIn(ruleOf('hour', 'Australia/Lord_Howe'), '2026-10-03T13:30Z', '2026-10-04T13:00Z')
  t.equal(hours.length, 24)
  t.equal(hours.at(-1), 'hour:2026-10-04T12:30Z to 2026-10-04T13:00')
})

t.test('zones a quarter of an hour off, and west of UTC, have their own hours and days', async t => {
  t.same(windowsIn(ruleOf('hour', 'Asia/Kathmandu'), '2026-11-30T04:14Z', '2026-11-30T04:16Z'), [
    'hour:2026-11-30T03:15Z to 2026-11-30T04:15',
    'hour:2026-11-30T04:15Z to 2026-11-30T05:15'
  ])
  t.same(windowsIn(ruleOf('day', 'Asia/Kathmandu', 6), '2026-11-30T00:14Z', '2026-11-30T00:16Z'), [
    'day:2026-11-29 to 2026-11-30T00:15',
    'day:2026-11-30 to 2026-12-01T00:15'
  ])
  t.same(windowsIn(ruleOf('month', 'America/Los_Angeles'), '2028-03-01T07:59Z', '2028-03-01T08:01Z'), [
    'month:2028-02 to 2028-03-01T08:00',
    'month:2028-03 to 2028-04-01T07:00'
  ])
  t.same(windowsIn(ruleOf('week', 'Pacific/Kiritimati', 23), '2026-11-30T08:59Z', '2026-11-30T09:01Z'), [
    'week:2026-11-23 to 2026-11-30T09:00',
    'week:2026-11-30 to 2026-12-07T09:00'
  ])
})

t.test('a window is remembered until it ends, and a clock that is put back finds the one before', async t => {
  const day = ruleOf('day', 'Europe/Berlin')
  const noon = Date.parse('2026-11-30T12:00Z')
  const window = windowAt(day, noon)
  t.equal(windowAt(day, noon + minuteMs), window, 'the same object')
  t.equal(windowAt(day, Date.parse('2026-11-29T23:00Z')), window, 'at its first instant too')
  t.equal(windowAt(day, Date.parse('2026-11-29T22:59:59.999Z')).id, 'day:2026-11-29')
  t.equal(windowAt(day, Date.parse('2026-11-30T23:00Z')).id, 'day:2026-12-01')
  t.equal(windowAt(day, noon).id, 'day:2026-11-30')
})

t.test('windows tile time: no gap, no overlap, and no name twice', async t => {
  const { seed, int, pick } = random()
  const zones = [
    'UTC', 'Europe/Berlin', 'America/Sao_Paulo', 'Australia/Lord_Howe', 'Asia/Kathmandu', 'America/Havana',
    'America/St_Johns', 'Pacific/Apia', 'Africa/Casablanca', 'Antarctica/Troll', 'Asia/Gaza', 'America/Los_Angeles'
  ]
  const wrong: string[] = []
  for (let run = 0; run < 300; run++) {
    const rule = ruleOf(pick(kinds), pick(zones), int(24))
    const names = new Set<string>()
    let now = Date.UTC(1995 + int(40), int(12), 1 + int(28), int(24), int(60))
    for (let i = 0; i < 60; i++) {
      const window = windowAt(rule, now)
      const end = window.endsAt!
      const [here, other] = [now + int(end - now), { ...rule }]
      const isWhole = end > now && windowAt(other, here).id === window.id && windowAt(other, end - 1).id === window.id
      const isLast = windowAt(other, end).id === window.id || names.has(window.id)
      if (!isWhole || isLast) wrong.push(`${JSON.stringify(rule)} at ${new Date(now).toISOString()}`)
      names.add(window.id)
      now = end
    }
  }
  t.strictSame(wrong, [], `TEST_SEED=${seed}`)
})

t.test('a zone is one of the database', async t => {
  const names = ['UTC', 'Europe/Berlin', 'europe/berlin', 'America/Argentina/Buenos_Aires', 'Europe/Paderborn', '+01:00', '']
  t.strictSame(names.filter(isZone), ['UTC', 'Europe/Berlin', 'europe/berlin', 'America/Argentina/Buenos_Aires'])
})
