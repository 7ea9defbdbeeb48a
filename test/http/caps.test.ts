import t from 'tap'
import { startGateway } from '../helpers/gateway.ts'

const config = `
plans: { default: { credits: 100, concurrentTasks: 1000, requestsPerMinute: 10000, pollsPerMinute: 10000 } }
prices: { "*": [{ when: { input.resolution: 1k }, credits: 1, per: input.count, default: 50 }, { credits: 9 }] }
caps:
  "*":
    input.resolution: { oneOf: [1k, 2k], default: 1k }
    input.count: { min: 1, max: 4, default: 2 }
    input.prompt: { required: true, not: '--(?i:rs|dur)\\b' }
    input.image_urls: { maxItems: 1 }
batches: { enabled: true }
`
const path = '/api/v1/generateTask/wan-2-7-image'

t.test('a default is sent as the first member of the input, all else as it came, and priced', async t => {
  const { call, mint, sandbox } = await startGateway(t, { config })
  const rows: ReadonlyArray<readonly [body: string, sent: string, credits: number]> = [
    [
      ' {"request_type":"async", "input" : { "prompt":"ü \\u00fc","seed":12345678901234567890 } }\n',
      ' {"request_type":"async", "input" : {"count":2,"resolution":"1k", "prompt":"ü \\u00fc","seed":12345678901234567890 } }\n',
      2
    ],
    ['{"input":{"prompt":"x","count":3}}', '{"request_type":"async","input":{"resolution":"1k","prompt":"x","count":3}}', 3],
    [
      '{"provider":"auto","input":{"prompt":"x","resolution":"2K","count":3}}',
      '{"request_type":"async","input":{"prompt":"x","resolution":"2K","count":3}}',
      9
    ]
  ]
  for (const [body, sent, credits] of rows) {
    const token = await mint(`alice-${credits}`)
    t.equal((await call(path, { token, body })).status, 200, body)
    t.equal(sandbox.submits.at(-1)?.body.toString(), sent)
    t.equal((await call('/gateway/session', { token })).json.credits.used, credits)
  }
})

t.test('a cap holds also for whoever leaves the field out, or hides it in the prompt', async t => {
  const { call, mint, sandbox } = await startGateway(t, { config })
  const token = await mint('alice')
  for (const [input, message] of [
    ['{}', 'Set input.prompt.'],
    ['{"prompt":null}', 'input.prompt must be a text.'],
    ['{"prompt":["x --rs 1080p"]}', 'input.prompt must be a text.'],
    ['{"prompt":"x --RS 1080p --dur 10"}', 'input.prompt has something in it that is not accepted here.'],
    ['{"prompt":"x \\u002d-rs 1080p"}', 'input.prompt has something in it that is not accepted here.'],
    [`{"prompt":"${'x'.repeat(20_001)}"}`, 'input.prompt must have at most 20000 characters.'],
    ['{"prompt":"x","resolution":"4K"}', 'input.resolution must be one of 1k, 2k.'],
    ['{"prompt":"x","resolution":null}', 'input.resolution must be one of 1k, 2k.'],
    ['{"prompt":"x","Resolution":"4k"}', 'Write "resolution" of input.resolution and not "Resolution".'],
    ['{"prompt":"x","image_urls":["a","b"]}', 'input.image_urls must have at most 1 items.'],
    ['{"prompt":"x","image_urls":"a"}', 'input.image_urls must be a list.']
  ] as const) {
    const reply = await call(path, { token, body: `{"input":${input}}` })
    t.match(reply, { status: 400, error: 'GW_BAD_REQUEST', json: { message } }, input.slice(0, 60))
  }
  t.equal(sandbox.calls.length, 0)
})

t.test('each item of a batch gets its defaults, and is held to its caps', async t => {
  const { call, mint, sandbox } = await startGateway(t, { config })
  const token = await mint('alice')
  const batch = (...inputs: readonly string[]) => call(`${path}/batches`, {
    token,
    body: `{"items":[${inputs.map((input, index) =>
      `{"client_item_id":"c${index}","idempotency_key":"k${index}","input":${input}}`)}]}`
  })
  t.match(await batch('{"prompt":"x"}', '{"prompt":"x","count":5}'), {
    status: 400, json: { message: 'In items.1: input.count must be at most 4.' }
  })
  t.equal(sandbox.calls.length, 0)
  t.equal((await batch('{ "prompt":"x"}', '{"prompt":"x","count":4.0}', '{"prompt":"x","resolution":"2k"}')).status, 200)
  const sent = sandbox.submits.at(-1)!.body.toString()
  t.strictSame(Array.from(sent.matchAll(/"input":(\{.*?\})/g), ([, input]) => input), [
    '{"count":2,"resolution":"1k", "prompt":"x"}',
    '{"resolution":"1k","prompt":"x","count":4.0}',
    '{"count":2,"prompt":"x","resolution":"2k"}'
  ])
  t.equal((await call('/gateway/session', { token })).json.credits.used, 2 + 4 + 9)
})

t.test('a repeat is known by the body that came, not by the one that was sent', async t => {
  const { call, mint, sandbox } = await startGateway(t, { config })
  const token = await mint('alice')
  const submit = (input: string) => call(path, { token, body: `{"input":${input}}`, headers: { 'idempotency-key': 'one' } })
  const first = await submit('{"prompt":"x"}')
  t.equal((await submit('{"prompt":"x"}')).text, first.text)
  t.equal((await submit('{"count":2,"resolution":"1k","prompt":"x"}')).error, 'GW_IDEMPOTENCY_MISMATCH')
  t.equal(sandbox.submits.length, 1)
})
