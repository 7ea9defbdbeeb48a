import { createHash } from 'node:crypto'
import t from 'tap'
import { creditsFrom, creditsLeft, fingerprintOf, leastLeft, readIdempotencyKey } from '../../src/domain/ledger.ts'
import { plans } from '../../src/domain/policy.ts'

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

t.test('the quoted and the bare form of a key are one key', async t => {
  for (const [quoted, bare] of [
    ['"8e03978e-40d5-43e8-bc93-6894a57f9324"', '8e03978e-40d5-43e8-bc93-6894a57f9324'],
    ['"order 42"', 'order 42'],
    ['"a\\"b\\\\c"', 'a"b\\c'],
    ['"~!#$%&\'()*+-./:;<=>?@[]^_`{|}"', '~!#$%&\'()*+-./:;<=>?@[]^_`{|}'],
    [`"${'k'.repeat(255)}"`, 'k'.repeat(255)]
  ] as const) {
    t.equal(readIdempotencyKey([quoted]), bare)
    t.equal(readIdempotencyKey([bare]), bare)
  }
})

t.test('what can be written in quotes alone is read there', async t => {
  t.equal(readIdempotencyKey(['"a, b"']), 'a, b')
  t.equal(readIdempotencyKey(['" a "']), ' a ')
  t.equal(readIdempotencyKey(['"\\"a\\""']), '"a"')
  t.equal(readIdempotencyKey([`"${'\\"'.repeat(255)}"`]), '"'.repeat(255), 'an escape is no character of the key')
})

t.test('keys that differ in any sign are two keys', async t => {
  const keys = ['a', 'A', 'a ', ' a', 'a\\\\', 'a\\"', 'a;', "'a'"].map(inner => readIdempotencyKey([`"${inner}"`]))
  t.equal(new Set(keys).size, keys.length)
})

t.test('what is no key, or more than one, is refused with what to change', async t => {
  for (const [values, message] of [
    [['a', 'a'], /given twice/],
    [['a', 'b', 'c'], /given twice/],
    [[], /given twice/],
    [['a, b'], /comma/],
    [['a,b'], /comma/],
    [['"a", "b"'], /double quotes/],
    [['"a","a"'], /double quotes/],
    [[''], /printable ASCII/],
    [['""'], /printable ASCII/],
    [['"'], /printable/],
    [['"a'], /printable/],
    [['"a"b'], /printable/],
    [['"a\\"'], /printable/],
    [['"a\\b"'], /printable/],
    [['"a"b"'], /printable/],
    [['"a" '], /printable/],
    [['"a";v=1'], /printable/],
    [['schlüssel'], /printable/],
    [['"ü"'], /printable/],
    [['a\tb'], /printable/],
    [['"a\tb"'], /printable/],
    [['a\x7f'], /printable/],
    [['k'.repeat(256)], /at most 255/],
    [[`"${'k'.repeat(256)}"`], /at most 255/]
  ] as const) {
    t.throws(() => readIdempotencyKey(values), { code: 'GW_BAD_REQUEST', message }, JSON.stringify(values).slice(0, 40))
  }
})

t.test('a long header is read in no time, however it is made', async t => {
  const started = performance.now()
  for (const value of [
    `"${'\\'.repeat(100_000)}`,
    `"${'\\\\'.repeat(50_000)}`,
    `"${'a'.repeat(100_000)}`,
    `a${' '.repeat(100_000)}`,
    `${'a '.repeat(50_000)},`
  ]) {
    t.throws(() => readIdempotencyKey([value]), { code: 'GW_BAD_REQUEST' })
  }
  t.ok(performance.now() - started < 1000)
})

t.test('a fingerprint is of its parts, in their order and with their borders', async t => {
  const body = Buffer.from('{"input":{}}')
  const print = fingerprintOf('POST', '/url', 'model', body)
  t.equal(fingerprintOf('POST', '/url', 'model', Buffer.from(body)), print)
  t.match(print, /^[\w-]{43}$/)
  const others = [
    fingerprintOf('POST', '/url', 'model', Buffer.from('{"input": {}}')),
    fingerprintOf('POST', '/url', 'Model', body),
    fingerprintOf('POST', '/urlmodel', '', body),
    fingerprintOf('POST', '/url', 'mode', Buffer.from('l{"input":{}}')),
    fingerprintOf('POST', '/url', 'model'),
    fingerprintOf('POST', '/url', 'model', body, ''),
    fingerprintOf('POST4:/url', 'model', body),
    fingerprintOf('/url', 'POST', 'model', body)
  ]
  t.equal(new Set([print, ...others]).size, others.length + 1)
  t.equal(fingerprintOf('ä'), fingerprintOf(Buffer.from('ä')), 'text counts in UTF-8')
})

t.test('a fingerprint is the same one whether its parts are short or long, and whatever bytes they have', async t => {
  for (const length of [0, 300, 16_300, 16_320, 16_340, 16_360, 16_384, 40_000]) {
    const body = Buffer.from(Array.from({ length }, (_, index) => index * 7 % 256))
    const parts = ['POST', '/url/ä', body, 'mödel', '']
    const whole = createHash('sha256')
    for (const part of parts) whole.update(`${Buffer.byteLength(part)}:`).update(part)
    t.equal(fingerprintOf(...parts), whole.digest('base64url'), `${length} bytes`)
  }
})
