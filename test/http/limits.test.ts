import t from 'tap'
import { startGateway, type TestGateway } from '../helpers/gateway.ts'

const plan = (more: string) =>
  `plans: { default: { requestsPerMinute: 1000, pollsPerMinute: 1000, concurrentTasks: 100, credits: unlimited, ${more} } }`

/** Calls until the answer is a 429 or the bound is met; says how many passed. */
async function passes (call: () => Promise<{ status: number }>, most = 20): Promise<number> {
  for (let count = 0; count < most; count++) if ((await call()).status === 429) return count
  return most
}

t.test('submits of all models share one budget per subject and minute', async t => {
  const { mint, submit, sandbox } = await startGateway(t, {
    config: plan('requestsPerMinute: 4').replace('requestsPerMinute: 1000, ', '')
  })
  const [alice, again, bob] = [await mint('alice'), await mint('alice'), await mint('bob')]
  t.equal((await submit(alice)).status, 200)
  t.equal((await submit(alice, 'x', 'sora-2')).status, 200)
  const third = await submit(again)
  t.equal(third.headers.get('ratelimit-limit'), '4')
  t.equal(third.headers.get('ratelimit-remaining'), '1')
  t.equal(third.headers.get('ratelimit-reset'), '60')
  t.equal((await submit(again)).status, 200)
  const fifth = await submit(alice)
  t.match(fifth, {
    status: 429,
    error: 'GW_RATE_LIMITED',
    json: { code: 429, data: null, error: { code: 'GW_RATE_LIMITED' } }
  })
  t.equal(fifth.headers.get('retry-after'), '59')
  t.equal(fifth.headers.get('ratelimit-remaining'), '0')
  t.equal((await submit(bob)).status, 200, 'another subject has its own')
  t.equal(sandbox.submits.length, 5)
})

t.test('polls have a budget of their own, next to that of submits', async t => {
  const { mint, submit, status } = await startGateway(t, {
    config: plan('requestsPerMinute: 2, pollsPerMinute: 3').replace(
      'requestsPerMinute: 1000, pollsPerMinute: 1000, ',
      ''
    )
  })
  const token = await mint('alice')
  const { taskId } = (await submit(token)).json.data
  t.equal(await passes(() => status(token, taskId)), 3)
  t.match(await status(token, taskId), { status: 429, error: 'GW_RATE_LIMITED' })
  t.equal((await submit(token)).status, 200, 'polls have not used up the submits')
  t.equal((await submit(token)).status, 429)
})

/** Every pair of routes shares the budget of the address, whether or not they exist. */
const routes: ReadonlyArray<readonly [string, (gateway: TestGateway) => Promise<{ status: number }>]> = [
  ['an unknown route', ({ call }) => call('/nowhere')],
  ['a wrong method', ({ call }) => call('/gateway/session', { method: 'PUT' })],
  [
    'a preflight',
    ({ call }) =>
      call('/gateway/session', {
        method: 'OPTIONS',
        headers: { origin: 'https://app.example', 'access-control-request-method': 'GET' }
      })
  ],
  ['a submit', ({ submit }) => submit('no-token')],
  ['a status call', ({ status }) => status('no-token', 'x')],
  ['minting', ({ call }) => call('/gateway/sessions', { body: {} })]
]

for (const [first, callFirst] of routes) {
  for (const [second, callSecond] of routes) {
    t.test(`${first} and ${second} share the budget of their address`, async t => {
      const gateway = await startGateway(t, {
        config: 'plans: { default: {} }\nlimits: { addressRequestsPerMinute: 4, addressFailuresPerMinute: 100 }',
        env: { GATEWAY_ALLOWED_ORIGINS: 'https://app.example' }
      })
      for (let count = 0; count < 2; count++) {
        t.not((await callFirst(gateway)).status, 429)
        t.not((await callSecond(gateway)).status, 429)
      }
      t.match(await callFirst(gateway), { status: 429, error: 'GW_THROTTLED' })
      t.match(await callSecond(gateway), { status: 429, error: 'GW_THROTTLED' })
      t.equal((await gateway.call('/livez')).status, 200, 'health routes are exempt')
      t.equal((await gateway.call('/readyz')).status, 200)
    })
  }
}

t.test('401 and 404 are counted apart, and shut all of an address out but its sessions', async t => {
  const gateway = await startGateway(t, { config: `${plan('period: day')}\nlimits: { addressFailuresPerMinute: 5 }` })
  const token = await gateway.mint('alice')
  const { taskId } = (await gateway.submit(token)).json.data
  for (let count = 0; count < 3; count++) t.equal((await gateway.status(token, `guess-${count}`)).status, 404)
  t.equal((await gateway.call('/nowhere')).status, 404)
  t.equal((await gateway.status(token, taskId)).status, 200, 'good calls don\'t count')
  t.equal((await gateway.submit('bad')).status, 401)
  t.equal((await gateway.status(token, taskId)).status, 200)
  const shut = await gateway.submit('bad')
  t.match(shut, { status: 429, error: 'GW_THROTTLED' })
  t.equal(shut.headers.get('retry-after'), '59')
})

t.test('a plan\'s credits end with 402, which tells an SDK not to try again', async t => {
  const { mint, submit, sandbox } = await startGateway(t, { config: 'plans: { default: { credits: 2 } }' })
  const token = await mint('alice')
  t.equal(await (async () => { let n = 0; while ((await submit(token)).status === 200) n++; return n })(), 2)
  const refused = await submit(token)
  t.match(refused, { status: 402, error: 'GW_CREDITS_EXHAUSTED' })
  t.equal(refused.headers.get('x-should-retry'), 'false')
  t.equal(sandbox.submits.length, 2)
})

t.test('unfinished tasks are limited, and a finished one makes room', async t => {
  const { mint, submit, status, time } = await startGateway(t, { config: 'plans: { default: { concurrentTasks: 1 } }' })
  const token = await mint('alice')
  const { taskId } = (await submit(token)).json.data
  const refused = await submit(token)
  t.match(refused, { status: 429, error: 'GW_TOO_MANY_TASKS' })
  t.ok(Number(refused.headers.get('retry-after')) > 0)
  time.advance(60_000)
  t.equal((await status(token, taskId)).json.data.state, 'success')
  t.equal((await submit(token)).status, 200)
})
