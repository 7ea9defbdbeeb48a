import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { barReport, goals, judge, verdict } from './bar.ts'
import { type CaseName, caseNames, cases } from './cases.ts'
import { barChart } from './chart.ts'
import { countsReport } from './counts.ts'
import { added, type Figures, type Measured, ratios } from './figures.ts'
import { fits } from './history.ts'
import { imageCommand } from './image.ts'
import { load, openLoader, type Shot } from './load.ts'
import { median, medianRatio, percentile, processorTicks, range, scheduledNanos, table } from './numbers.ts'
import { readPlan } from './plan.ts'
import { report, sectionsOf } from './report.ts'
import { chartOf, readResults, rendered } from './results.ts'
import { refusedShots, submitShots } from './shots.ts'

t.test('median and percentile', async t => {
  t.equal(median([3, 1, 2]), 2)
  t.equal(median([4, 1, 2, 3]), 2.5)
  t.throws(() => median([]), RangeError)
  const hundred = Float64Array.from({ length: 100 }, (_, index) => index + 1)
  t.equal(percentile(hundred, 0.5), 50)
  t.equal(percentile(hundred, 0.99), 99)
  t.equal(percentile([7], 0.99), 7)
  t.throws(() => percentile([], 0.5), RangeError)
  t.same(range([2, 3, 1]), [1, 3])
  t.throws(() => range([]), RangeError)
})

t.test('ratios are taken round by round', async t => {
  t.equal(medianRatio([10, 200, 30], [5, 100, 10]), 2)
  t.throws(() => medianRatio([1], []), RangeError)
})

