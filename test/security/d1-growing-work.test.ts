import { join } from 'node:path'
import t, { type Test } from 'tap'
import { insertMembers, readJson } from '../../src/domain/json.ts'
import { caps } from '../../src/domain/caps.ts'
import { globs } from '../../src/domain/policy.ts'
import { taskReferences } from '../../src/domain/submit.ts'
import { adminToken, apiKey, issuerToken, startGateway, type TestGateway } from '../helpers/gateway.ts'
import { rawHttp } from '../helpers/raw-http.ts'

/** Runs of each size: of several the shortest counts, for a busy machine only ever makes them longer. */
const runs = 5
/** Below this a growth is not told from noise, and hurts nobody, ms. */
const noiseMs = 5

type Run = (size: number) => unknown

/** In ms of this thread's own time, which is not that of a machine that has others to serve. */
async function shortest (run: Run, size: number, enoughMs = 0): Promise<number> {
  let best = Infinity
  for (let round = 0; round < runs && best > enoughMs; round++) {
    const start = process.threadCpuUsage()
    await run(size)
    const { user, system } = process.threadCpuUsage(start)
    best = Math.min(best, (user + system) / 1000)
  }
  return best
}

/** Doubles an input twice: linear work takes four times as long then, quadratic work sixteen times. */
async function isLinear (t: Test, what: string, size: number, run: Run): Promise<void> {
  const fourfold = await shortest(run, size * 4, noiseMs)
  const once = fourfold <= noiseMs ? noiseMs : await shortest(run, size)
  t.ok(
    fourfold <= 8 * Math.max(once, noiseMs),
    `${what}: ${once.toFixed(1)} ms, and ${fourfold.toFixed(1)} ms for four times as much`
  )
}

const marks = ['\u0301', '\u0327', '\u0328', '\u031b', '\u0323', '\u0345']
const combining = (count: number) => Array.from({ length: count }, (_, index) => marks[index % marks.length]).join('')
const list = (count: number, element: (index: number) => string) =>
  Array.from({ length: count }, (_, index) => element(index)).join()

/** Bodies of about so many bytes, made to cost more than their length. */
const bodies: Readonly<Record<string, (size: number) => string>> = {
  'one name of combining marks': size => `{"a${combining(size / 2)}":1}`,
  'a name of combining marks in input': size => `{"input":{"a${combining(size / 2)}":1}}`,
  'one name of combining marks, escaped': size => `{"${'\\u0301\\u0327'.repeat(size / 12)}":1}`,
  'one name of ligatures': size => `{"input":{"${'ﷺ'.repeat(size / 3)}":1}}`,
  'many names of combining marks': size => `{"input":{${list(size / 500, index => `"${index}${combining(240)}":1`)}}}`,
  'one name of letters': size => `{"${'a'.repeat(size)}":1}`,
  'space, and commas without a value': size => `{"a":${' '.repeat(size / 2)}${','.repeat(size / 2)}`,
  'a value, and commas without another': size => `{"a":"${'a'.repeat(size / 2)}"${','.repeat(size / 2)}`,
  'space, and closed braces': size => `{"a":${' '.repeat(size / 2)}${'}'.repeat(size / 2)}`,
  'space alone': size => ' '.repeat(size),
  'quotes alone': size => '"'.repeat(size),
  'backslashes in a string': size => `{"a":"${'\\\\'.repeat(size / 2)}`,
  'escaped quotes': size => `{"a":"${'\\"'.repeat(size / 2)}`,
  'colons alone': size => `{"a":${':'.repeat(size)}`,
  'braces that stay open': size => '{'.repeat(size),
  'lists side by side': size => `{"input":{"x":[${'[],'.repeat(size / 3)}0]}}`,
  'one long number': size => `{"input":{"duration":${'1'.repeat(size)}}}`,
  'one long fraction': size => `{"input":{"duration":0.${'0'.repeat(size)}1}}`,
  'many names': size => `{"input":{${list(size / 12, index => `"k${index}":1`)}}}`,
  'many names at the top': size => `{${list(size / 12, index => `"k${index}":1`)}}`,
  'names that are numbers': size => `{"input":{${list(size / 12, index => `"${index * 1024}":1`)}}}`,
  'many earlier tasks': size => `{"input":{"task_ids":[${list(size / 5, index => `${index}`)}]}}`,
  'many words that could be tasks': size =>
    `{"input":{"x":[${list(size / 20, index => `"w${String(index).padStart(16, '0')}"`)}]}}`,
  'many items': size =>
    `{"items":[${list(size / 60, index => `{"client_item_id":"c${index}","idempotency_key":"k${index}","input":{}}`)}]}`,
  'a long text': size => `{"invitation":"${'é'.repeat(size / 2)}"}`,
  'a long subject': size => `{"subject":"${'a'.repeat(size)}"}`,
  'many models': size => `{"subject":"alice","models":[${list(size / 5, () => '"a*"')}]}`,
  'many origins': size => `{"subject":"alice","origins":[${list(size / 20, () => '"https://a.example"')}]}`
}

