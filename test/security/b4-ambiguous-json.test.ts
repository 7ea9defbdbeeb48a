import t from 'tap'
import { startGateway } from '../helpers/gateway.ts'

const config =
  'plans: { default: { credits: unlimited, concurrentTasks: 1000, requestsPerMinute: 10000 } }\ncaps: { "nano-*": { input.duration: { max: 12 } } }'
const path = '/api/v1/generateTask/nano-banana'

const ambiguous: Readonly<Record<string, string>> = {
  'a name twice': '{"input":{"prompt":"a"},"input":{"prompt":"b"}}',
  'a name twice, once escaped': '{"input":{"prompt":"a"},"\\u0069nput":{"prompt":"b"}}',
  'names alike but for case': '{"input":{"prompt":"a"},"Input":{"prompt":"b"}}',
  'one name in another case': '{"INPUT":{"prompt":"a"}}',
  'names alike but for Unicode folding': '{"input":{"prompt":"a","task_id":"x","taſk_id":"y"}}',
  'the Kelvin sign': '{"input":{"prompt":"a","kind":1,"\\u212aind":2}}',
  'twins deep inside': '{"input":{"prompt":"a","x":[{"y":{"duration":1,"duration":99}}]}}',
  'a capped name in another case': '{"input":{"prompt":"a","Duration":99}}',
  'a capped name with a look-alike letter': '{"input":{"prompt":"a","ｄuration":99}}',
  __proto__: '{"input":{"prompt":"a"},"__proto__":{"admin":true}}',
  '__proto__ inside': '{"input":{"prompt":"a","__proto__":{"duration":99}}}',
  '__proto__, escaped': '{"input":{"prompt":"a","\\u005f\\u005fproto__":{"duration":99}}}',
  'constructor.prototype': '{"input":{"prompt":"a","constructor":{"prototype":{"x":1}}}}',
  'an empty name': '{"input":{"prompt":"a"},"":1}',
  'a byte order mark': '\ufeff{"input":{"prompt":"a"}}',
  'text after the end': '{"input":{"prompt":"a"}}{"input":{"prompt":"b"}}',
  'a comment': '{"input":{"prompt":"a"}/* x */}',
  'a trailing comma': '{"input":{"prompt":"a"},}',
  'single quotes': "{'input':{'prompt':'a'}}",
  'a control character in a string': '{"input":{"prompt":"a\u0001"}}',
  'an array': '[{"input":{"prompt":"a"}}]',
  'a word': 'null',
  'no JSON': 'input=a'
}

const costly: Readonly<Record<string, () => string>> = {
  'ten thousand levels': () => `{"input":{"prompt":"a","x":${'['.repeat(10_000)}${']'.repeat(10_000)}}}`,
  'levels that never close': () => '{"input":'.repeat(100_000),
  'a million names': () => `{"input":{${Array.from({ length: 1e6 }, (_, index) => `"k${index}":1`).join()}}}`,
  'five million empty arrays': () => `{"input":{"prompt":"a","x":[${'[],'.repeat(5e6)}0]}}`,
  'one name of five million ligatures': () => `{"input":{"${'ﷺ'.repeat(5e6)}":1}}`,
  'many names of many ligatures': () =>
    `{"input":{${Array.from({ length: 49_000 }, (_, index) => `"${'ﷺ'.repeat(100)}${index}":1`).join()}}}`
}

t.test('a body that two readers could take for two things is refused, and nothing is sent', async t => {
  const { call, mint, sandbox } = await startGateway(t, { config })
  const token = await mint('alice')
  for (const [what, body] of Object.entries(ambiguous)) {
    t.match(
      await call(path, { token, body }),
      { status: 400, error: 'GW_BAD_REQUEST', json: { code: 400, data: null } },
      what
    )
  }
  t.equal(sandbox.calls.length, 0)
  t.equal(({} as { admin?: boolean }).admin, undefined)
})

t.test('a body that is not UTF-8 is refused', async t => {
  const { origin, mint, sandbox } = await startGateway(t, { config })
  const headers = { authorization: `Bearer ${await mint('alice')}`, 'content-type': 'application/json' }
  const text = '{"input":{"prompt":"café"}}'
  const bodies = [
    Buffer.from(text, 'latin1'),
    Buffer.from(text, 'utf16le'),
    Buffer.from('7b22696e707574223a7b2270726f6d7074223a22c0af227d7d', 'hex')
  ]
  for (const body of bodies) {
    for (const type of [
      'application/json',
      'application/json; charset=utf-16',
      'application/json; charset=iso-8859-1'
    ]) {
      const response = await fetch(origin + path, {
        method: 'POST',
        headers: { ...headers, 'content-type': type },
        body
      })
      t.equal(response.headers.get('x-gateway-error'), 'GW_BAD_REQUEST', type)
    }
  }
  t.equal(sandbox.calls.length, 0)
})

t.test('a body made to cost time is refused before it has', async t => {
  const { call, mint, sandbox } = await startGateway(t, { config })
  const token = await mint('alice')
  for (const [what, make] of Object.entries(costly)) {
    const body = make()
    const start = performance.now()
    t.equal((await call(path, { token, body })).error, 'GW_BAD_REQUEST', what)
    // Generous for a loaded machine; each of them took seconds or hundreds of megabytes before it had a bound.
    t.ok(performance.now() - start < 2000, `${what}: in time`)
  }
  t.equal(sandbox.calls.length, 0)
})

t.test('the gateway\'s own routes read as strictly', async t => {
  const { call } = await startGateway(t)
  const token = 'issuer-token-of-the-backend-0001'
  for (const body of [
    '{"subject":"alice","subject":"root"}',
    '{"subject":"alice","Subject":"root"}',
    '{"subject":"a","__proto__":{"plan":"x"}}'
  ]) {
    t.equal((await call('/gateway/sessions', { token, body })).error, 'GW_BAD_REQUEST', body)
  }
})

t.test('what was checked is what is sent: bytes as they came, or rebuilt around them', async t => {
  const { call, mint, sandbox } = await startGateway(t, { config })
  const token = await mint('alice')
  const input =
    '{"prompt":"a", "seed":12345678901234567890,\n"scale":1.10,"constructor":"x","nested":{"Prompt":"\\u0041"}}'
  const whole = `{"request_type":"async","input":${input}}`
  t.equal((await call(path, { token, body: whole })).status, 200)
  t.equal((await call(path, { token, body: `{"input":${input}, "provider":"auto","source":"x"}` })).status, 200)
  t.same(sandbox.submits.map(submit => submit.body.toString()), [whole, whole])
})
