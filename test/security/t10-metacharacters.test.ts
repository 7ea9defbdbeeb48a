import t from 'tap'
import { issuerToken, startGateway } from '../helpers/gateway.ts'

const config = 'plans: { default: { credits: 1 } }\nlimits: { addressFailuresPerMinute: 100000 }'

const subjects = [
  "alice'--",
  "' OR '1'='1",
  "'; DROP TABLE tasks; --",
  '" OR ""="',
  'alice%',
  '%',
  '_',
  'a*',
  'alice\\',
  '$ne',
  '{"$gt":""}',
  '.*',
  '^',
  '(a+)+$',
  '$' + '{7*7}',
  '{{7*7}}',
  '../../etc/passwd',
  'app:alice',
  'guest:alice',
  ':',
  '',
  ' ',
  'alice ',
  'ALICE',
  'ａlice',
  'alice\u200b',
  '\u202ealice',
  '😀',
  '\ufffd',
  'x'.repeat(128),
  'é',
  'e\u0301',
  '__proto__',
  'constructor',
  'null',
  '0'
].filter(subject => subject !== '')

t.test(
  "subjects with characters of some query language are names like any other: none reads, spends or blocks another's",
  async t => {
    const { submit, status, mint, sandbox } = await startGateway(t, { config })
    const alice = await mint('alice')
    const { taskId } = (await submit(alice)).json.data
    for (const subject of subjects) {
      const token = await mint(subject)
      t.equal(
        (await status(token, taskId)).error,
        'GW_TASK_NOT_FOUND',
        `${JSON.stringify(subject)} reads nothing of alice's`
      )
      t.equal((await submit(token)).status, 200, 'and has a credit of its own')
      t.equal((await submit(token)).error, 'GW_CREDITS_EXHAUSTED')
    }
    t.equal((await status(alice, taskId)).status, 200, 'the table still stands')
    t.equal(sandbox.submits.length, subjects.length + 1)
  }
)

t.test('a subject that a store would write down as another is refused', async t => {
  const { call } = await startGateway(t, { config })
  for (const subject of [
    '"\\ud800"',
    '"a\\udc00"',
    '"\\udc00\\ud800"',
    '"a\\u0000"',
    '"a\\n"',
    '"\\u0085"',
    '""',
    'null',
    '7',
    '["alice"]',
    '{"$ne":""}',
    `"${'x'.repeat(129)}"`
  ]) {
    t.match(
      await call('/gateway/sessions', { token: issuerToken, body: `{"subject":${subject}}` }),
      { status: 400, error: 'GW_BAD_REQUEST' },
      subject.slice(0, 20)
    )
  }
})

t.test('tokens with characters of some query language are no sessions, and harm nothing', async t => {
  const { call, mint, submit, sandbox } = await startGateway(t, { config })
  const tokens = [
    "' OR '1'='1",
    "x'; DROP TABLE revocations; --",
    '%',
    '*',
    '$ne',
    '{"$gt":""}',
    '(a+)+$',
    '$' + '{jndi:ldap://x}',
    '../../../etc/passwd',
    'a.b.c',
    '%00',
    '1e309',
    'x'.repeat(8000)
  ]
  for (const name of ['x-api-key', 'x-goog-api-key', 'authorization']) {
    for (const token of tokens) {
      const value = name === 'authorization' ? `Bearer ${token}` : token
      t.match(
        await call('/api/v1/generateTask/nano-banana', {
          body: { input: { prompt: 'x' } },
          headers: { [name]: value }
        }),
        { status: 401, error: 'GW_BAD_SESSION' },
        `${name}: ${token.slice(0, 20)}`
      )
    }
  }
  t.equal(sandbox.calls.length, 0)
  t.equal((await submit(await mint('alice'))).status, 200)
})

t.test('task ids with such characters are ids that do not exist', async t => {
  const { status, submit, mint, sandbox } = await startGateway(t, { config })
  const token = await mint('alice')
  await submit(token)
  for (const id of [
    "' OR '1'='1",
    "x' UNION SELECT 1--",
    '%',
    '_'.repeat(32),
    '*',
    '\0',
    '%00',
    '😀',
    '$ne',
    '[]',
    '{}',
    'null',
    'undefined',
    'x'.repeat(256),
    'x'.repeat(257)
  ]) {
    const reply = await status(token, id)
    t.equal(reply.error, 'GW_TASK_NOT_FOUND', JSON.stringify(id.slice(0, 20)))
  }
  t.equal(sandbox.calls.length, 1)
})