const caps15 = `{ ${list(15, index => `input.cap${index}: { max: 12 }`)} }`
const config = `plans: { default: { requestsPerMinute: 1000000, pollsPerMinute: 1000000, concurrentTasks: 100000, credits: unlimited }, guest: { credits: 100 } }
prices: { "*": { credits: 1, per: input.duration, default: 1 } }
caps: { "*": ${caps15} }
batches: { enabled: true }
callbacks: { inbound: true }
guests: { enabled: true, plan: guest }
limits: { addressRequestsPerMinute: 1000000, addressFailuresPerMinute: 1000000 }`

const start = (t: Test) =>
  startGateway(t, {
    config,
    env: {
      GATEWAY_ADMIN_TOKEN: adminToken,
      GATEWAY_PUBLIC_URL: 'https://gateway.test',
      GATEWAY_STATIC_DIR: join(import.meta.dirname, '../../src/pages/playground')
    }
  })

/**
 * The body doors: a path, what is sent along, and the bytes that a first size has (the gateway's own take 64 kB at
 * most).
 */
async function bodyDoors ({ mint }: TestGateway) {
  const token = await mint('mallory')
  return [
    { path: '/api/v1/generateTask/nano-banana', token, size: 32_000 },
    { path: '/api/v1/generateTask/nano-banana/batches', token, size: 32_000 },
    { path: '/gateway/quote/nano-banana', token, size: 15_000 },
    { path: '/gateway/invitations/accept', size: 15_000 },
    { path: '/gateway/sessions/guest', headers: { origin: 'https://gateway.test' }, size: 15_000 },
    { path: '/gateway/sessions', token: issuerToken, size: 15_000 },
    { path: '/gateway/sessions/cookie', token, size: 15_000 },
    { path: '/gateway/admin/credits', token: adminToken, size: 15_000 },
    { path: '/gateway/admin/revocations', token: adminToken, size: 15_000 },
    { path: '/gateway/admin/tokens', token: adminToken, size: 15_000 },
    { path: '/gateway/admin/invitations', token: adminToken, size: 15_000 }
  ]
}

t.test('four times the body is at most a few times the work, at every door that reads one', async t => {
  const it = await start(t)
  for (const { path, size, ...more } of await bodyDoors(it)) {
    for (const [what, make] of Object.entries(bodies)) {
      await isLinear(t, `${what} at ${path}`, size, async size => {
        const { status } = await it.call(path, { body: make(size), ...more })
        if (status < 200 || status >= 500) t.fail(`${what} at ${path}: ${status}`)
      })
    }
  }
})

/** Texts that a regular expression, or a list in a loop, might choke on. */
const texts: Readonly<Record<string, (size: number) => string>> = {
  letters: size => 'a'.repeat(size),
  digits: size => '1'.repeat(size),
  spaces: size => `a${' '.repeat(size)}a`,
  dots: size => '.'.repeat(size),
  commas: size => ','.repeat(size),
  semicolons: size => `${';'.repeat(size)}=`,
  equals: size => '='.repeat(size),
  pairs: size => 'a=b;'.repeat(size / 4),
  quotes: size => '"'.repeat(size),
  'quoted tags': size => '"a",'.repeat(size / 4),
  backslashes: size => `"${'\\'.repeat(size)}`,
  'words and commas': size => 'a, '.repeat(size / 3),
  addresses: size => '10.0.0.1,'.repeat(size / 9),
  'colons and digits': size => '1:'.repeat(size / 2),
  brackets: size => '['.repeat(size)
}

/** What one header, or one part of a path, may hold: Node takes 16 KiB of headers, and as much of a path. */
const textSize = 3500

