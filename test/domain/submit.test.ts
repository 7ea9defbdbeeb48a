import t from 'tap'
import { readSubmitBody } from '../../src/domain/submit.ts'

const bytesOf = (body: unknown) => Buffer.from(typeof body === 'string' ? body : JSON.stringify(body))
const nowhere = { checkCallbackUrl: null, upstreamTo: null }
const read = (body: unknown, ...extra: string[]) =>
  readSubmitBody(bytesOf(body), { extraFields: new Set(extra), mayBeOfficial: false, ...nowhere })
const readOfficial = (body: unknown) =>
  readSubmitBody(bytesOf(body), { extraFields: new Set(), mayBeOfficial: true, ...nowhere })
const input = { prompt: 'a red cube' }

t.test('a body in which everything may go is sent as it came, byte for byte', async t => {
  const text = '{ "request_type":"async",\n "input" : {"prompt":"a red cube", "seed":12345678901234567890} }'
  t.equal(read(text).bytes.toString(), text)
  t.same(read(text).input.prompt, 'a red cube')
})

t.test('a body without request_type gets async, around the input\'s own bytes', async t => {
  t.equal(read('{"input":{"seed": 12345678901234567890}}').bytes.toString(),
    '{"request_type":"async","input":{"seed": 12345678901234567890}}')
})

t.test('provider auto and source are dropped', async t => {
  t.equal(read({ request_type: 'async', provider: 'auto', source: 'me', input }).bytes.toString(),
    '{"request_type":"async","input":{"prompt":"a red cube"}}')
})

t.test('another provider passes only when the operator lets it', async t => {
  t.throws(() => read({ provider: 'official', input }), { code: 'GW_BAD_REQUEST', message: /provider/ })
  t.equal(read({ provider: 'official', input }, 'provider').bytes.toString(),
    '{"request_type":"async","provider":"official","input":{"prompt":"a red cube"}}')
})

t.test('the official provider passes for models that say so, and no third one does', async t => {
  t.equal(readOfficial({ provider: 'official', input }).bytes.toString(),
    '{"request_type":"async","provider":"official","input":{"prompt":"a red cube"}}')
  const text = '{"request_type":"async", "provider":"official", "input":{}}'
  t.equal(readOfficial(text).bytes.toString(), text)
  t.equal(
    readOfficial({ provider: 'auto', input }).bytes.toString(),
    '{"request_type":"async","input":{"prompt":"a red cube"}}'
  )
  for (const provider of ['value', 'Official', '', ['official'], true]) {
    t.throws(
      () => readOfficial({ provider, input }),
      { code: 'GW_BAD_REQUEST', message: /"auto", "official" or left out/ },
      String(provider)
    )
  }
})

t.test('an optional field that is null, or a callback that is empty, is not asked for, and not sent', async t => {
  const plain = '{"request_type":"async","input":{"prompt":"a red cube"}}'
  for (const name of ['provider', 'source', 'callback_url', 'webhook_url', 'webhook', 'request_type']) {
    t.equal(read({ [name]: null, input }).bytes.toString(), plain, `${name}: null`)
  }
  for (const name of ['callback_url', 'webhook_url', 'webhook']) {
    t.equal(read({ input, [name]: '' }).bytes.toString(), plain, `${name}: ''`)
  }
  t.equal(
    read({
      request_type: null,
      provider: null,
      source: null,
      callback_url: null,
      webhook_url: '',
      input
    }).bytes.toString(),
    plain
  )
  t.equal(read({ request_type: 'async', callback_url: null, input }).bytes.toString(), plain)
  t.equal(
    read({ seed: null, provider: null, input }, 'seed', 'provider').bytes.toString(),
    plain,
    'also what the operator lets pass'
  )
  for (const body of [
    { input, seed: null },
    { input, Callback_URL: null },
    { input, request_type: '' },
    { input, provider: '' },
    { input: null },
    { input, callback_url: ' ' },
    { input, webhook: [] },
    { input, webhook: false }
  ]) {
    t.throws(() => read(body), JSON.stringify(body))
  }
})

t.test('inside input nothing is dropped', async t => {
  const text = '{"request_type":"async","input":{"prompt":"a","seed":null,"callback_url":"","webhook":null}}'
  t.equal(read(text).bytes.toString(), text)
})

t.test('whoever asks for a callback is refused', async t => {
  for (const name of ['callback_url', 'webhook_url', 'webhook']) {
    t.throws(() => read({ input, [name]: 'https://evil.example' }, name), {
      code: 'GW_CALLBACK_DENIED',
      message: new RegExp(name)
    })
  }
  t.throws(() => read({ input, request_type: 'callback' }), { code: 'GW_CALLBACK_DENIED' })
})

t.test('a name that only looks like a known one is refused, with the known one', async t => {
  for (const [name, known] of [
    ['Input', 'input'],
    ['CALLBACK_URL', 'callback_url'],
    ['ſource', 'source'],
    ['request_Type', 'request_type']
  ]) {
    t.throws(() => read({ [name!]: {} }), { code: 'GW_BAD_REQUEST', message: new RegExp(`write ${known}`) })
  }
})

t.test('an unknown top-level field is refused by name, unless the operator lets it pass', async t => {
  t.throws(() => read({ input, seed: 1 }), { code: 'GW_BAD_REQUEST', message: /"seed"/ })
  t.equal(
    read({ input, seed: 1 }, 'seed').bytes.toString(),
    '{"request_type":"async","input":{"prompt":"a red cube"},"seed":1}'
  )
})

t.test('input is an object and request_type a known word', async t => {
  for (const body of [
    {},
    { input: null },
    { input: [] },
    { input: 'x' },
    { input, request_type: 'sync' },
    { input, request_type: 1 }
  ]) {
    t.throws(() => read(body), { code: 'GW_BAD_REQUEST' }, JSON.stringify(body))
  }
})

t.test('earlier tasks are found in input at any depth, in any case and spelling', async t => {
  const { references } = read({
    input: {
      task_id: 'a',
      TaskId: 'b',
      nested: [{ 'origin-task-id': 'c' }],
      taskIds: ['d', ['e']],
      batch_id: 'f',
      other: { taſk_id: 'g', task_Id_of: 'no' },
      parentTaskID: 7,
      'Batch-IDs [] ': ['h'],
      ofｔａｓｋＩＤ: 'i',
      seed: 'no',
      task: 'text-to-image',
      prompt: 'task_id',
      more: { taskid: null }
    }
  })
  t.same(references, ['a', 'b', 'c', 'd', 'e', 'f', 'g', '7', 'h', 'i'])
})

t.test('what only looks like a task id is told apart from what is said to be one', async t => {
  const id = 'dff8afd34c4e47719b85ad6651daa3f0'
  const { references, mentions } = read({
    input: {
      origin: id,
      deep: [{ parent: `task_${id}` }],
      mode: 'text-to-image',
      task_id: id,
      prompt: `the ${id}`,
      seed: 7
    }
  })
  t.same(references, [id])
  t.same(mentions, [id, `task_${id}`])
})