t.test('processor time is read past a command that holds brackets and spaces', async t => {
  t.equal(processorTicks('42 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 120 34 0 0 20 0'), 154)
  t.equal(scheduledNanos('1308944 1718018 1\n'), 1308944)
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

/** A server that answers as it is told, and remembers what it was sent. */
async function answering (t: Test, statusOf: (url: string) => number) {
  const seen: Array<{ readonly url: string, readonly authorization: string | undefined }> = []
  const server = createServer((request, response) => {
    seen.push({ url: request.url!, authorization: request.headers.authorization })
    response.statusCode = statusOf(request.url!)
    const isChunked = request.url!.includes('chunked')
    request.resume().on('end', () => {
      if (isChunked) response.write('{"ok":')
      response.end(isChunked ? 'true}' : '{"ok":true}')
    })
  }).listen(0, '127.0.0.1')
  t.teardown(() => server.close())
  await new Promise(resolve => server.once('listening', resolve))
  return { port: (server.address() as AddressInfo).port, seen }
}

const shot: Shot = { method: 'POST', path: '/', headers: { 'content-type': 'application/json' }, body: '{}' }

t.test('the loader counts answers, and fails on one that was not expected', async t => {
  const { port, seen } = await answering(t, url => url === '/refused' ? 401 : 200)
  const result = await load({ port, shots: [shot], connections: 2, seconds: 0.2, expect: 200 })
  t.equal(result.requests, seen.length)
  t.ok(result.p50Ms > 0 && result.p50Ms <= result.p99Ms)
  await load({ port, shots: [{ ...shot, path: '/chunked' }], connections: 1, seconds: 0.05, expect: 200 })
  const refused = { port, shots: [{ ...shot, path: '/refused' }], connections: 1, expect: 200 }
  await t.rejects(load({ ...refused, seconds: 0.2 }), /answered 401/)
  await t.rejects(load({ ...refused, seconds: 0.2, others: 2 }), /answered 401/, 'three of them are more than two')
})

t.test('at a rate of its own the loader sends as many as were due, and none twice', async t => {
  const { port, seen } = await answering(t, () => 200)
  const loader = await openLoader(port, 4)
  t.teardown(() => loader.close())
  const { requests, seconds } = await loader.run({ shots: [shot], seconds: 0.5, expect: 200, perSecond: 100 })
  t.equal(seen.length, requests)
  t.ok(requests > 20 && requests <= 50, `${requests} in ${seconds} s`)
})

t.test('ever-new tokens are never sent twice, and have the shape of the real one', async t => {
  const { port, seen } = await answering(t, () => 401)
  const token = `${'h'.repeat(20)}.${'p'.repeat(80)}.${'s'.repeat(43)}`
  const { refused, refusedNew } = refusedShots(token)
  for (let run = 0; run < 2; run++) {
    await load({ port, shots: refusedNew!, connections: 2, seconds: 0.05, expect: 401 })
  }
  const sent = seen.map(({ authorization }) => authorization)
  t.equal(new Set(sent).size, sent.length)
  for (const header of sent) t.match(header, /^Bearer h{20}\.p{80}\.[a-z0-9]{43}$/)
  t.match(refused![0]!.headers.authorization, new RegExp(`^Bearer ${token.slice(0, -4)}AAAA$`))
})

t.test('bodies have the sizes that the titles tell', async t => {
  const { submit, submit16k, upload } = submitShots([{}])
  t.same([submit, submit16k, upload].map(shots => shots![0]!.body!.length), [300, 16_384, 5_000_000])
})

t.test('an earlier version is run with our packages only when its lockfile asks for the same ones', async t => {
  const lockfile = (packages: object) => JSON.stringify({ packages: { '': { version: '1.0.0' }, ...packages } })
  const ours = lockfile({ 'node_modules/a': { version: '1.0.0' }, 'node_modules/b': { version: '2.0.0', dev: true } })
  t.equal(fits(lockfile({ 'node_modules/a': { version: '1.0.0' } }), ours), true)
  t.equal(fits(lockfile({ 'node_modules/a': { version: '1.0.1' } }), ours), false)
  t.equal(fits(lockfile({ 'node_modules/c': { version: '1.0.0' } }), ours), false)
  t.equal(fits(lockfile({ 'node_modules/c': { version: '1.0.0', dev: true } }), ours), true, 'it is not needed for a run')
})

t.test('the command line says what is compared, and names what it does not know', async t => {
  const usual = readPlan([])
  t.equal(usual.comparison.kind, 'peers')
  t.same(usual.cases, caseNames)
  t.equal(usual.warmUpSeconds, 8)
  const bar = readPlan(['--bar', '--rounds', '2', '--seconds', '1.5'])
  t.same([bar.comparison.kind, bar.rounds, bar.seconds], ['bar', 2, 1.5])
  t.same(bar.cases, ['submit', 'finished', 'refusedNew', 'alone'])
  t.same(readPlan(['--stores', '--tasks', '5']).comparison, { kind: 'stores', tasks: 5 })
  t.same([readPlan(['--ceilings']).comparison.kind, readPlan(['--ceilings']).cases], ['ceilings', ['submit', 'alone']])
  t.same(readPlan(['--beside', '/elsewhere', '--cases', 'submit,alone']).cases, ['submit', 'alone'])
  t.same(readPlan(['--counts', '--beside', '/elsewhere']).comparison, { kind: 'counts', tree: '/elsewhere' })
  t.same(readPlan(['--counts']).comparison, { kind: 'counts', tree: null })
  t.ok(readPlan(['--quick']).seconds < 1)
  t.throws(() => readPlan(['--cases', 'submit,nonsense']), /nonsense is none of submit, /)
  t.equal(readPlan(['--bar', '--write']).write, true)
  for (const part of ['--quick', '--stores', '--cases=submit']) {
    t.throws(() => readPlan(['--write', part]), /--write keeps a whole run/, part)
  }
  t.throws(() => readPlan(['--rounds', '0']), /--rounds wants a number above 0/)
})

/** Figures of a run in which the gateway takes `times` what raw takes, and 0.3.0 twice that. */
function figuresOf (times: number): Figures {
  const cells = new Map<`${CaseName} ${string}`, Measured[]>()
  const measured = (name: CaseName, target: string, cost: number) => {
    const round = { perSecond: 1e4 / cost, p50Ms: 1 + cost, p99Ms: 2 * cost, cpuMicros: 100 * cost }
    cells.set(`${name} ${target}`, [round, { ...round, cpuMicros: round.cpuMicros + 50 * cost }, round])
  }
  for (const name of ['submit', 'finished', 'alone'] as const) measured(name, 'raw', 1)
  for (const name of ['submit', 'finished', 'alone', 'refusedNew'] as const) {
    measured(name, 'gateway', times)
    measured(name, '0.3.0', 2 * times)
  }
  measured('submit', 'http-proxy', 3)
  measured('alone', 'direct', 0)
  const arc = { readySeconds: 0.2 * times, loadedBytes: 1e8 * times, peakBytes: 2e8, recoveredBytes: 9e7 }
  const arcs = new Map(['raw', 'gateway', '0.3.0'].map((name, index) =>
    [name, { ...arc, name, idleBytes: 5e7 * times * (index + 1) }]))
  return { cells, arcs, files: new Map(), events: new Map() }
}

t.test('each case is held against the case that it should be', async t => {
  const figures = figuresOf(2)
  t.same(ratios(figures, 'refusedNew', 'gateway', 'raw', 'cpuMicros'), [2, 2, 2], 'a forward of raw')
  t.equal(ratios(figures, 'refusedNew', 'raw', 'raw', 'cpuMicros'), null, 'raw looks at no token')
  t.same(added(figures, 'alone', 'gateway', 'p50Ms'), [2, 2, 2])
  for (const name of caseNames) t.equal(cases[cases[name].against].against, cases[name].against, name)
})

t.test('a goal is met, met with its stretch, missed, or not measured', async t => {
  const verdicts = (times: number) => {
    const { goals, shares } = judge(figuresOf(times))
    return Object.fromEntries([...goals, ...shares].map(goal => [goal.what, verdict(goal)]))
  }
  t.match(verdicts(1), {
    'submit: cpu × raw': 'stretch met',
    'submit: req/s × http-proxy': 'stretch met',
    'submit: cpu': 'met',
    'finished status: cpu': 'MISSED',
    '8 files of 50 MB: cpu a MB × raw': 'not measured'
  })
  t.match(verdicts(2), { 'submit: cpu × raw': 'met', 'submit: req/s × http-proxy': 'MISSED', 'memory idle, MB': 'MISSED' })
  t.equal(judge(figuresOf(1)).goals.length, goals.length)
})

t.test('what a request makes is told beside what it made before', async t => {
  const counted = { bytes: 83_526.4, promises: 96.42, timers: 3, callbacks: 10.94 }
  const counts = new Map([['submit 0.3.0', counted], ['submit gateway', { ...counted, promises: 29 }]] as const)
  t.match(
    countsReport(counts, ['submit'], ['0.3.0', 'gateway']),
    /connections, a request\n.*\n.*\n0\.3\.0 +83526 +96\.4 +3\.00 +10\.9\ngateway +83526 +29\.0 /
  )
})

t.test('a report has a line for everybody who took part, and what one connection adds', async t => {
  const text = report(sectionsOf(figuresOf(2), ['submit', 'alone', 'upload'], ['raw', 'http-proxy']))
  t.match(text, /submit of 300 bytes, 32 connections\n.*\n.*\nraw +10000 +1\.00 +3\.00/)
  t.match(text, /direct .*\nraw .* 1\.000 /)
  t.notMatch(text, '5 MB')
})

t.test('the bar is told with its spread, and with what the former version would have got', async t => {
  const text = barReport(judge(figuresOf(2)))
  t.match(text, /submit: cpu × raw +≤ 2\.2 +≤ 1\.5 +2\.00 +4\.00 +met/)
  t.match(text, /8 files of 50 MB: cpu a MB × raw +≤ 1\.2 +≤ 1\.05 +- +- +not measured/)
  t.match(text, /submit: cpu +≤ 0\.55 +0\.50 +met/)
})

t.test('a bar that is far longer than the others is cut, and ours are drawn in colour', async t => {
  const bar = (name: string, value: number) => ({ name, value, label: `${value} <µs>`, isOurs: name === 'ours' })
  const svg = barChart([{ title: 'cost', bars: [bar('raw', 50), bar('ours', 100), bar('slow', 1000)] }])
  const lengths = Array.from(svg.matchAll(/<rect (class="\w+" )?x="110" y="\d+" width="(\d+)"/g), ([, kind, width]) =>
    [kind?.trim(), Number(width)])
  t.same(lengths, [[undefined, 220], ['class="ours"', 440], [undefined, 440]])
  t.equal(svg.match(/class="gap"/g)?.length, 1)
  t.match(svg, '1000 &lt;µs&gt;')
})

t.test('the page of results shows three runs of the bar side by side, with the worst verdict of them', async t => {
  const here = { date: '2026-11-30', version: '1.2.3', node: '24.0.0', processors: 2 }
  const [good, bad] = [judge(figuresOf(1)), judge(figuresOf(3))]
  const sections = sectionsOf(figuresOf(1), ['submit'], ['raw', 'http-proxy'])
  const { page, chart } = rendered({
    bars: [good, bad, good].map(run => ({ ...here, ...run })),
    peers: { ...here, sections, chart: chartOf(figuresOf(1)) }
  })
  t.match(page, '| submit: cpu × raw | ≤ 2.2 | ≤ 1.5 | 1.00 | 3.00 | 1.00 | 2.00 / 6.00 / 2.00 | MISSED |')
  t.match(page, '### submit of 300 bytes, 32 connections\n\n|  | req/s | × raw |')
  t.match(chart, '>gateway</text>')
})

t.test('results.md and its chart are those that the bench makes of what it has kept', async t => {
  const { page, chart } = rendered(readResults())
  const read = (name: string) => readFileSync(join(import.meta.dirname, name), 'utf8')
  t.equal(read('results.md'), page)
  if (chart !== null) t.equal(read('results.svg'), chart)
})

t.test('the image is started as its Dockerfile says', async t => {
  t.same(
    imageCommand('ENV NODE_ENV=production \\\n    NODE_COMPILE_CACHE=/app/x \\\n    PORT=1\nCMD ["node", "--flag=4", "src/main.cjs"]\n'),
    { args: ['--flag=4', 'src/main.cjs'], env: { NODE_ENV: 'production' } }
  )
  t.throws(() => imageCommand('CMD ["sh"]'), /the image starts \["sh"\]/)
  imageCommand(readFileSync(join(import.meta.dirname, '../../Dockerfile'), 'utf8'))
})