const json = { 'content-type': 'application/json' }
const base64url = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url')

t.test('four times the header is at most a few times the work, whichever header it is', async t => {
  const it = await start(t)
  const token = await it.mint('mallory')
  const path = '/api/v1/generateTask/nano-banana'
  const headers: Readonly<Record<string, (text: string) => Readonly<Record<string, string>>>> = {
    authorization: text => ({ authorization: `Bearer ${text}` }),
    'authorization without a scheme': text => ({ authorization: text }),
    'authorization with spaces': text => ({ authorization: `Bearer${' '.repeat(text.length)}!` }),
    'x-api-key': text => ({ 'x-api-key': text }),
    'a token of another issuer': text => ({
      authorization: `Bearer ${base64url({ alg: 'RS256' })}.${base64url({ iss: text })}.c2ln`
    }),
    'a token of many levels': text => ({
      authorization: `Bearer ${base64url({ alg: 'HS256' })}.${Buffer.from('['.repeat(text.length / 2)).toString('base64url')}.c2ln`
    }),
    cookie: text => ({ cookie: text }),
    'session cookie': text => ({ cookie: `__Host-apixo_session=${text}` })
  }
  const withToken = [
    'idempotency-key',
    'x-apixo-proof',
    'origin',
    'accept',
    'content-type',
    'x-forwarded-for',
    'forwarded',
    'range',
    'if-range',
    'if-none-match',
    'last-event-id',
    'expect-ct',
    'content-encoding'
  ]
  const doors = {
    ...headers,
    ...Object.fromEntries(
      withToken.map(name => [name, (text: string) => ({ authorization: `Bearer ${token}`, [name]: text })])
    )
  }
  for (const [header, write] of Object.entries(doors)) {
    for (const [what, make] of Object.entries(texts)) {
      await isLinear(t, `${header} of ${what}`, textSize, size =>
        it.call(path, { method: 'POST', body: '{}', headers: { ...json, ...write(make(size)) } })
      )
    }
  }
  for (const path of [
    '/gateway/events',
    '/gateway/results/a',
    '/api/v1/statusTask/nano-banana?taskId=a',
    '/gateway/tasks/a/results/0'
  ]) {
    for (const [what, make] of Object.entries(texts)) {
      const options = (size: number) => ({ headers: { 'last-event-id': make(size / 2), range: make(size / 2) } })
      await isLinear(t, `${path} with ${what}`, textSize, size => it.call(path, options(size)))
    }
  }
})

t.test('four times the path, or the query, is at most a few times the work', async t => {
  const it = await start(t)
  const token = await it.mint('mallory')
  const paths: ReadonlyArray<(text: string) => string> = [
    text => `/api/v1/statusTask/${text}`,
    text => `/api/v1/statusTask/nano-banana?taskId=${text}`,
    text => `/api/v1/statusTask/nano-banana?${text}`,
    text => `/gateway/tasks?cursor=${text}`,
    text => `/gateway/tasks?${text}`,
    text => `/gateway/tasks/${text}/results/0`,
    text => `/gateway/tasks/a/results/${text}`,
    text => `/gateway/results/${text}`,
    text => `/${text}`,
    text => `/gateway/callbacks/${text}`
  ]
  const parts = {
    letters: texts.letters!,
    names: (size: number) => list(size / 8, index => `k${index}=`).replaceAll(',', '&'),
    'one name many times': (size: number) => 'taskId=&'.repeat(size / 8),
    slashes: (size: number) => '/'.repeat(size),
    'steps up': (size: number) => '../'.repeat(size / 3),
    'encoded steps': (size: number) => '%2e%2e%2f'.repeat(size / 9),
    'broken percents': (size: number) => '%'.repeat(size),
    'encoded percents': (size: number) => '%25'.repeat(size / 3),
    dots: texts.dots!,
    semicolons: texts.semicolons!
  }
  for (const write of paths) {
    for (const [what, make] of Object.entries(parts)) {
      await isLinear(t, `${write('…')} of ${what}`, textSize, size =>
        rawHttp(
          t,
          it.origin,
          `GET ${write(make(size))} HTTP/1.1\r\nhost: gateway.test\r\nconnection: close\r\nauthorization: Bearer ${token}\r\n\r\n`
        )
      )
    }
  }
})

