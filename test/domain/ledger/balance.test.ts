import t from 'tap'
import { creditsFrom, creditsLeft, leastLeft } from '../../../src/domain/ledger.ts'
import { plans } from '../../../src/domain/policy.ts'

const planWith = (credits: number | 'unlimited') => plans({
  default: { models: ['*'], requestsPerMinute: 1, pollsPerMinute: 1, concurrentTasks: 1, credits, period: 'day' }
}).get('default')!

t.test('what is left is what the period has not used, and all grants', t => {
  t.equal(creditsLeft(planWith(100), { used: 25_130_000, granted: 0, unfinished: 1 }), 74_870_000)
  t.equal(creditsLeft(planWith(100), { used: 100_000_000, granted: 500_000, unfinished: 0 }), 500_000)
  t.equal(creditsLeft(planWith(0), { used: 0, granted: 0, unfinished: 0 }), 0)
  t.equal(creditsLeft(planWith('unlimited'), { used: 7, granted: 7, unfinished: 0 }), null)
  t.end()
})

t.test('a plan that has become smaller is never below zero, and takes nothing from the grants', t => {
  t.equal(creditsLeft(planWith(1), { used: 5_000_000, granted: 0, unfinished: 0 }), 0)
  t.equal(creditsLeft(planWith(1), { used: 5_000_000, granted: 3_000_000, unfinished: 0 }), 3_000_000)
  t.end()
})

t.test('a session has the least of its own and its subject\'s, and never less than nothing', t => {
  t.equal(leastLeft(null, null, 7), null)
  t.equal(leastLeft(5, null, 7), 5)
  t.equal(leastLeft(5, 9, 7), 2)
  t.equal(leastLeft(1, 9, 7), 1)
  t.equal(leastLeft(null, 9, 7), 2)
  t.equal(leastLeft(5, 6, 7), 0)
  t.end()
})

t.test('credits print as the decimal they are', t => {
  t.equal(String(creditsFrom(74_870_000)), '74.87')
  t.equal(String(creditsFrom(1)), '0.000001')
  t.equal(String(creditsFrom(0)), '0')
  for (let microcredits = 0; microcredits < 1e15; microcredits = microcredits * 3 + 7) {
    const digits = String(microcredits).padStart(7, '0')
    const decimal = `${digits.slice(0, -6)}.${digits.slice(-6)}`.replace(/\.?0+$/, '')
    t.equal(creditsFrom(microcredits).toFixed(6).replace(/\.?0+$/, ''), decimal)
    t.equal(String(creditsFrom(microcredits)).replace(/^7e-6$/, '0.000007'), decimal)
  }
  t.end()
})
