import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import t from 'tap'
import { load } from './load.ts'
import { median, medianRatio, percentile, processorTicks, table } from './numbers.ts'

t.test('median and percentile', async t => {
  t.equal(median([3, 1, 2]), 2)
  t.equal(median([4, 1, 2, 3]), 2.5)
  t.throws(() => median([]), RangeError)
  const hundred = Float64Array.from({ length: 100 }, (_, index) => index + 1)
  t.equal(percentile(hundred, 0.5), 50)
  t.equal(percentile(hundred, 0.99), 99)
  t.equal(percentile([7], 0.99), 7)
  t.throws(() => percentile([], 0.5), RangeError)
})

t.test('ratios are taken round by round', async t => {
  t.equal(medianRatio([10, 200, 30], [5, 100, 10]), 2)
  t.throws(() => medianRatio([1], []), RangeError)
})

t.test('processor time is read past a command that holds brackets and spaces', async t => {
  t.equal(processorTicks('42 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 120 34 0 0 20 0'), 154)
})

t.test('a table keeps its columns', async t => {
  t.equal(
    table(
      ['what', 'n'],
      [
        ['a', '1'],
        ['long one', '12']
      ]
    ),
    'what       n\n--------  --\na          1\nlong one  12'
  )
})

t.test('the loader counts answers, and fails on one that was not expected', async t => {
  let seen = 0
  const server = createServer((request, response) => {
    seen++
    response.statusCode = request.url === '/refused' ? 401 : 200
    request.resume().on('end', () => response.end('{"ok":true}'))
  }).listen(0, '127.0.0.1')
  t.teardown(() => server.close())
  await new Promise(resolve => server.once('listening', resolve))
  const { port } = server.address() as AddressInfo
  const shot = { method: 'POST', path: '/', headers: { 'content-type': 'application/json' }, body: '{}' }
  const result = await load({ port, shots: [shot], connections: 2, seconds: 0.2, expect: 200 })
  t.equal(result.requests, seen)
  t.ok(result.p50Ms > 0 && result.p50Ms <= result.p99Ms)
  await t.rejects(
    load({ port, shots: [{ ...shot, path: '/refused' }], connections: 1, seconds: 0.2, expect: 200 }),
    /answered 401/
  )
})