t.test('what the upstream calls back with is read in linear time', async t => {
  const it = await start(t)
  await it.submit(await it.mint('alice'))
  const { callback_url: url } = JSON.parse(String(it.sandbox.calls[0]!.body))
  for (const [what, make] of Object.entries(bodies)) {
    await isLinear(t, what, 60_000, async size => {
      if ((await it.call(new URL(url).pathname, { body: make(size) })).status !== 200) t.fail(what)
    })
  }
})

t.test('a name is bounded before it is folded: the known attack is a 400 within milliseconds', async t => {
  for (const [what, make] of Object.entries(bodies)) {
    if (!what.startsWith('one name') && !what.startsWith('space')) continue
    const bytes = Buffer.from(make(640_000))
    const ms = await shortest(() => t.throws(() => readJson(bytes), { code: 'GW_BAD_REQUEST' }), 0)
    t.ok(ms < 100, `${what}: ${ms.toFixed(1)} ms`)
  }
  const name = (count: number) => Buffer.from(`{"${'é'.repeat(count)}":1}`)
  t.doesNotThrow(() => readJson(name(256)))
  t.throws(() => readJson(name(257)), { message: /256 characters/ })
  t.doesNotThrow(() => readJson(Buffer.from(`{"${'\\u00e9'.repeat(256)}":1}`)), 'escapes are not what is counted')
  t.throws(() => readJson(Buffer.from(`{"${'\\u00e9'.repeat(257)}":1}`)), { message: /256 characters/ })
})

t.test('many caps look each name up once', async t => {
  const rules = (count: number) => ({
    '*': Object.fromEntries(Array.from({ length: count }, (_, index) => [`input.cap${index}`, { max: 12, oneOf: [1] }]))
  })
  const input = Object.fromEntries(Array.from({ length: 49_000 }, (_, index) => [`Name${index}é`, 1]))
  await isLinear(t, 'caps', 15, count => caps(rules(count))('sora-2', { input: { ...input } }))
  const [few, many] = [
    await shortest(() => caps(rules(1))('sora-2', { input: { ...input } }), 0),
    await shortest(() => caps(rules(60))('sora-2', { input: { ...input } }), 0)
  ]
  t.ok(many < 4 * Math.max(few, noiseMs), `${few.toFixed(1)} ms for one cap, ${many.toFixed(1)} ms for sixty`)
})

t.test('what many caps write into a body looks for its place once', async t => {
  const text = `{"input":{"list":[${'1,'.repeat(1_000_000)}1],"o":{}}}`
  const members = (count: number) => Array.from({ length: count }, (_, index) => ({ names: ['o', `m${index}`], value: 1 }))
  const [few, many] = [
    await shortest(() => insertMembers(text, members(1), ['input']), 0),
    await shortest(() => insertMembers(text, members(15), ['input']), 0)
  ]
  t.ok(many < 4 * Math.max(few, noiseMs), `${few.toFixed(1)} ms for one, ${many.toFixed(1)} ms for fifteen`)
})

t.test('earlier tasks are counted while they are collected', async t => {
  const many = { task_ids: Array.from({ length: 4_000_000 }, (_, index) => index) }
  const ms = await shortest(
    () => t.throws(() => taskReferences(many), { code: 'GW_BAD_REQUEST', message: /too many tasks/ }),
    0
  )
  t.ok(ms < 100, `${ms.toFixed(1)} ms for four million`)
  const words = { x: Array.from({ length: 201 }, (_, index) => `word-${String(index).padStart(20, '0')}`) }
  t.throws(() => taskReferences(words), { code: 'GW_BAD_REQUEST', message: /too many tasks/ })
  t.same(
    taskReferences({ task_ids: Array.from({ length: 500 }, () => 'task-1') }).references,
    ['task-1'],
    'one task named often is one task'
  )
})

t.test('globs are matched in linear time, by name and by pattern', async t => {
  await isLinear(t, 'pattern', 2000, size => globs(['*a'.repeat(size) + '*b'])('a'.repeat(size)))
  await isLinear(t, 'name', 20_000, size => globs(['a*aa*aaa*b'])('a'.repeat(size)))
})

t.test('the gateway\'s key is not among what these tests sent', async t => {
  t.notMatch(JSON.stringify(Object.values(bodies).map(make => make(1200))), apiKey)
})
