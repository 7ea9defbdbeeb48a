import { brotliCompressSync, deflateSync, gzipSync } from 'node:zlib'
import t, { type Test } from 'tap'
import { items, submitBatch } from '../helpers/batches.ts'
import { startGateway } from '../helpers/gateway.ts'

const key = 'sk-of+the/operator-0001'
const config =
  'plans: { default: { credits: 100, concurrentTasks: 1000, requestsPerMinute: 10000, pollsPerMinute: 10000 } }\nbatches: { enabled: true }'
const unit = (sign: string) => `\\u${sign.charCodeAt(0).toString(16).padStart(4, '0')}`
const everySign = [...key].map(unit).join('')

/** What JSON, and JSON in JSON, reads as the key. */
const spellings: Readonly<Record<string, string>> = {
  'as it is': key,
  'a slash escaped': key.replace('/', '\\/'),
  'a plus escaped': key.replace('+', '\\u002B'),
  'every sign escaped': everySign,
  'escaped twice': key.replace('/', '\\\\/').replace('+', '\\\\u002b'),
  'every sign escaped twice': everySign.replaceAll('\\', '\\\\')
}

/** An answer of the upstream that the next request gets, in a coding that nobody asked for. */
const codings = {
  identity: (text: string) => Buffer.from(text),
  gzip: gzipSync,
  br: brotliCompressSync,
  deflate: deflateSync
}

const start = (t: Test) => startGateway(t, { config, keys: [key] })

for (const [coding, encode] of Object.entries(codings)) {
  const headers = { 'content-type': 'application/json', 'content-encoding': coding }

  t.test(`the key is passed on in no spelling (${coding})`, async t => {
    const { submit, status, mint, sandbox } = await start(t)
    const token = await mint('alice')
    const { taskId } = (await submit(token)).json.data
    for (const [what, text] of Object.entries(spellings)) {
      for (const body of [
        `{"code":400,"message":"bad key ${text}","data":null}`,
        `{"code":400,"message":"x","data":{"${text}":1}}`
      ]) {
        const answer: Parameters<typeof sandbox.next>[0] = (_request, response) => {
          response.writeHead(400, headers).end(encode(body))
        }
        sandbox.next(answer)
        const refused = await submit(token)
        t.match(refused, { status: 502, error: 'GW_UPSTREAM_INVALID' }, `submit: ${what}`)
        sandbox.next(answer)
        const asked = await status(token, taskId)
        t.equal(asked.error, 'GW_UPSTREAM_INVALID', `status: ${what}`)
        for (const { text } of [refused, asked]) t.notMatch(text.replaceAll('\\', ''), /operator|u006f/i)
      }
    }
  })

  t.test(`an accepted submit is the caller's, and charged, also when its answer is compressed (${coding})`, async t => {
    const { call, submit, status, mint, sandbox } = await start(t)
    const token = await mint('alice')
    const answer = JSON.stringify({ code: 200, message: 'success', data: { taskId: `task-${coding}` } })
    sandbox.next((_request, response) => { response.writeHead(200, headers).end(encode(answer)) })
    const accepted = await submit(token)
    t.match(accepted, { status: 200, text: answer })
    t.notOk(accepted.headers.has('content-encoding'), 'it is plain now, and says so')
    const running = JSON.stringify({
      code: 200,
      message: 'success',
      data: { taskId: `task-${coding}`, state: 'running' }
    })
    sandbox.next((_request, response) => {
      response.writeHead(200, headers).end(encode(running))
    })
    t.match(await status(token, `task-${coding}`), { status: 200, text: running })
    t.equal((await call('/gateway/session', { token })).json.credits.left, 99)
  })

  t.test(`and so are the tasks of a batch (${coding})`, async t => {
    const it = await start(t)
    const token = await it.mint('alice')
    const answer = JSON.stringify({
      code: 200,
      message: 'success',
      data: {
        batchId: 'batch-1',
        items: [
          { client_item_id: 'c0', taskId: 'task-1' },
          { client_item_id: 'c1', taskId: 'task-2' }
        ]
      }
    })
    it.sandbox.next((_request, response) => {
      response.writeHead(200, headers).end(encode(answer))
    })
    t.match(await submitBatch(it, token, items('a', 'b')), { status: 200, text: answer })
    t.same(
      (await it.call('/gateway/tasks', { token })).json.tasks.map((task: { taskId: string }) => task.taskId).sort(),
      ['task-1', 'task-2']
    )
  })
}

t.test(
  "a compressed answer that grows beyond all bounds is an unknown outcome, and costs one answer's memory",
  async t => {
    const { submit, status, mint, sandbox } = await start(t)
    const token = await mint('alice')
    const { taskId } = (await submit(token)).json.data
    const bomb = gzipSync(Buffer.alloc(100 * 1024 * 1024, ' '))
    const headers = { 'content-type': 'application/json', 'content-encoding': 'gzip' }
    for (let round = 0; round < 2; round++) {
      sandbox.next((_request, response) => {
        response.writeHead(200, headers).end(bomb)
      })
    }
    t.equal((await submit(token, 'another cube')).error, 'GW_OUTCOME_UNKNOWN')
    t.equal((await status(token, taskId)).error, 'GW_UPSTREAM_INVALID')
  }
)
