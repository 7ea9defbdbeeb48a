import t from 'tap'
import { needsVerification, readProbe } from '../../src/domain/key-ring.ts'
import { readEnvelope, readSubmitAnswer, readSubmitFailure, UpstreamFailure } from '../../src/domain/upstream.ts'

const answer = (status: number, body: unknown) => ({
  status,
  contentType: 'application/json',
  retryAfter: undefined,
  leaksKey: false,
  body: Buffer.from(typeof body === 'string' ? body : JSON.stringify(body))
})
const kindOf = (status: number, body: unknown) => readSubmitAnswer(answer(status, body)).kind

t.test('an envelope is read for the little that must be known', async t => {
  t.match(readEnvelope(answer(200, { code: 200, message: 'success', data: { taskId: 'a', state: 'pending' } }).body), {
    code: 200,
    taskId: 'a',
    state: 'pending'
  })
  t.match(
    readEnvelope(answer(200, { taskId: 'b' }).body),
    { taskId: 'b', code: undefined, state: undefined },
    'an id at the top level counts'
  )
  for (const taskId of ['', 7, null, 'x'.repeat(257)]) {
    t.equal(readEnvelope(answer(200, { data: { taskId } }).body)?.taskId, undefined, `no id: ${taskId}`)
  }
  for (const body of ['', '<html>', '[]', 'null', '7', '"x"']) t.equal(readEnvelope(Buffer.from(body)), null, body)
})

t.test('a submit is accepted when a 2xx names a task, whatever else it says', async t => {
  t.match(readSubmitAnswer(answer(200, { code: 200, data: { taskId: 'a' } })), { kind: 'accepted', taskId: 'a' })
  t.equal(kindOf(200, { code: 500, data: { taskId: 'a' } }), 'accepted')
  t.equal(kindOf(201, { taskId: 'a' }), 'accepted')
  t.not(kindOf(500, { code: 500, data: { taskId: 'a' } }), 'accepted')
})

t.test('a submit is refused by 4xx, 500 or 503 in the API\'s own form, also as a body code', async t => {
  for (const status of [400, 401, 402, 403, 404, 429, 500, 503]) {
    t.equal(kindOf(status, { code: status, message: 'no', data: null }), 'refused', `${status}`)
    t.equal(kindOf(200, { code: status, message: 'no', data: null }), 'refused', `200 with ${status}`)
  }
  t.equal(kindOf(400, { error: 'no' }), 'refused')
})

t.test('a 4xx page of somebody on the way is a refusal that can not be passed on', async t => {
  t.equal(kindOf(404, '<html>'), 'invalid')
})

t.test('whatever else comes leaves the outcome unknown', async t => {
  for (const [status, body] of [
    [200, {}],
    [200, { code: 200, data: null }],
    [200, '<html>'],
    [200, { code: 502 }],
    [302, ''],
    [308, { code: 308 }],
    [500, '<html>'],
    [500, { error: 'no code' }],
    [502, { code: 502 }],
    [504, { code: 504 }],
    [520, '<html>'],
    [529, { code: 529 }]
  ] as const) { t.equal(kindOf(status, body), 'unknown', `${status} ${JSON.stringify(body)}`) }
})

t.test('only a connection that never stood means that nothing was sent', async t => {
  t.equal(readSubmitFailure(new UpstreamFailure('unreachable')).kind, 'nothing-sent')
  for (const reason of ['timeout', 'broken', 'too-long', 'encoded', 'cancelled'] as const) {
    t.equal(readSubmitFailure(new UpstreamFailure(reason)).kind, 'unknown', reason)
  }
  t.equal(readSubmitFailure(new Error('a bug')).kind, 'unknown')
})

t.test('401, 402, 403 and a balance error cast doubt on the key, other answers do not', async t => {
  for (const status of [401, 402, 403]) t.ok(needsVerification(status, ''))
  t.ok(needsVerification(400, 'Insufficient credits'))
  t.ok(needsVerification(400, 'insufficient_balance'))
  t.notOk(needsVerification(400, 'Invalid request'))
  t.notOk(needsVerification(429, 'Insufficient credits'))
})

t.test('a probe is read by status, body code and balance', async t => {
  t.same(readProbe(answer(200, { code: 200, data: 74.87 })), { verdict: 'fine', balance: 74.87 })
  t.same(readProbe(answer(200, { code: 200, data: 0 })), { verdict: 'empty', balance: 0 })
  t.equal(readProbe(answer(200, { code: 200, data: -1 })).verdict, 'empty')
  t.equal(readProbe(answer(402, { code: 402 })).verdict, 'empty')
  t.equal(readProbe(answer(401, { code: 401 })).verdict, 'refused')
  t.equal(readProbe(answer(200, { code: 401 })).verdict, 'refused')
  t.equal(readProbe(answer(403, '<html>')).verdict, 'refused')
  for (const [status, body] of [[429, {}], [500, {}], [200, '<html>'], [200, { code: 200, data: '7' }]] as const) {
    t.equal(readProbe(answer(status, body)).verdict, 'unclear')
  }
})
